"""What a model's probabilities are worth: before and after calibration, and when only the surest are given.

Shapes: N proteins, C locations. `truth_N` holds positions in the label set.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from prottune.evaluation.metrics import Floats, Ints, calibration_error, reliability

Bools = npt.NDArray[np.bool_]

_NUM_POINTS = 50
"""Points of a rejection curve: one each 2 % of the proteins."""


def judge_probabilities(
    truth_N: Ints, probabilities_NC: Floats, is_confident_N: Bools, temperature: float
) -> dict[str, Any]:
    """Say how far a model's probabilities can be trusted, in plain numbers; what is undefined is left out.

    `temperature` is the one that training folded into the model (`prottune.json`). Nothing is said without
    proteins, or when answers are not finite.
    """
    if not len(truth_N) or not np.isfinite(probabilities_NC).all():
        return {}
    is_correct_N = probabilities_NC.argmax(axis=1) == truth_N
    return {
        "calibration": calibration(truth_N, probabilities_NC, temperature),
        "rejection": rejection_curve(probabilities_NC.max(axis=1), is_correct_N),
        "confident": confident_answers(is_confident_N, is_correct_N),
    }


def calibration(truth_N: Ints, probabilities_NC: Floats, temperature: float) -> dict[str, Any]:
    """Compare confidence with accuracy as the network had them (`before`) and as it answers (`after`)."""
    return {
        "temperature": temperature,
        "before": _confidence_and_accuracy(truth_N, undo_temperature(probabilities_NC, temperature)),
        "after": _confidence_and_accuracy(truth_N, probabilities_NC),
    }


def undo_temperature(probabilities_NC: Floats, temperature: float) -> Floats:
    """The probabilities of a model whose last layer was not divided by its temperature, [N, C].

    Logits times T: each probability to the power of T, then shared out anew.

    Source: Guo et al. 2017, On Calibration of Modern Neural Networks, equation 9, solved for T = 1.
    """
    powers_NC = (probabilities_NC / probabilities_NC.max(axis=1, keepdims=True)) ** temperature
    shares_NC: Floats = powers_NC / powers_NC.sum(axis=1, keepdims=True)
    return shares_NC


def _confidence_and_accuracy(truth_N: Ints, probabilities_NC: Floats) -> dict[str, Any]:
    confidence_N, is_correct_N = probabilities_NC.max(axis=1), probabilities_NC.argmax(axis=1) == truth_N
    return {
        "ece": calibration_error(confidence_N, is_correct_N),
        "reliability": reliability(confidence_N, is_correct_N),
    }


def rejection_curve(probability_N: Floats, is_correct_N: Bools) -> list[dict[str, float | int]]:
    """Accuracy when only the surest answers are given, from the first few to all.

    A point tells how many are given, their share, how many of them are right, and the least probability
    among them. Answers of one probability are given together or not at all.

    Source: Geifman and El-Yaniv 2017, Selective Classification for Deep Neural Networks, section 2 (there as
    risk, which is 1 - accuracy, and coverage).
    """
    order_N = np.argsort(-probability_N, kind="stable")
    sorted_N = probability_N[order_N]
    num_correct_N = is_correct_N[order_N].cumsum()
    given_E = np.flatnonzero(np.append(sorted_N[1:] < sorted_N[:-1], True)) + 1  # E ends of ties
    wanted_P = np.ceil(np.arange(1, _NUM_POINTS + 1) * len(order_N) / _NUM_POINTS)
    points = np.unique(given_E[np.searchsorted(given_E, wanted_P)])
    return [
        {
            "num_proteins": int(given),
            "share": float(given / len(order_N)),
            "accuracy": float(num_correct_N[given - 1] / given),
            "probability": float(sorted_N[given - 1]),
        }
        for given in points
    ]


def confident_answers(is_confident_N: Bools, is_correct_N: Bools) -> dict[str, float | int]:
    """How many answers the model calls confident, and the accuracy of these and of the others."""
    scores: dict[str, float | int] = {
        "num_proteins": int(is_confident_N.sum()),
        "share": float(is_confident_N.mean()),
    }
    for name, chosen_N in (("accuracy", is_confident_N), ("accuracy_of_others", ~is_confident_N)):
        if chosen_N.any():
            scores[name] = float(is_correct_N[chosen_N].mean())
    return scores
