"""What rank 0 does after the last step: calibrate the best weights and write all that travels with them.

Shapes: N proteins of a split, D width of the features.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pyarrow.parquet
import torch
from torch import Tensor

from prottune import __version__
from prottune.alphabet import ALPHABET_SHA256
from prottune.model.calibration import (
    NOBODY,
    fit_confident_above,
    fit_membrane_temperature,
    fit_temperature,
    fold_temperature,
)
from prottune.model.classifier import LocationModel, split_logits
from prottune.model.folder import ModelDescription, save_model
from prottune.model.golden import write_golden
from prottune.model.inference import Predictor
from prottune.model.likeness import MAX_FITTED, Likeness, fit_likeness, fit_unlike_above
from prottune.model.packed import row_step_for
from prottune.training.adaptation import merge_adapters
from prottune.training.batching import Integers, fill_batches
from prottune.training.examples import Examples, seen_proteins
from prottune.training.job import Job
from prottune.training.ranks import Ranks
from prottune.training.snapshots import Best

TRAINING_PROTEINS_FILE = "training_proteins.parquet"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Finish:
    """What rank 0 has when the last step is done."""

    job: Job
    train: Examples
    validation: Examples
    ranks: Ranks
    precision: torch.dtype
    """In which the model computes, as it did in training."""


def write_model(finish: Finish, model: LocationModel, best: Best) -> ModelDescription:
    """Write the model folder's files: calibrated best weights, likeness, golden answers, proteins seen."""
    job = finish.job
    folder = Path(job.model)
    _put_best(job, model, best)
    likeness, unlike_above = _fit_likeness(finish, model)
    description = _calibrate(finish, model.cpu(), best, unlike_above)
    save_model(model, folder, description, likeness)
    write_golden(folder, Predictor(model, description, likeness))
    pyarrow.parquet.write_table(
        seen_proteins(Path(job.tokens)), folder / TRAINING_PROTEINS_FILE, compression="zstd"
    )
    return description


def _put_best(job: Job, model: LocationModel, best: Best) -> None:
    """Give the model the weights of its best epoch, adapters merged."""
    model.cpu().float().load_state_dict(model.state_dict() | best.weights)
    if job.config.lora_rank:
        merge_adapters(model)
    model.eval()


def _fit_likeness(finish: Finish, model: LocationModel) -> tuple[Likeness, float]:
    """Learn where training proteins lie, and how far validation proteins, which it never learned from, do."""
    model.to(finish.ranks.device)
    num_train, seed = len(finish.train), finish.job.config.seed
    drawn = np.sort(np.random.default_rng(seed).permutation(num_train)[:MAX_FITTED])
    features_ND = _features(finish, model, finish.train, drawn)
    likeness = fit_likeness(features_ND, torch.from_numpy(finish.train.labels_N[drawn]))
    validated_ND = _features(finish, model, finish.validation, np.arange(len(finish.validation)))
    return likeness, fit_unlike_above(likeness.distance(validated_ND))


@torch.no_grad()
def _features(finish: Finish, model: LocationModel, examples: Examples, proteins: Integers) -> Tensor:
    """What the last layer reads of some proteins, on the host, [N, D]."""
    config, device = finish.job.config, finish.ranks.device
    features_ND = torch.empty(len(proteins), model.config.hidden_size)
    limit = config.tokens_per_pass or config.tokens_per_batch // finish.ranks.world_size
    num_tokens_N = examples.num_tokens_N[proteins]
    for places in fill_batches(np.argsort(-num_tokens_N, kind="stable"), num_tokens_N, limit):
        batch = examples.batch(proteins[places], row_step_for(device, finish.precision)).to(device)
        half = finish.precision != torch.float32
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=half):
            features_ND[torch.from_numpy(places)] = model.features(batch).cpu()
    return features_ND


def _calibrate(finish: Finish, model: LocationModel, best: Best, unlike_above: float) -> ModelDescription:
    """Fold the temperatures in, find the threshold for `confident`, and describe the result."""
    job, validation = finish.job, finish.validation
    labels_N = torch.from_numpy(validation.labels_N)
    logits_NC, membrane_N = split_logits(best.logits_NO, len(job.labels))
    temperature = fit_temperature(logits_NC, labels_N)
    calibrated_NC = logits_NC / temperature
    fold_temperature(model.classifier, temperature)
    membrane_temperature = None
    if model.membrane is not None and membrane_N is not None:
        membrane_temperature = fit_membrane_temperature(membrane_N, torch.from_numpy(validation.membrane_N))
        fold_temperature(model.membrane, membrane_temperature)
    confident_above = fit_confident_above(calibrated_NC, labels_N, job.config.confident_accuracy)
    if confident_above == NOBODY:
        _log.warning(
            "no answer will be called confident: no probability is enough for %g of the validation answers "
            "to be right (confident_accuracy)",
            job.config.confident_accuracy,
        )
    return ModelDescription(
        label_set=job.label_set,
        labels=job.labels,
        head=job.config.head,
        max_residues=job.max_residues,
        cut=job.cut,
        alphabet_sha256=ALPHABET_SHA256,
        dataset_digest=job.dataset_digest,
        base_model=job.base.facts.name,
        base_digest=job.base.facts.digest,
        base_revision=job.base.facts.revision,
        temperature=temperature,
        membrane_temperature=membrane_temperature,
        confident_above=confident_above,
        unlike_above=unlike_above,
        versions={
            "prottune": __version__,
            "torch": version("torch"),
            "transformers": version("transformers"),
        },
    )
