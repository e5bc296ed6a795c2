"""A model folder that answers: sequences as people write them -> calibrated probabilities, in their order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from prottune.alphabet import NUM_SPECIAL_TOKENS, clean, cut, encode
from prottune.errors import DataError
from prottune.model.calibration import NOBODY
from prottune.model.classifier import LocationModel, split_logits
from prottune.model.folder import ModelDescription, load_model
from prottune.model.likeness import Likeness, read_likeness
from prottune.model.packed import PackedBatch
from prottune.model.precision import choose_precision

TOKENS_PER_BATCH = {"cpu": 8192, "cuda": 65536}
"""Most tokens that are computed at once, by kind of device; a longer protein forms its own batch."""


@dataclass(frozen=True)
class Prediction:
    """One answer."""

    probabilities: npt.NDArray[np.float32]
    """One a location, in the order of the labels; they sum to 1."""
    location: str
    """The most probable one."""
    probability: float
    confident: bool
    """Validation answers of at least this probability were right often enough (9 of 10, unless training was
    told otherwise)."""
    unlike_training: bool | None
    """The protein is less like the training proteins than 99 % of the validation proteins are; None from a
    model that does not tell."""
    unlikeness: float | None
    """Its distance from the training proteins, theirs being about 1; None from a model that does not tell."""
    truncated: bool
    """Only part of the protein was read, by the model's cut policy."""
    num_residues: int
    """Residues of the whole protein."""
    membrane: float | None = None
    """Probability that the protein is bound to a membrane; None from a model that was not trained for it."""


class Predictor:
    """Answers for proteins with one model; the same protein gets the same answer alone or among others."""

    def __init__(
        self, model: LocationModel, description: ModelDescription, likeness: Likeness | None = None
    ) -> None:
        """Take a model that is ready to answer; `load` makes one from a folder."""
        self.description = description
        self.labels: tuple[str, ...] = description.labels
        self._model = model.eval()
        self._device = next(model.parameters()).device
        self._likeness = likeness.to(self._device) if likeness else None

    @classmethod
    def load(cls, folder: Path, precision: str = "auto") -> Predictor:
        """Load a finished model folder onto the GPU if there is one, else the CPU.

        `precision`: auto (bf16 where the hardware has it), bf16 or fp32.

        Raises: ArtifactError if the folder is damaged or of another format.
        """
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        model, description = load_model(folder, choose_precision(precision, device), device)
        return cls(model, description, read_likeness(folder))

    @property
    def tells_membrane(self) -> bool:
        """Whether answers also say if the protein is bound to a membrane."""
        return self.description.membrane

    @property
    def max_residues(self) -> int:
        """Longer proteins are cut to this many residues, and the answer says so."""
        positions: int = self._model.max_residues
        return min(self.description.max_residues or positions, positions)

    def predict(self, sequences: Sequence[str]) -> list[Prediction]:
        """Answer for each sequence, in the order given; spaces, line breaks and lower case do not matter.

        Raises: DataError if a sequence is empty or has a character that is no residue, naming which.
        """
        cleaned = [_clean(sequence, number) for number, sequence in enumerate(sequences, start=1)]
        read = [cut(sequence, self.max_residues, self.description.cut) for sequence in cleaned]
        logits_NO = torch.empty(len(read), self._model.num_outputs)
        distance_N = torch.empty(len(read))
        for members in _batches([len(sequence) for sequence in read], TOKENS_PER_BATCH[self._device.type]):
            logits_NO[members], distance_N[members] = self._read([read[member] for member in members])
        logits_NC, membrane_N = split_logits(logits_NO, len(self.labels))
        probabilities_NC = logits_NC.softmax(dim=1).numpy()
        nothing: list[float | None] = [None] * len(read)
        unlikeness_N = nothing if self._likeness is None else distance_N.tolist()
        bound_N = nothing if membrane_N is None else membrane_N.sigmoid().tolist()
        return [
            self._prediction(
                probabilities_NC[index], unlikeness_N[index], bound_N[index], len(whole), len(read[index])
            )
            for index, whole in enumerate(cleaned)
        ]

    @torch.inference_mode()
    def _read(self, sequences: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Logits [B, O] of some proteins, and how far they lie from training's, [B]; NaN if unknown."""
        flat, offsets = encode(sequences)
        batch = PackedBatch.from_ids(np.split(flat, offsets[1:-1]))
        features_BD = self._model.features(batch.to(self._device))
        if self._likeness is None:
            distance_B = torch.full((len(sequences),), torch.nan)
        else:
            distance_B = self._likeness.distance(features_BD).cpu()
        return self._model.logits(features_BD).cpu(), distance_B

    def _prediction(
        self,
        probabilities_C: npt.NDArray[np.float32],
        unlikeness: float | None,
        membrane: float | None,
        num_residues: int,
        num_read: int,
    ) -> Prediction:
        best = int(probabilities_C.argmax())
        probability = float(probabilities_C[best])
        threshold, limit = self.description.confident_above, self.description.unlike_above
        return Prediction(
            probabilities=probabilities_C,
            location=self.labels[best],
            probability=probability,
            confident=threshold < NOBODY and probability >= threshold,
            unlike_training=None if unlikeness is None or limit is None else unlikeness > limit,
            unlikeness=unlikeness,
            truncated=num_read < num_residues,
            num_residues=num_residues,
            membrane=membrane,
        )


def _clean(sequence: str, number: int) -> str:
    try:
        return clean(sequence)
    except DataError as error:
        raise DataError(f"sequence {number}: {error}") from None


def _batches(num_residues: Sequence[int], tokens_per_batch: int) -> Iterator[list[int]]:
    """Group proteins of similar length; longest first, so that a lack of memory shows at once."""
    batch: list[int] = []
    num_tokens = 0
    for index in sorted(range(len(num_residues)), key=lambda index: -num_residues[index]):
        tokens = num_residues[index] + NUM_SPECIAL_TOKENS
        if batch and num_tokens + tokens > tokens_per_batch:
            yield batch
            batch, num_tokens = [], 0
        batch.append(index)
        num_tokens += tokens
    if batch:
        yield batch
