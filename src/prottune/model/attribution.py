"""Which residues speak for an answer: integrated gradients, one score a residue.

Each protein is compared with random ones of its length (expected gradients). Why these, and why centred
logits: docs/decisions/006-explanations.md.

Shapes: S copies of one protein, L tokens of it, R residues of it, D width of a token's vector, C locations.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from captum.attr import LayerIntegratedGradients
from torch import Tensor

from prottune.alphabet import STANDARD_RESIDUES, clean, cut, encode, kept_ends
from prottune.errors import ConfigError
from prottune.model.classifier import LocationModel, split_logits
from prottune.model.inference import Predictor
from prottune.model.packed import PackedBatch

NUM_BASELINES = 4
"""Random proteins that each protein is compared with: with 16 the scores agreed hardly better with what
happens when residues are exchanged."""
_BASELINE_SEED = 43

FIRST_STEPS, MAX_STEPS = 32, 512
"""Points between baselines and protein at which gradients are taken, shared out among the baselines: doubled
until the scores add up."""

MAX_ERROR = 0.02
"""The scores add up when their sum is off by at most this share of the difference of logits, or of 1."""

TOKENS_PER_BATCH = {"cpu": 2048, "cuda": 32_768}
"""Most tokens that go forward and backward at once, by kind of device; a longer protein goes alone."""


@dataclass(frozen=True)
class Attribution:
    """How much each residue speaks for a location; less than 0 speaks against it.

    A score is what the residue adds to the location's centred logit (its logit less the mean over all
    locations, which is also its log probability less their mean), compared with random residues.
    """

    location: str
    """The one that is explained."""
    sequence: str
    """The whole protein as prottune reads it."""
    scores_R: npt.NDArray[np.float64]
    """One a residue of the whole protein; NaN for those that the model did not read, 0 for an X."""
    left_out: tuple[int, int] | None
    """First and last residue, from 1, of those that the cut left out; None if the protein was read whole."""
    difference: float
    """Centred logit of the location for this protein, less its mean over the random proteins."""
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

    Source: Sundararajan et al. 2017, "Axiomatic attribution for deep networks", equation 1; its mean over
        several baselines: Erion et al. 2021, "Improving performance of deep learning models with axiomatic
        attribution priors and expected gradients".
    """
    if location and location not in predictor.labels:
        raise ConfigError(f"location {location!r}: this model knows {', '.join(predictor.labels)}")
    whole = clean(sequence)
    read = cut(whole, predictor.max_residues, predictor.description.cut)
    model = _stock_copy(predictor.model)

    def logits(ids_SL: Tensor) -> Tensor:
        before_each()
        return _centred_logits(model, ids_SL)

    ids_1L, *baselines = (_ids(text, model) for text in (read, *random_baselines(read)))
    with torch.no_grad():
        logits_SC = torch.cat([logits(each_1L) for each_1L in (ids_1L, *baselines)]).double()
    output = predictor.labels.index(location) if location else int(logits_SC[0].argmax())
    difference = float(logits_SC[0, output] - logits_SC[1:, output].mean())
    head, left_out = _cut_range(len(whole), len(read), predictor)
    integral = LayerIntegratedGradients(logits, model.base_model.get_input_embeddings())
    steps = FIRST_STEPS
    while True:
        scores_R = np.insert(_scores(integral, ids_1L, baselines, output, steps), head, left_out)
        found = Attribution(
            predictor.labels[output], whole, scores_R, _ends(head, len(left_out)), difference, steps
        )
        if found.is_complete or 2 * steps > MAX_STEPS:
            return found
        steps *= 2


def random_baselines(sequence: str) -> list[str]:
    """Proteins of the same length that a protein is compared with, always the same ones.

    Residues are drawn alike from the 20. Where nobody knows a protein's residue (X), nobody knows theirs.
    """
    drawn = np.random.default_rng(_BASELINE_SEED).choice(
        list(STANDARD_RESIDUES), (NUM_BASELINES, len(sequence))
    )
    is_unknown_R = np.array(list(sequence)) == "X"
    return ["".join(np.where(is_unknown_R, "X", residues_R)) for residues_R in drawn]


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


def _centred_logits(model: LocationModel, ids_SL: Tensor) -> Tensor:
    """The locations' logits less their mean, [S, C], of proteins of one length.

    There is no padding among them, so no mask decides anything.
    """
    batch = PackedBatch.from_ids(list(ids_SL.cpu().numpy()))
    logits_SC, _ = split_logits(model(batch.to(ids_SL.device)), len(model.labels))
    centred_SC: Tensor = logits_SC - logits_SC.mean(dim=1, keepdim=True)
    return centred_SC


def _scores(
    integral: LayerIntegratedGradients, ids_1L: Tensor, baselines: Sequence[Tensor], output: int, steps: int
) -> npt.NDArray[np.float64]:
    """Integrate the gradients of one logit along the straight lines to the protein, and take their mean."""
    scores_L = np.zeros(ids_1L.shape[1])
    for baseline_1L in baselines:
        parts_1LD: Tensor = integral.attribute(
            ids_1L,
            baselines=baseline_1L,
            target=output,
            n_steps=max(1, steps // len(baselines)),
            internal_batch_size=max(1, TOKENS_PER_BATCH[ids_1L.device.type] // ids_1L.shape[1]),
        )
        scores_L += parts_1LD[0].double().sum(dim=1).cpu().numpy() / len(baselines)
    return scores_L[1:-1]  # [CLS] and [SEP] are the same in all, so their parts are 0


def _cut_range(num_residues: int, num_read: int, predictor: Predictor) -> tuple[int, list[float]]:
    """How many residues were read before the cut, and a NaN for each that was left out."""
    if num_read == num_residues:
        return 0, []
    head, _ = kept_ends(predictor.max_residues, predictor.description.cut)
    return head, [np.nan] * (num_residues - num_read)


def _ends(head: int, num_left_out: int) -> tuple[int, int] | None:
    return (head + 1, head + num_left_out) if num_left_out else None
