"""From logits to honest probabilities: temperature, and the thresholds for `confident` and `unlike_training`.

All is fitted on validation proteins and written into the model. Shapes: N proteins, C locations, K proteins
whose membrane flag is known.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

MIN_TEMPERATURE, MAX_TEMPERATURE = 0.05, 20.0
MIN_ANSWERS = 20
"""A threshold that fewer validation answers pass says nothing about their accuracy."""
LIKE_SHARE = 0.99
"""Share of the validation proteins that count as like training: one alarm in a hundred proteins is false."""
NOBODY = 1.0
"""The confidence threshold of a model that never is right often enough: no answer passes it."""


def fit_temperature(logits_NC: Tensor, labels_N: Tensor) -> float:
    """Find the number T for which the probabilities of logits / T fit the labels best.

    The loss (negative log likelihood) has one minimum in T, which is searched by golden sections.

    Source: Guo et al. 2017, "On calibration of modern neural networks", section 4.2.
    """
    logits_NC, labels_N = logits_NC.double(), labels_N.long()

    def loss(log_temperature: float) -> float:
        return functional.cross_entropy(logits_NC / math.exp(log_temperature), labels_N).item()

    best = _minimum(loss, math.log(MIN_TEMPERATURE), math.log(MAX_TEMPERATURE))
    return math.exp(best) if loss(best) < loss(0.0) else 1.0


def fit_membrane_temperature(logits_N: Tensor, flags_N: Tensor) -> float:
    """The same for a yes or no: `flags_N` is 1, 0 or, where nobody knows, NaN; 1 if nobody knows any."""
    known_N = flags_N.isfinite()
    if not known_N.any():
        return 1.0
    logits_K = logits_N[known_N]
    return fit_temperature(torch.stack([torch.zeros_like(logits_K), logits_K], dim=1), flags_N[known_N])


def calibrated_loss(logits_NC: Tensor, labels_N: Tensor) -> float:
    """The loss that is left once overconfidence is taken out by temperature.

    Temperatures below 1 do not count: where all answers are right, the loss would be 0, sure or not.
    """
    temperature = max(1.0, fit_temperature(logits_NC, labels_N))
    return functional.cross_entropy(logits_NC.double() / temperature, labels_N.long()).item()


def _minimum(function, low: float, high: float, num_steps: int = 60) -> float:  # type: ignore[no-untyped-def]
    """Where a function with a single minimum has it, by golden-section search."""
    ratio = (math.sqrt(5) - 1) / 2
    left, right = high - ratio * (high - low), low + ratio * (high - low)
    at_left, at_right = function(left), function(right)
    for _ in range(num_steps):
        if at_left < at_right:
            high, right, at_right = right, left, at_left
            left = high - ratio * (high - low)
            at_left = function(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + ratio * (high - low)
            at_right = function(right)
    return (low + high) / 2


def fold_temperature(layer: nn.Linear, temperature: float) -> None:
    """Divide a last layer by its temperature, so that every reader of the model is calibrated."""
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.div_(temperature)


def energy(logits_NC: Tensor) -> Tensor:
    """Score how little a model recognises a protein: low for what it was trained on, high for the foreign.

    Mahalanobis distances of the features were tried beside it on real proteins and told strangers no better
    than a coin does (docs/training.md).

    Source: Liu et al. 2020, "Energy-based out-of-distribution detection", equation 3 (T = 1).
    """
    return -torch.logsumexp(logits_NC, dim=1)


def fit_energy_below(logits_NC: Tensor) -> float:
    """The energy that `LIKE_SHARE` of the validation proteins stay below; the rest is unlike training."""
    return float(energy(logits_NC.double()).quantile(LIKE_SHARE))


def fit_confident_above(logits_NC: Tensor, labels_N: Tensor, min_accuracy: float) -> float:
    """The smallest probability such that, of the validation answers of at least it, this share is right.

    `NOBODY` if there is none, or if it would rest on fewer than `MIN_ANSWERS` answers.
    """
    probability_N, answer_N = logits_NC.double().softmax(dim=1).max(dim=1)
    order_N = probability_N.argsort(descending=True, stable=True)
    is_right_N = (answer_N == labels_N)[order_N].double()
    accuracy_N = is_right_N.cumsum(0) / torch.arange(1, len(order_N) + 1)
    sorted_N = probability_N[order_N]
    for last in range(len(order_N) - 1, MIN_ANSWERS - 2, -1):
        is_whole_tie = last + 1 == len(order_N) or sorted_N[last + 1] < sorted_N[last]
        if is_whole_tie and accuracy_N[last] >= min_accuracy:
            return float(sorted_N[last])
    return NOBODY
