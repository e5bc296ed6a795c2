"""What one optimizer step does to the weights: groups of rates, the schedule, and the weight of classes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

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
    """AdamW with two peak rates (encoder, head); biases and layer norms are not decayed."""
    groups: list[dict[str, Any]] = []
    for parameters, peak in (
        (model.encoder_parameters(), config.learning_rate),
        (model.head_parameters(), config.head_learning_rate),
    ):
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        matrices = [parameter for parameter in trained if parameter.ndim > 1]
        vectors = [parameter for parameter in trained if parameter.ndim <= 1]
        for members, decay in ((matrices, config.weight_decay), (vectors, 0.0)):
            groups.append({"params": members, "lr": peak, "peak": peak, "weight_decay": decay})
    return torch.optim.AdamW(groups, fused=True)


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
