"""Which residues speak for an answer: integrated gradients, one score a residue.

Shapes: S copies of one protein, L tokens of it, R residues of it, D width of a token's vector, O outputs.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from captum.attr import LayerIntegratedGradients
from torch import Tensor

from prottune.alphabet import clean, cut, encode, kept_ends
from prottune.errors import ConfigError
from prottune.model.classifier import LocationModel
from prottune.model.inference import Predictor
from prottune.model.packed import PackedBatch

FIRST_STEPS, MAX_STEPS = 32, 512
"""Points between baseline and protein at which gradients are taken: doubled until the scores add up."""

MAX_ERROR = 0.02
"""The scores add up when their sum is off by at most this share of the difference of logits, or of 1."""

TOKENS_PER_BATCH = {"cpu": 2048, "cuda": 32_768}
"""Most tokens that go forward and backward at once, by kind of device; a longer protein goes alone."""


@dataclass(frozen=True)
class Attribution:
    """How much each residue speaks for a location; less than 0 speaks against it.

    A score is what the residue adds to the location's logit, compared with a protein of the same length in
    which nobody knows any residue (X).
    """

    location: str
    """The one that is explained."""
    sequence: str
    """The whole protein as prottune reads it."""
    scores_R: npt.NDArray[np.float64]
    """One a residue of the whole protein; NaN for those that the model did not read."""
    left_out: tuple[int, int] | None
    """First and last residue, from 1, of those that the cut left out; None if the protein was read whole."""
    difference: float
    """Logit of the location for this protein, less that for the same length of X."""
    steps: int

    @property
    def total(self) -> float:
        """What all residues add together."""
        return float(np.nansum(self.scores_R))

    @property
    def error(self) -> float:
        """How far the scores' sum is from the difference of logits, which it should be."""
        return abs(self.total - self.difference)

    @property
    def is_complete(self) -> bool:
        """Whether the scores add up to the difference of logits; if not, they are rough."""
        return self.error <= MAX_ERROR * max(abs(self.difference), 1.0)

    def as_json(self) -> dict[str, Any]:
        """The same as plain values; null for the score of a residue that the model did not read."""
        return {
            "location": self.location,
            "sequence": self.sequence,
            "scores": [None if np.isnan(score) else float(score) for score in self.scores_R],
            "left_out": None if self.left_out is None else list(self.left_out),
            "difference": self.difference,
            "sum": self.total,
            "error": self.error,
            "complete": self.is_complete,
            "steps": self.steps,
            "max_steps": MAX_STEPS,
        }


def attribute(
    predictor: Predictor,
    sequence: str,
    location: str = "",
    before_each: Callable[[], None] = lambda: None,
) -> Attribution:
    """Say how much each residue of a protein speaks for a location; without a name, for the predicted one.

    Of a protein that the model cuts, the residues that it reads are scored. The model itself is left as it
    is: others may ask it meanwhile. `before_each` is called before each pass through the model; what it
    raises ends the work.

    Raises: DataError for a sequence that is none; ConfigError for a location that the model does not know,
        or a model that was not loaded in fp32.

    Source: Sundararajan et al. 2017, "Axiomatic attribution for deep networks", equation 1; a baseline of
        unknown residues is prottune's choice.
    """
    if location and location not in predictor.labels:
        raise ConfigError(f"location {location!r}: this model knows {', '.join(predictor.labels)}")
    whole = clean(sequence)
    read = cut(whole, predictor.max_residues, predictor.description.cut)
    model = _stock_copy(predictor.model)
    ids_1L, unknown_1L = (_ids(text, model) for text in (read, "X" * len(read)))
    with torch.no_grad():
        logits_2O = _logits(model, torch.cat([ids_1L, unknown_1L])).double()
    output = (
        predictor.labels.index(location) if location else int(logits_2O[0, : len(predictor.labels)].argmax())
    )
    difference = float(logits_2O[0, output] - logits_2O[1, output])
    head, left_out = _cut_range(len(whole), len(read), predictor)

    def logits(ids_SL: Tensor) -> Tensor:
        before_each()
        return _logits(model, ids_SL)

    integral = LayerIntegratedGradients(logits, model.base_model.get_input_embeddings())
    steps = FIRST_STEPS
    while True:
        scores_L = _scores(integral, ids_1L, unknown_1L, output, steps)
        scores_R = np.insert(scores_L, head, left_out)
        found = Attribution(
            predictor.labels[output], whole, scores_R, _ends(head, len(left_out)), difference, steps
        )
        if found.is_complete or 2 * steps > MAX_STEPS:
            return found
        steps *= 2


def _stock_copy(model: LocationModel) -> LocationModel:
    """The same weights behind transformers' own attention, several proteins one under the other.

    Only the modules are copied: the weights stay where they are, and the model keeps its packed attention.

    Raises: ConfigError if the weights are not fp32: sums of small differences mean nothing in 16 bits.
    """
    if (dtype := next(model.parameters()).dtype) != torch.float32:
        raise ConfigError(f"explaining needs a model in fp32, got {dtype}; load it with precision fp32")
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    stock: LocationModel = copy.deepcopy(model, shared).eval()
    if stock.layout.is_packed:
        encoder = stock.base_model
        encoder.set_attn_implementation("sdpa" if encoder._supports_sdpa else "eager")
        stock.layout = replace(stock.layout, is_packed=False)
    return stock


def _ids(sequence: str, model: LocationModel) -> Tensor:
    return torch.from_numpy(encode([sequence])[0].astype(np.int64))[None].to(model.device)


def _logits(model: LocationModel, ids_SL: Tensor) -> Tensor:
    """Logits [S, O] of proteins of one length: no padding among them, so no mask decides anything."""
    batch = PackedBatch.from_ids(list(ids_SL.cpu().numpy()))
    logits_SO: Tensor = model(batch.to(ids_SL.device))
    return logits_SO


def _scores(
    integral: LayerIntegratedGradients, ids_1L: Tensor, unknown_1L: Tensor, output: int, steps: int
) -> npt.NDArray[np.float64]:
    """Integrate the gradients of one logit along the straight line from X to the protein, token by token."""
    parts_1LD: Tensor = integral.attribute(
        ids_1L,
        baselines=unknown_1L,
        target=output,
        n_steps=steps,
        internal_batch_size=max(1, TOKENS_PER_BATCH[ids_1L.device.type] // ids_1L.shape[1]),
    )
    scores_L: npt.NDArray[np.float64] = parts_1LD[0].double().sum(dim=1).cpu().numpy()
    return scores_L[1:-1]  # [CLS] and [SEP] are the same in both, so their parts are 0


def _cut_range(num_residues: int, num_read: int, predictor: Predictor) -> tuple[int, list[float]]:
    """How many residues were read before the cut, and a NaN for each that was left out."""
    if num_read == num_residues:
        return 0, []
    head, _ = kept_ends(predictor.max_residues, predictor.description.cut)
    return head, [np.nan] * (num_residues - num_read)


def _ends(head: int, num_left_out: int) -> tuple[int, int] | None:
    return (head + 1, head + num_left_out) if num_left_out else None
