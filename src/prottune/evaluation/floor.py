"""The floor a model must beat: logistic regression on 701 counts of residues, pairs and ends of a protein."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from prottune.alphabet import STANDARD_RESIDUES
from prottune.artifacts import file_sha256
from prottune.cache import remember
from prottune.errors import DataError

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

# N proteins, R residues of all proteins in one row, C locations, F features
NUM_FEATURES = 701
_WINDOWS = (10, 20, 40, 80)
_LAST_RESIDUES = 6
_NUM_LETTERS = len(STANDARD_RESIDUES)
_OTHER = _NUM_LETTERS
"""Code of X and of the letters that become X: they count in lengths, and in nothing else."""
_CODES = bytes(
    STANDARD_RESIDUES.index(chr(byte)) if chr(byte) in STANDARD_RESIDUES else _OTHER for byte in range(256)
)


def floor_features(sequences: Sequence[str]) -> Floats:
    """Describe each protein by what it is made of, [N, 701].

    In this order: composition (20), dipeptide frequencies (400), natural logarithm of the length (1),
    composition of the first 10, 20, 40, 80 residues, then of the last ones (8 x 20), and one-hot of the
    last 6 residues, the very last one first (6 x 20). Frequencies are shares of all residues (or pairs)
    there are; a protein shorter than a window is its own window.

    Raises: DataError for an empty sequence.
    """
    lengths_N = np.fromiter(map(len, sequences), np.int64, len(sequences))
    if not lengths_N.all():
        raise DataError(f"sequence {int(np.argmin(lengths_N)) + 1} is empty; expected at least one residue")
    codes_R = np.frombuffer("".join(sequences).encode("ascii").translate(_CODES), np.uint8).astype(np.int64)
    owners_R = np.repeat(np.arange(len(sequences)), lengths_N)
    ends_N = np.cumsum(lengths_N)
    from_start_R = np.arange(len(codes_R)) - np.repeat(ends_N - lengths_N, lengths_N)
    from_end_R = np.repeat(lengths_N, lengths_N) - 1 - from_start_R

    blocks = [
        _composition(owners_R, codes_R, lengths_N),
        _dipeptides(owners_R, codes_R, lengths_N),
        np.log(lengths_N)[:, None],
    ]
    for places_R in (from_start_R, from_end_R):
        for window in _WINDOWS:
            inside_R = places_R < window
            sizes_N = np.minimum(lengths_N, window)
            blocks.append(_composition(owners_R[inside_R], codes_R[inside_R], sizes_N))
    for place in range(_LAST_RESIDUES):
        there_R = from_end_R == place
        blocks.append(_composition(owners_R[there_R], codes_R[there_R], np.ones_like(lengths_N)))
    return np.concatenate(blocks, axis=1)


def _composition(owners_R: Integers, codes_R: Integers, sizes_N: Integers) -> Floats:
    """Share of each standard residue among `sizes_N` residues of every protein, [N, 20]."""
    width = _NUM_LETTERS + 1
    counts = np.bincount(owners_R * width + codes_R, minlength=len(sizes_N) * width)
    return counts.reshape(-1, width)[:, :_OTHER] / sizes_N[:, None]


def _dipeptides(owners_R: Integers, codes_R: Integers, lengths_N: Integers) -> Floats:
    """Share of each pair of neighbouring standard residues, [N, 400]; first residue counts twenties."""
    first, second = codes_R[:-1], codes_R[1:]
    counted = (owners_R[:-1] == owners_R[1:]) & (first != _OTHER) & (second != _OTHER)
    num_pairs = _NUM_LETTERS**2
    pairs = owners_R[:-1][counted] * num_pairs + first[counted] * _NUM_LETTERS + second[counted]
    counts = np.bincount(pairs, minlength=len(lengths_N) * num_pairs).reshape(-1, num_pairs)
    return counts / np.maximum(lengths_N - 1, 1)[:, None]


@dataclass(frozen=True)
class Floor:
    """A fitted floor; it knows nothing about the order of residues beyond pairs and ends."""

    num_locations: int
    classifier: Any
    """scikit-learn pipeline whose classes are positions in the label set."""

    def probabilities(self, sequences: Sequence[str]) -> Floats:
        """Probability of each location, [N, C] in label-set order; locations never trained on get 0."""
        answers = np.zeros((len(sequences), self.num_locations))
        if len(sequences):
            answers[:, self.classifier.classes_] = self.classifier.predict_proba(floor_features(sequences))
        return answers


def fit_floor(
    train_sequences: Sequence[str], train_labels: npt.NDArray[np.integer[Any]], num_locations: int
) -> Floor:
    """Fit the floor on training proteins; `train_labels` are positions in the label set. Deterministic.

    Source: the recipe that reaches 0.578 accuracy on DeepLoc 1.0's official test; see docs/results.md.

    Raises: DataError if all training proteins are in one location.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if len(np.unique(train_labels)) < 2:
        raise DataError("all training proteins are in one location; expected at least two to fit the floor")
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=400))
    classifier.fit(floor_features(train_sequences), train_labels)
    return Floor(num_locations, classifier)


def floor_answers(
    train_sequences: Sequence[str],
    train_labels: npt.NDArray[np.integer[Any]],
    asked: Sequence[str],
    num_locations: int,
) -> Floats:
    """Probability of each location that the floor gives proteins, [N, C]; found again in the cache.

    Raises: DataError if all training proteins are in one location.
    """
    decided_by = {
        "train": list(train_sequences),
        "labels": train_labels.tolist(),
        "asked": list(asked),
        "num_locations": num_locations,
        "code": file_sha256(Path(__file__)),
        "versions": [version(name) for name in ("numpy", "scipy", "scikit-learn")],
    }

    def fit() -> pa.Table:
        floor = fit_floor(train_sequences, train_labels, num_locations)
        answers_CN = floor.probabilities(asked).T
        return pa.table({str(number): column for number, column in enumerate(answers_CN)})

    table = remember("floor", decided_by, fit)
    return np.stack([column.to_numpy() for column in table.columns], axis=1)
