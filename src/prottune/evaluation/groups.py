"""Scores of proteins apart: with and without a relative in training, whole and cut, bound and soluble."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from prottune.evaluation.exam import Exam
from prottune.evaluation.metrics import Bools, Floats, Ints, score_groups
from prottune.evaluation.settings import EvaluateConfig
from prottune.records import Membrane

_MEMBRANE_NAMES = {Membrane.BOUND: "bound", Membrane.SOLUBLE: "soluble", Membrane.UNKNOWN: "unknown"}

Groups = Mapping[str, Mapping[str, Bools]]
"""Name of a division -> name of a group -> True where a scored protein belongs to it."""


def divide(exam: Exam, is_near_N: Bools, is_truncated_N: Sequence[bool]) -> Groups:
    """Divide the scored proteins in all ways that are reported beside length and location.

    `is_near_N` is True where a protein has a relative in training, `is_truncated_N` where the candidate read
    a part of it only.
    """
    is_cut_N = np.array(is_truncated_N, dtype=bool)
    flags = [protein.membrane for protein in exam.scored]
    return {
        "by_relatives": {
            "all": np.ones(len(flags), dtype=bool),
            "far": ~is_near_N,
            "near": is_near_N,
        },
        "by_cut": {"whole": ~is_cut_N, "cut": is_cut_N},
        "by_membrane": {
            name: np.array([found is flag for found in flags], dtype=bool)
            for flag, name in _MEMBRANE_NAMES.items()
        },
    }


def score_divisions(
    exam: Exam, rows_N: Ints, probabilities_NC: Floats, groups: Groups, config: EvaluateConfig
) -> dict[str, Any]:
    """Score each group among some of the exam's proteins; `probabilities_NC` has a row for each of them.

    Nothing is said without proteins, or when answers are not finite.
    """
    if not len(rows_N) or not np.isfinite(probabilities_NC).all():
        return {}
    truth_N = exam.labels([exam.scored[row] for row in rows_N])
    return {
        division: score_groups(
            truth_N,
            probabilities_NC,
            {name: inside_N[rows_N] for name, inside_N in members.items()},
            num_bootstraps=config.num_bootstraps,
            seed=config.bootstrap_seed,
        )
        for division, members in groups.items()
    }
