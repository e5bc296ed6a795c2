"""A small predictor that does the thing: how much of a sequence are K, L and S decides where it lives.

The share of L says whether it is bound to a membrane, if the predictor tells that.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

LETTERS = {"Nucleus": "K", "Cell.membrane": "L", "Lysosome/Vacuole": "S"}


class Prediction:
    def __init__(self, sequence: str, tells_membrane: bool = False) -> None:
        counts = np.array([sequence.count(letter) + 1 for letter in LETTERS.values()], np.float32)
        self.probabilities = counts / counts.sum()
        best = int(self.probabilities.argmax())
        self.location = tuple(LETTERS)[best]
        self.probability = float(self.probabilities[best])
        self.confident = self.probability >= 0.5
        self.unlike_training = "W" in sequence
        self.truncated = len(sequence) > 50
        self.num_residues = len(sequence)
        self.membrane = sequence.count("L") / len(sequence) if tells_membrane else None


class LettersPredictor:
    """Answers like `prottune.model.inference.Predictor`, and remembers what it was asked, and where."""

    labels = tuple(LETTERS)

    def __init__(self, *, tells_membrane: bool = False) -> None:
        self.tells_membrane = tells_membrane
        self.asked: list[list[str]] = []
        self.threads: set[int] = set()

    def predict(self, sequences: Sequence[str]) -> list[Any]:
        self.asked.append(list(sequences))
        self.threads.add(threading.get_ident())
        return [Prediction(sequence, self.tells_membrane) for sequence in sequences]


def golden_entry(sequence: str, accession: str = "GOLDEN1") -> dict[str, Any]:
    answer = Prediction(sequence)
    return {
        "accession": accession,
        "sequence": sequence,
        "location": answer.location,
        "probabilities": dict(zip(LETTERS, answer.probabilities.tolist(), strict=True)),
    }


class HeldPredictor(LettersPredictor):
    """Answers a batch only when it is let go, so that a test decides what arrives meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self._begun = threading.Semaphore(0)
        self._go = threading.Semaphore(0)

    def predict(self, sequences: Sequence[str]) -> list[Any]:
        answers = super().predict(sequences)
        self._begun.release()
        assert self._go.acquire(timeout=5), "no test let this batch go"
        return answers

    async def begun(self) -> None:
        """Wait until the next batch is in the model."""
        assert await asyncio.to_thread(self._begun.acquire, timeout=5), "the model was not asked"

    def let_go(self, num_batches: int = 1) -> None:
        """Let so many batches be answered, now or when they come."""
        self._go.release(num_batches)
