"""The wrong answers of which the model was surest, and which residues misled it in the first few of them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from prottune.evaluation.exam import Answer, Exam
from prottune.records import Split

if TYPE_CHECKING:
    from prottune.model.attribution import Attribution

_log = logging.getLogger(__name__)

MAX_EXPLAINED_RESIDUES = 1000
"""Longer proteins are not explained here: the time grows with the square of the length."""

Attribute = Callable[[str, str], "Attribution"]
"""A sequence and a location -> how much each residue speaks for that location."""
AttributorLoader = Callable[[Path], Attribute]
Explained = Mapping[int, "Attribution | None"]
"""Row of a wrongly placed protein in `exam.scored` -> its residues' scores for the wrong answer; None for one
that is too long."""


def load_attributor(folder: Path) -> Attribute:
    """Open a model folder in fp32, which explanations need."""
    from prottune.model.attribution import attribute
    from prottune.model.inference import Predictor

    return partial(attribute, Predictor.load(folder, "fp32"))


def surest_mistakes(exam: Exam, answers: Sequence[Answer], split: Split) -> list[int]:
    """Where the wrongly placed proteins of a split stand among the scored ones, the surest answer first."""
    rows = [int(row) for row in exam.rows(split) if answers[row].location != exam.scored[row].location]
    return sorted(rows, key=lambda row: (-answers[row].probability, exam.scored[row].accession))


def explain_mistakes(
    exam: Exam, answers: Sequence[Answer], num_wanted: int, load: Callable[[], Attribute]
) -> Explained:
    """Score the residues for the wrong answer in the surest mistakes on the official test.

    The model is loaded only if there is a protein to explain.
    """
    rows = surest_mistakes(exam, answers, Split.TEST)[:num_wanted]
    is_short = {row: exam.scored[row].num_residues <= MAX_EXPLAINED_RESIDUES for row in rows}
    if not any(is_short.values()):
        return dict.fromkeys(rows)
    attribute = load()
    explained = {
        row: attribute(exam.scored[row].sequence, answers[row].location) if is_short[row] else None
        for row in rows
    }
    _log.info("scored the residues of %s of the surest mistakes", sum(is_short.values()))
    return explained
