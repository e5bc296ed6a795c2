"""A predictor that does the thing in no time; as a program, it labels a file and says each window it answers.

python tests/prediction/counting_letters.py SOURCE OUTPUT WINDOW
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from prottune.prediction.settings import PredictConfig
from prottune.prediction.stage import predict_with

LABELS = ("Nucleus", "Cell.membrane", "Lysosome/Vacuole")


class Answer:
    def __init__(self, sequence: str) -> None:
        counts = np.array([sequence.count(letter) + 1 for letter in "KLS"], np.float32)
        self.probabilities = counts / counts.sum()
        self.location = LABELS[int(self.probabilities.argmax())]
        self.probability = float(self.probabilities.max())
        self.confident = self.probability > 0.7
        self.unlike_training = "W" in sequence
        self.truncated = len(sequence) > 100
        self.num_residues = len(sequence)
        self.membrane: float | None = None


class LettersPredictor:
    """How much of a sequence are K, L and S decides where it lives; counts what it is asked at once."""

    labels = LABELS
    is_fp32 = True

    def __init__(self) -> None:
        self.windows: list[int] = []

    def predict(self, sequences: Sequence[str]) -> list[Answer]:
        self.windows.append(len(sequences))
        return [Answer(sequence) for sequence in sequences]


class Telling(LettersPredictor):
    """Says when it is asked, for who waits to kill it."""

    def predict(self, sequences: Sequence[str]) -> list[Answer]:
        print(len(self.windows), flush=True)
        return super().predict(sequences)


if __name__ == "__main__":
    program: Any = Telling()
    predict_with(
        program, sys.argv[1], Path(sys.argv[2]), PredictConfig(window=int(sys.argv[3])), digest="letters"
    )
