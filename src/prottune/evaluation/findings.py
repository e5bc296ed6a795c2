"""All that an evaluation found out, and the two JSON files made from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from prottune.artifacts import Manifest
from prottune.evaluation.exam import SCORED_SPLITS, Answer, Exam
from prottune.evaluation.gate import Comparison, Decision, GateScores
from prottune.evaluation.leakage import ChampionKnowledge
from prottune.evaluation.membrane import MembraneScores
from prottune.evaluation.mistakes import Explained, surest_mistakes
from prottune.evaluation.relatives import Relatives
from prottune.explanation import strongest_stretch
from prottune.records import Split

_HEADLINE = ("accuracy", "macro_f1", "mcc", "baseline")
"""Figures of the test split that stand at the top level of metrics.json too."""
_BASELINE = ("accuracy", "macro_f1", "mcc", "top2_accuracy", "ece", "intervals", "by_relatives")
_NUM_MISTAKES = 20

Scores = Mapping[Split, Mapping[str, Any]]
"""What `metrics.score` says about each scored split."""


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What candidate, floor and champion showed; `answers` follow `exam.scored` one by one."""

    exam: Exam
    answers: Sequence[Answer]
    is_known: npt.NDArray[np.bool_]
    """True where the candidate was trained on the scored protein."""
    relatives: Relatives
    """Of the scored proteins among the training proteins of these records."""
    candidate: Scores
    trust: Scores
    """What the candidate's probabilities are worth."""
    explained: Explained
    """Which residues misled the candidate in the first of its surest mistakes."""
    floor: Scores
    membrane: MembraneScores
    """Of the second task, which has no say in the decision."""
    comparison: Comparison | None
    champion_knowledge: ChampionKnowledge | None
    """What the champion was trained on of what is scored here; None without one."""
    decision: Decision
    manifests: Mapping[str, Manifest]
    """Of records, model and perhaps champion."""
    description: Mapping[str, Any]
    """The model's own words about itself: the content of prottune.json."""

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """The content of metrics.json; what could not be computed is not in it."""
        metrics: dict[str, Any] = {}
        for split in SCORED_SPLITS:
            floor = self.floor[split]
            metrics[split.value] = {
                **self.candidate[split],
                **self.trust[split],
                "num_known": int(self.is_known[self.exam.rows(split)].sum()),
                "baseline": {name: floor[name] for name in _BASELINE if name in floor},
                "membrane": self.membrane[split],
            }
            if "accuracy" in metrics[split.value]:
                metrics[split.value]["mistakes"] = self._mistakes(split)
        if self.comparison is not None and not self.comparison.obstacle:
            metrics[Split.GATE]["champion"] = self.comparison.champion.to_json()
        test = metrics[Split.TEST]
        metrics["trained_on_these_records"] = self.trained_on_these_records
        return {name: test[name] for name in _HEADLINE if name in test} | metrics

    @property
    def trained_on_these_records(self) -> bool:
        """Whether the candidate learned from the very records that it is scored on."""
        return self.description.get("dataset_digest") == self.manifests["records"].digest

    def _mistakes(self, split: Split) -> list[dict[str, Any]]:
        """The wrong answers of which the candidate was surest, the surest first."""
        return [
            {
                "accession": self.exam.scored[row].accession,
                "location": self.exam.scored[row].location,
                "predicted": self.answers[row].location,
                "probability": float(self.answers[row].probability),
                "num_residues": self.exam.scored[row].num_residues,
                "truncated": bool(self.answers[row].truncated),
                "relative": self.relatives.accessions[row],
                "identity": self.relatives.identities[row],
                "misled_by": self._misled_by(row),
            }
            for row in surest_mistakes(self.exam, self.answers, split)[:_NUM_MISTAKES]
        ]

    def _misled_by(self, row: int) -> dict[str, Any] | None:
        """The stretch that speaks most for a wrong answer; None where no residues were scored."""
        if (attribution := self.explained.get(row)) is None:
            return None
        (first, last), share = strongest_stretch(np.nan_to_num(attribution.scores_R))
        return {
            "first": first,
            "last": last,
            "share": share,
            "complete": attribution.is_complete,
            "steps": attribution.steps,
        }

    @property
    def verdict(self) -> dict[str, Any]:
        """The content of decision.json: the decision, why, and the gate scores that it rests on."""
        return {
            "decision": self.decision.decision,
            "reasons": self.decision.reasons,
            "candidate": GateScores.from_metrics(self.candidate[Split.GATE]).to_json(),
            "floor": GateScores.from_metrics(self.floor[Split.GATE]).to_json(),
            **self._champion(),
        }

    def _champion(self) -> dict[str, Any]:
        if self.comparison is None or self.champion_knowledge is None:
            return {"champion": None, "champion_version": ""}
        if self.comparison.obstacle:
            return {
                "champion": None,
                "champion_version": self.comparison.version,
                "known_to_champion": self.champion_knowledge.to_json(),
            }
        return {
            "champion": self.comparison.champion.to_json(),
            "champion_version": self.comparison.version,
            "candidate_beside_champion": self.comparison.candidate.to_json(),
            "num_known_to_champion": self.comparison.num_known,
            "known_to_champion": self.champion_knowledge.to_json(),
            "difference_to_champion": asdict(found) if (found := self.decision.difference) else None,
        }
