"""A tiny made-up token folder: two locations that differ in composition, so that training can learn."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa

from prottune import alphabet
from prottune.artifacts import new_folder
from prottune.records import TOKENS_SCHEMA, sequence_digest, write_tokens

LABELS = ("Nucleus", "Cytoplasm", "Peroxisome")
LETTERS = ("KRPSGD", "LAVIFE")
SPLITS = ("train",) * 6 + ("validation", "validation", "gate", "test")


def make_tokens(
    folder: Path,
    num_proteins: int = 60,
    splits: tuple[str, ...] = SPLITS,
    membrane: str = "U",
    **facts: object,
) -> Path:
    """Write a token folder of proteins of 5 to 60 residues, which get the letters of `membrane` in turn.

    `facts` replace those of the manifest.
    """
    random = np.random.default_rng(7)
    labels = [number % 2 for number in range(num_proteins)]
    sequences = ["".join(random.choice(list(LETTERS[label]), random.integers(5, 61))) for label in labels]
    flat, offsets = alphabet.encode(sequences)
    table = pa.table(
        {
            "accession": [f"P{number:05d}" for number in range(num_proteins)],
            "ids": [flat[start:end] for start, end in pairwise(offsets)],
            "label": labels,
            "membrane": [membrane[number % len(membrane)] for number in range(num_proteins)],
            "split": [splits[number % len(splits)] for number in range(num_proteins)],
            "num_residues": [len(sequence) for sequence in sequences],
            "truncated": [False] * num_proteins,
            "sequence_sha256": [sequence_digest(sequence) for sequence in sequences],
        },
        schema=TOKENS_SCHEMA,
    )
    with new_folder(folder, "tokenize", None, {"records": "digest-of-the-records"}) as draft:
        draft.facts.update(
            {
                "label_set": "custom",
                "labels": list(LABELS),
                "max_residues": 0,
                "cut": "head_tail",
                "alphabet_sha256": alphabet.ALPHABET_SHA256,
            }
            | facts
        )
        write_tokens(table, draft.path)
    return folder
