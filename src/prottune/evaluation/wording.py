"""Names, shares and intervals as the evaluation page and its summary write them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

FLOOR = "floor"
FIGURES = {
    "accuracy": "accuracy",
    "macro_f1": "macro F1",
    "mcc": "MCC",
    "top2_accuracy": "true location among the first two",
    "ece": "calibration error",
}
"""Name in metrics.json -> words."""

COLUMNS = ("", "model", "95 % interval", FLOOR, "95 % interval")
"""Headings of what `compared` makes."""


def compared(
    model: Mapping[str, Any], floor: Mapping[str, Any], names: Mapping[str, str] = FIGURES
) -> list[list[object]]:
    """One row a figure: its words, then figure and interval of the model and of the floor."""
    return [
        [words, model.get(key), interval_of(model, key), floor.get(key), interval_of(floor, key)]
        for key, words in names.items()
    ]


def percent(share: float) -> str:
    """Write a share as a percentage that no line break tears apart."""
    return f"{100 * share:.1f}\u00a0%"


def interval_of(scores: Mapping[str, Any], key: str) -> str:
    """The 95 % interval of a figure; empty where it has none."""
    found = scores.get("intervals", {}).get(key)
    return low_to_high(found) if found else ""


def low_to_high(interval: Sequence[float]) -> str:
    """Write an interval of shares."""
    low, high = interval
    return f"{low:.3f}\u00a0to\u00a0{high:.3f}"
