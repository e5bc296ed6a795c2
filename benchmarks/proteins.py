"""The proteins that benchmarks read: real ones from a FASTA file, or random ones of DeepLoc's lengths."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.rows import Options
from prottune.alphabet import STANDARD_RESIDUES, clean
from prottune.artifacts import new_folder
from prottune.fasta import read_fasta
from prottune.records import DEEPLOC10, Membrane, Protein, Split, write_proteins
from prottune.tokenization import TokenizeConfig, tokenize

NUM_PROTEINS = 13_704
"""Proteins of DeepLoc 1.0 that the figures of the goals were worked out for."""
_LINE = 60


def sequences(options: Options) -> list[str]:
    """Clean sequences: those of the source that was named, else random ones."""
    return read_sequences(options.source) if options.source else deeploc_like_sequences()


def deeploc_like_sequences(num_proteins: int = NUM_PROTEINS) -> list[str]:
    """Random proteins with DeepLoc's lengths: log-normal, median 400, from 40 to 13,100 residues."""
    generator = np.random.default_rng(43)
    lengths = np.clip(generator.lognormal(5.993, 0.762, num_proteins), 40, 13_100).astype(int)
    letters = generator.choice(np.frombuffer(STANDARD_RESIDUES.encode(), np.uint8), lengths.sum())
    return [piece.tobytes().decode() for piece in np.split(letters, np.cumsum(lengths)[:-1])]


def read_sequences(source: Path) -> list[str]:
    with source.open("rb") as stream:
        return [clean(record.sequence) for record in read_fasta(stream, source.name)]


def sampled(sequences: Sequence[str], num_proteins: int, turn: int = 0) -> list[str]:
    """A sample with the lengths of all: every n-th by length, others in each turn, in random order."""
    by_length = sorted(sequences, key=len)
    step = len(by_length) / num_proteins
    shift = (0.5 + turn * 0.3819660112501051) % 1  # the golden section: turns never fall together
    chosen = [by_length[int((number + shift) * step)] for number in range(num_proteins)]
    return [chosen[index] for index in np.random.default_rng((43, turn + 1)).permutation(num_proteins)]


def label_of(number: int) -> int:
    """A made-up location for the n-th protein; which one does not matter to speed."""
    return number % len(DEEPLOC10)


def labels(sequences: Sequence[str]) -> list[int]:
    """A made-up location for each of these proteins."""
    return [label_of(number) for number in range(len(sequences))]


def write_fasta(sequences: Sequence[str], path: Path) -> None:
    """Write proteins as DeepLoc does: location, membrane flag and split in the header, 60 letters a line."""
    membranes, words = "MSU", (" test", "", "", "")
    with path.open("w", encoding="ascii") as stream:
        for number, sequence in enumerate(sequences):
            location = DEEPLOC10.locations[label_of(number)]
            stream.write(f">P{number:06d} {location}-{membranes[number % 3]}{words[number % 4]}\n")
            stream.writelines(
                f"{sequence[start : start + _LINE]}\n" for start in range(0, len(sequence), _LINE)
            )


def write_tokens(
    folder: Path, train: Sequence[str], validation: Sequence[str], max_residues: int = 0
) -> Path:
    """A finished token folder with these proteins, the head of each longer one kept; returns the folder."""
    proteins = [
        Protein(
            f"P{number:06d}", sequence, DEEPLOC10.locations[label_of(number)], Membrane.UNKNOWN, split, "C"
        )
        for split, members in ((Split.TRAIN, train), (Split.VALIDATION, validation))
        for number, sequence in enumerate(members)
    ]
    records, tokens = folder / "records", folder / "tokens"
    with new_folder(records, "ingest", None) as draft:
        draft.facts |= {"label_set": DEEPLOC10.name, "labels": list(DEEPLOC10.locations)}
        write_proteins(proteins, draft.path)
    tokenize(records, tokens, TokenizeConfig(max_residues=max_residues, cut="head"))
    return tokens
