"""What one optimizer step does to the weights: groups of rates, the schedule, and the weight of classes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from prottune.model.classifier import LocationModel
from prottune.training.batching import Integers
from prottune.training.settings import TrainConfig


def rate_factor(step: int, num_steps: int, warmup_share: float) -> float:
    """Share of the peak rate at a step (from 0): up in a line over the warm-up, then down in a line.

    The first step already learns and so does the last; 0 would be reached one step after it.
    """
    num_warmup = round(warmup_share * num_steps)
    if step < num_warmup:
        return (step + 1) / num_warmup
    return (num_steps - step) / (num_steps - num_warmup)


def make_optimizer(model: LocationModel, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW over what is trained; each group has its peak rate, and only matrices are decayed."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter, peak in _peak_rates(model, config):
        if parameter.requires_grad:
            decay = config.weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((peak, decay), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": members, "lr": peak, "peak": peak, "weight_decay": decay}
            for (peak, decay), members in groups.items()
        ],
        fused=True,
    )


def _peak_rates(model: LocationModel, config: TrainConfig) -> Iterator[tuple[nn.Parameter, float]]:
    """Every parameter and the highest rate that it learns with: the lower its layer, the less.

    Source: Howard & Ruder 2018, "Universal language model fine-tuning for text classification", section 3.2
    (discriminative fine-tuning); as a factor a layer, Clark et al. 2020, "ELECTRA", appendix B.
    """
    layers_above = _layers_above(model) if config.layer_decay < 1 else {}
    for parameter in model.encoder_parameters():
        above = layers_above.get(id(parameter), 0)  # what comes after the last layer learns as it does
        yield parameter, config.learning_rate * config.layer_decay**above
    for parameter in model.head_parameters():
        yield parameter, config.head_learning_rate


def _layers_above(model: LocationModel) -> dict[int, int]:
    """How many layers lie above a parameter's own, by the parameter's id."""
    layers = list(model.layers())
    found = {id(parameter): len(layers) for parameter in model.embeddings().parameters()}
    for above, layer in enumerate(reversed(layers)):
        found |= {id(parameter): above for parameter in layer.parameters()}
    return found


def set_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set every group's rate to a share of its peak."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor


def class_weights(kind: str, labels_N: Integers, num_labels: int) -> Tensor:
    """Weight of each location in the loss: all 1, balanced so that locations count alike, or sqrt.

    Source: balanced is N / (locations present x proteins of the location), as in scikit-learn; sqrt is its
    square root, which helps rare locations at less cost to the common ones.
    """
    if kind == "none":
        return torch.ones(num_labels)
    counts = np.bincount(labels_N, minlength=num_labels)
    present = counts > 0
    weights = np.zeros(num_labels)
    weights[present] = len(labels_N) / (present.sum() * counts[present])
    return torch.tensor(np.sqrt(weights) if kind == "sqrt" else weights, dtype=torch.float32)
