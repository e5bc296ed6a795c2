"""The page's part about the surest mistakes: by name, and residue by residue."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from prottune.evaluation import mistakes
from prottune.evaluation.findings import Findings
from prottune.evaluation.wording import percent
from prottune.explanation import exactness, strongest_stretch
from prottune.records import Split
from prottune.reports.page import folded, paragraph, table
from prottune.reports.residue_map import residue_map

if TYPE_CHECKING:
    from prottune.model.attribution import Attribution

_COLUMNS = {
    "accession": "protein",
    "location": "true location",
    "predicted": "answered",
    "probability": "probability",
    "num_residues": "residues",
    "relative": "nearest in training",
    "identity": "identity",
}


def mistakes_section(findings: Findings) -> str:
    """The wrong answers of which the model was surest, by name, and which residues misled it in a few."""
    found = findings.metrics[Split.TEST]["mistakes"]
    if not found:
        return paragraph("There is none.")
    rows = [["none" if mistake[key] is None else mistake[key] for key in _COLUMNS] for mistake in found]
    return table(list(_COLUMNS.values()), rows) + _residues(findings)


def _residues(findings: Findings) -> str:
    """Which residues misled the model, folded: a picture each."""
    if not findings.explained:
        return ""
    note = (
        "What misled the model: residues that speak for the wrong answer stand up, those that speak against "
        "it hang down. It says what the model looked at, not what the cell does."
    )
    pictures = (_picture(findings, row, found) for row, found in findings.explained.items())
    return paragraph(note) + "".join(pictures)


def _picture(findings: Findings, row: int, attribution: Attribution | None) -> str:
    protein, answer = findings.exam.scored[row], findings.answers[row]
    if attribution is None:
        return paragraph(
            f"{protein.accession} has {protein.num_residues:,} residues; only proteins of up to "
            f"{mistakes.MAX_EXPLAINED_RESIDUES:,} are shown here. prottune explain shows longer ones."
        )
    scores_R = attribution.as_json()["scores"]
    (first, last), share = strongest_stretch(np.nan_to_num(attribution.scores_R))
    title = f"{protein.accession}: score of each residue for {answer.location}"
    words = (
        f"Residues {first:,} to {last:,} hold {percent(share)} of what speaks for {answer.location}. "
        f"Check: {exactness(attribution)}."
    )
    return folded(
        f"{protein.accession}: {answer.location} ({answer.probability:.3f}), in truth {protein.location}",
        residue_map(attribution.sequence, scores_R, title=title) + paragraph(words),
    )
