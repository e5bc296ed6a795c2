"""How well probabilities rank right answers above wrong ones: one curve for all locations together.

Shapes: N proteins, C locations, Q = N * C questions "is this protein there?".
"""

from __future__ import annotations

from typing import Any

import numpy as np

from prottune.evaluation.membrane import area_under_curve
from prottune.evaluation.metrics import Floats, Ints

MAX_POINTS = 200
"""Points kept of a curve: it looks the same with more."""


def micro_average_roc(truth_N: Ints, probabilities_NC: Floats) -> dict[str, Any]:
    """The receiver operating characteristic of each location against the rest, all answers in one curve.

    `area` is that of the whole curve. Thresholds fall from 1 to 0. Nothing is said without proteins, with one
    location, or when answers are not finite.

    Source: Fawcett 2006, An introduction to ROC analysis, algorithm 1 (ties move together).
    """
    num_proteins, num_locations = probabilities_NC.shape
    if not num_proteins or num_locations < 2 or not np.isfinite(probabilities_NC).all():
        return {}
    is_there_Q = (np.arange(num_locations) == truth_N[:, None]).ravel()
    place_Q = np.unique(probabilities_NC, return_inverse=True)[1].reshape(-1)
    order_Q = np.argsort(-probabilities_NC.ravel(), kind="stable")
    falling_Q = probabilities_NC.ravel()[order_Q]
    ends = np.flatnonzero(np.append(falling_Q[1:] < falling_Q[:-1], True))
    ends = ends[np.unique(np.linspace(0, len(ends) - 1, MAX_POINTS).round().astype(np.int64))]
    hits_Q = is_there_Q[order_Q].cumsum()
    true_rate = hits_Q[ends] / num_proteins
    false_rate = (ends + 1 - hits_Q[ends]) / (num_proteins * (num_locations - 1))
    return {
        "area": float(area_under_curve(is_there_Q[None].astype(np.int64), place_Q[None])[0]),
        "false_positive_rate": [0.0, *false_rate.tolist()],
        "true_positive_rate": [0.0, *true_rate.tolist()],
        "threshold": [1.0, *falling_Q[ends].tolist()],
    }
