"""Does a model see what is like nothing that it learned from? Proteins among shuffled and random sequences.

Shapes: K sequences, real and strange ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from prottune.alphabet import STANDARD_RESIDUES
from prottune.evaluation.membrane import area_under_curve

SEED = 43
NUM_ASKED = 500
"""Proteins that strangers are made from: the standard error of an area under the curve is 0.02 then."""


class Likened(Protocol):
    """What a model says about how like a protein is to those it learned from; None if it does not tell."""

    @property
    def unlikeness(self) -> float | None: ...
    @property
    def unlike_training(self) -> bool | None: ...


class Model(Protocol):
    """Any model that says so."""

    def predict(self, sequences: Sequence[str], /) -> Sequence[Likened]: ...


def score_unlike_training(model: Model, sequences: Sequence[str], seed: int = SEED) -> dict[str, Any] | None:
    """Say how well a model tells strangers from proteins; None if it says nothing of likeness.

    The proteins should be none that it was trained on: those look more familiar than others ever will. Of
    `NUM_ASKED` of them, drawn by `seed`, two strangers each are made: the same residues in another order, and
    as many residues drawn alike from the 20. `auroc` is the chance that a stranger looks more unlike training
    than a protein does, `share_flagged` how many get `unlike_training`.
    """
    generator = np.random.default_rng(seed)
    drawn = generator.permutation(len(sequences))[:NUM_ASKED]
    asked = [sequences[number] for number in sorted(drawn)]
    real = model.predict(asked)
    if not real or any(answer.unlikeness is None for answer in real):
        return None
    answers = {name: model.predict(made) for name, made in strangers(asked, generator).items()}
    everyone = [answer.unlikeness for said in (real, *answers.values()) for answer in said]
    num_not_finite = int((~np.isfinite(np.array(everyone, np.float64))).sum())
    if num_not_finite:
        return {"num_proteins": len(asked), "num_not_finite": num_not_finite}
    return {"num_proteins": len(asked), "share_flagged": _share_flagged(real)} | {
        name: {"auroc": _auroc(real, said), "share_flagged": _share_flagged(said)}
        for name, said in answers.items()
    }


def strangers(sequences: Sequence[str], generator: np.random.Generator) -> Mapping[str, list[str]]:
    """Sequences that no cell makes, as long as the given ones: shuffled, and of random residues."""
    residues = list(STANDARD_RESIDUES)
    return {
        "shuffled": ["".join(generator.permutation(list(sequence))) for sequence in sequences],
        "random": ["".join(generator.choice(residues, len(sequence))) for sequence in sequences],
    }


def _share_flagged(answers: Sequence[Likened]) -> float:
    return float(np.mean([bool(answer.unlike_training) for answer in answers]))


def _auroc(real: Sequence[Likened], strange: Sequence[Likened]) -> float:
    """The chance that a stranger is less like training than a protein is; a tie is half of it."""
    is_strange_K = np.repeat([0, 1], [len(real), len(strange)])
    place_K = np.unique([answer.unlikeness for answer in (*real, *strange)], return_inverse=True)[1]
    return float(area_under_curve(is_strange_K[None], place_K[None])[0])
