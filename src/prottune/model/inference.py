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
from prottune.model.calibration import NOBODY, energy
from prottune.model.classifier import LocationModel, split_logits
from prottune.model.description import ModelDescription
from prottune.model.folder import load_model
from prottune.model.packed import PackedBatch, row_step_for
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
    """Validation answers of at least this probability were right often enough: in 9 of 10 proteins, unless
    training was told otherwise."""
    unlike_training: bool
    """The model recognises less of this protein than of 99 % of the validation proteins."""
    unlikeness: float
    """How little the model recognises of it: its energy, the higher the less."""
    truncated: bool
    """Only part of the protein was read, by the model's cut policy."""
    num_residues: int
    """Residues of the whole protein."""
    membrane: float | None = None
    """Probability that the protein is bound to a membrane; None from a model that was not trained for it."""


class Predictor:
    """Answers for proteins with one model; the same protein gets the same answer alone or among others."""

    def __init__(self, model: LocationModel, description: ModelDescription) -> None:
        """Take a model that is ready to answer; `load` makes one from a folder."""
        self.description = description
        self.labels: tuple[str, ...] = description.labels
        self._model = model.eval()
        weights = next(model.parameters())
        self._device = weights.device
        self._row_step = row_step_for(weights.device, weights.dtype, answering=True)

    @classmethod
    def load(cls, folder: Path, precision: str = "auto") -> Predictor:
        """Load a finished model folder onto the GPU if there is one, else the CPU.

        `precision`: auto (bf16 where the hardware has it), bf16 or fp32.

        Raises: ArtifactError if the folder is damaged or of another format.
        """
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return cls(*load_model(folder, choose_precision(precision, device), device))

    @property
    def model(self) -> LocationModel:
        """The model behind the answers, for those who look inside it."""
        model: LocationModel = self._model
        return model

    @property
    def device_type(self) -> str:
        """Where the model computes: cpu or cuda."""
        return str(self._device.type)

    @property
    def is_fp32(self) -> bool:
        """Whether the weights have 32 bits, as explanations need them."""
        return bool(next(self._model.parameters()).dtype == torch.float32)

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
        logits_NO = np.empty((len(read), self._model.num_outputs), np.float32)
        for members in _batches([len(sequence) for sequence in read], TOKENS_PER_BATCH[self._device.type]):
            logits_NO[members] = self._logits([read[member] for member in members])
        logits_NC, membrane_N = split_logits(torch.from_numpy(logits_NO), len(self.labels))
        probabilities_NC = logits_NC.softmax(dim=1).numpy()
        energy_N = energy(logits_NC).tolist()
        bound_N = [None] * len(read) if membrane_N is None else membrane_N.sigmoid().tolist()
        return [
            self._prediction(
                probabilities_NC[index], energy_N[index], bound_N[index], len(whole), len(read[index])
            )
            for index, whole in enumerate(cleaned)
        ]

    @torch.inference_mode()
    def _logits(self, sequences: Sequence[str]) -> npt.NDArray[np.float32]:
        flat, offsets = encode(sequences)
        batch = PackedBatch.from_ids(np.split(flat, offsets[1:-1]), self._row_step)
        logits_BO: Tensor = self._model(batch.to(self._device))
        logits: npt.NDArray[np.float32] = logits_BO.cpu().numpy()
        return logits

    def _prediction(
        self,
        probabilities_C: npt.NDArray[np.float32],
        energy: float,
        membrane: float | None,
        num_residues: int,
        num_read: int,
    ) -> Prediction:
        best = int(probabilities_C.argmax())
        probability = float(probabilities_C[best])
        threshold = self.description.confident_above
        return Prediction(
            probabilities=probabilities_C,
            location=self.labels[best],
            probability=probability,
            confident=threshold < NOBODY and probability >= threshold,
            unlike_training=energy > self.description.energy_below,
            unlikeness=energy,
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
