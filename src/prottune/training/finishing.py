"""What rank 0 does after the last step: calibrate the best weights and write all that travels with them."""

from __future__ import annotations

import logging
from importlib.metadata import version
from pathlib import Path

import torch

from prottune import __version__
from prottune.alphabet import ALPHABET_SHA256
from prottune.model.calibration import (
    NOBODY,
    fit_confident_above,
    fit_energy_below,
    fit_membrane_temperature,
    fit_temperature,
    fold_temperature,
)
from prottune.model.classifier import LocationModel, split_logits
from prottune.model.description import ModelDescription
from prottune.model.folder import save_model
from prottune.model.golden import write_golden
from prottune.model.inference import Predictor
from prottune.training.adaptation import merge_adapters
from prottune.training.examples import Examples
from prottune.training.job import Job
from prottune.training.seen import write_seen
from prottune.training.snapshots import Best

_log = logging.getLogger(__name__)


def write_model(job: Job, model: LocationModel, best: Best, validation: Examples) -> ModelDescription:
    """Write the model folder's files: calibrated best weights, golden answers, proteins seen."""
    folder = Path(job.model)
    description = _calibrate(job, model, best, validation)
    save_model(model, folder, description)
    write_golden(folder, Predictor(model, description))
    write_seen(Path(job.tokens), job.base.folder, folder)
    return description


def _calibrate(job: Job, model: LocationModel, best: Best, validation: Examples) -> ModelDescription:
    """Put the best weights into the model, fold the temperatures in, and describe the result."""
    labels_N = torch.from_numpy(validation.labels_N)
    logits_NC, membrane_N = split_logits(best.logits_NO, len(job.labels))
    temperature = fit_temperature(logits_NC, labels_N)
    calibrated_NC = logits_NC / temperature
    model.cpu().float().load_state_dict(model.state_dict() | best.weights)
    if job.config.lora_rank:
        merge_adapters(model)
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
        energy_below=fit_energy_below(calibrated_NC),
        versions={
            "prottune": __version__,
            "torch": version("torch"),
            "transformers": version("transformers"),
        },
    )
