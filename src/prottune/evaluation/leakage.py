"""Whether a model was trained on the very proteins it is scored on."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet

from prottune.errors import ArtifactError, DataError
from prottune.evaluation.exam import Exam
from prottune.evaluation.metrics import Bools, Ints
from prottune.records import (
    TRAINING_PROTEINS_FILE,
    TRAINING_PROTEINS_SCHEMA,
    Protein,
    Split,
    base_accession,
    sequence_digest,
)

_NUM_NAMED = 5
"""Accessions that a refusal names."""
_NUM_LISTED = 100
"""Accessions that decision.json lists."""

_log = logging.getLogger(__name__)


def known_proteins(model: Path, proteins: Sequence[Protein]) -> list[bool]:
    """Say of each protein whether the model saw it in training: same base accession, or same sequence.

    Raises: ArtifactError if the model folder does not tell what it was trained on.
    """
    path = model / TRAINING_PROTEINS_FILE
    if not path.is_file():
        raise ArtifactError(f"{path}: missing; without it nobody can tell whether the model knows the test")
    table = pyarrow.parquet.read_table(path)
    if table.schema.names != TRAINING_PROTEINS_SCHEMA.names:
        raise ArtifactError(
            f"{path}: columns {table.schema.names}, expected {TRAINING_PROTEINS_SCHEMA.names}"
        )
    accessions, digests = (set(column.to_pylist()) for column in table.columns)
    return [
        base_accession(protein.accession) in accessions or sequence_digest(protein.sequence) in digests
        for protein in proteins
    ]


def refuse_contaminated(model: Path, exam: Exam, max_known_share: float) -> Bools:
    """Say which scored proteins the candidate was trained on, [N]; few of the test are reported, no more.

    Raises: DataError with some of their names if one of them is to decide about it, or if they are more than
        `max_known_share` of the official test; ArtifactError if the model does not tell.
    """
    is_known_N = np.array(known_proteins(model, exam.scored), dtype=bool)
    for split, name, allowed in (
        (Split.GATE, "gate split", 0.0),
        (Split.TEST, "official test", max_known_share),
    ):
        rows = exam.rows(split)
        known = [exam.scored[row].accession for row in rows if is_known_N[row]]
        if len(known) > allowed * len(rows):
            limit = f" (of {len(rows):,}; max_known_share={allowed:g})" if allowed else ""
            raise DataError(
                f"{model}: trained on {len(known):,} proteins of the {name}{limit}, e.g. "
                f"{', '.join(known[:_NUM_NAMED])}; evaluate on the records it was trained from, or train on "
                "records without these proteins"
            )
    return is_known_N


@dataclass(frozen=True)
class ChampionKnowledge:
    """What the champion saw in training of the proteins scored here."""

    test: list[str]
    """Accessions of the official test."""
    gate: list[str]
    """Accessions of the gate split."""
    fair_rows: Ints
    """Where the gate proteins stand that are new to it: none of their cluster was seen."""
    num_left_out: int
    """Gate proteins that are not new to it."""

    def to_json(self) -> dict[str, Any]:
        """Numbers, and the first names."""
        return {
            "num_test": len(self.test),
            "num_gate": len(self.gate),
            "num_gate_left_out": self.num_left_out,
            "test": self.test[:_NUM_LISTED],
            "gate": self.gate[:_NUM_LISTED],
        }


def champion_knowledge(champion: Path, exam: Exam) -> ChampionKnowledge:
    """Find what a champion, perhaps trained on another collection, knows of the test and the gate split.

    With a gate protein that it saw, the others of its homology cluster are left out too: on relatives of its
    training proteins a champion has an advantage that no candidate can have.

    Raises: ArtifactError if the champion does not tell what it was trained on.
    """
    is_known_N = np.array(known_proteins(champion, exam.scored), dtype=bool)
    rows = exam.rows(Split.GATE)
    seen = {exam.scored[row].cluster for row in rows if is_known_N[row]}
    fair = [row for row in rows if not is_known_N[row] and exam.scored[row].cluster not in seen]
    test, gate = (
        [exam.scored[row].accession for row in exam.rows(split) if is_known_N[row]]
        for split in (Split.TEST, Split.GATE)
    )
    for known, name in ((test, "official test"), (gate, "gate split")):
        if known:
            _log.warning(
                "%s: the champion was trained on %d proteins of the %s, e.g. %s",
                *(champion, len(known), name, ", ".join(known[:_NUM_NAMED])),
            )
    return ChampionKnowledge(test, gate, np.array(fair, dtype=np.int64), len(rows) - len(fair))
