"""Sorting signals for synthetic proteins, and decoys: the same residues in an order that means nothing.

A signal is spelled by a skeleton: capitals stand for themselves, lower-case letters for one residue of a
small group. A decoy is drawn from the same skeleton with its blocks in another order, so it has the same
composition and nearly the same pairs of neighbours. Variety is kept small on purpose: a model of two
layers must learn each signal from about 200 proteins.

Source: the kinds of signal and their places are textbook knowledge (Alberts et al., Molecular Biology of
the Cell, "Intracellular Compartments and Protein Sorting"); exact spellings and shares are made up.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TypeVar

_Item = TypeVar("_Item")


class Draws:
    """Random choices that are the same on every machine and in every Python version.

    Everything is made from `random.Random.random()`, the one method whose numbers Python promises to keep
    for a seed. Source: https://docs.python.org/3/library/random.html#notes-on-reproducibility
    """

    def __init__(self, seed: int) -> None:
        self._next = random.Random(seed).random  # noqa: S311 - synthetic proteins are no secret

    def chance(self, probability: float) -> bool:
        """Draw True with this probability."""
        return self._next() < probability

    def integer(self, low: int, high: int) -> int:
        """Draw a whole number from `low` to `high`, both included."""
        return low + int(self._next() * (high - low + 1))

    def pick(self, items: Sequence[_Item]) -> _Item:
        """Draw one of the items, each as likely."""
        return items[self.integer(0, len(items) - 1)]

    def shuffled(self, items: Sequence[_Item]) -> list[_Item]:
        """Put the items into random order."""
        mixed = list(items)
        for last in range(len(mixed) - 1, 0, -1):
            other = self.integer(0, last)
            mixed[last], mixed[other] = mixed[other], mixed[last]
        return mixed


_GROUPS = {
    "b": "KR",  # basic
    "d": "DE",  # acidic
    "h": "LLLVVIIFFAAMCG",  # hydrophobic
    "p": "STNQG",  # polar
    "s": "SSSTTTAPNG",  # what plastid transit peptides are rich in
    "a": "LAISVQFN",  # between the arginines of a mitochondrial presequence
    "i": "IL",
    "x": "AAARRRNNNDDDCQQQEEEEGGGGHHIIIKKKKLLLLMPPPPSSSSTTTVVVVFWY",  # background
}


@dataclass(frozen=True)
class Form:
    """Spelling of a working signal, and the spellings of its decoys."""

    signals: tuple[str, ...]
    decoys: tuple[str, ...]


class Signal(Enum):
    """Every kind of signal, by its form."""

    SIGNAL_PEPTIDE = Form(("Mbbp hhhhhhhhhhh AxA",), ("Mp hhhhh bb hhhhhh AxA", "Mbbp hhhhh AxA hhhhhh"))
    PRESEQUENCE = Form(("ML RaaRaaRaaRaaRaaRaa",), ("ML RaRaaaRaRaaaRaRaaa", "ML RaaaRaRaaaaRaRaaRa"))
    TRANSIT_PEPTIDE = Form(
        ("MA ss FG ss LK ssss VR ss CP",), ("MA ss LK ss FG ssss CP ss VR", "MA ss LK ss FG ssss VR ss CP")
    )
    SIGNAL_ANCHOR = Form(
        ("Mbbbp hhhhhhhhhhhhhhhhhh PpPsPp",),
        ("Mp hhhh bbb hhhhhhhhhhhhhh PpPsPp", "Mbp hhhhhhh bb hhhhhhhhhhh PpPsPp"),
    )
    VACUOLAR_MOTIF = Form(("NPiRLP",), ("RLPiNP", "RLiNPP"))
    HELIX = Form(
        ("bb hhhhhhhhhhhhhhhhhh dd", "bb hhhhhhhhhhhhhhhhhhhh dd"),
        ("hhhhhhhh bbdd hhhhhhhhhh", "hhhhhhhhhh bbdd hhhhhhhhhh"),
    )
    NUCLEAR = Form(
        ("PKKKRKV", "KRPxxxxxxxxxxKKKRK"),
        ("PKKxKRxKxV", "PKxKKxRKxV", "KRPxxKKxxxKRxxxxxK", "KRxxxxPxxKKxxxRKxxK"),
    )
    RETENTION_TAIL = Form(("KDEL", "HDEL"), ("DLEK", "LEDK", "EKLD", "DELH", "LDHE", "ELHD"))
    PEROXISOMAL_TAIL = Form(("KPSKL", "KPAKL"), ("LKSPK", "KLSKP", "SLKPK", "LKAPK", "KLAKP", "ALKPK"))


@dataclass(frozen=True)
class Piece:
    """A stretch of residues that works as a signal, or only looks like one."""

    residues: str
    is_signal: bool = False


def background(length: int, draws: Draws) -> str:
    """Draw residues that mean nothing, about as frequent as in nature."""
    return _spell("x" * length, draws)


def signal(kind: Signal, draws: Draws) -> Piece:
    """Draw a working signal of this kind."""
    return Piece(_spell(draws.pick(kind.value.signals), draws), is_signal=True)


def decoy(kind: Signal, draws: Draws) -> Piece:
    """Draw something with the residues of such a signal, in an order that does not work."""
    return Piece(_spell(draws.pick(kind.value.decoys), draws))


def _spell(skeleton: str, draws: Draws) -> str:
    letters = skeleton.replace(" ", "")
    return "".join(draws.pick(_GROUPS[letter]) if letter in _GROUPS else letter for letter in letters)
