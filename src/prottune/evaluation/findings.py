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
from prottune.evaluation.membrane import MembraneScores
from prottune.records import Split

_HEADLINE = ("accuracy", "macro_f1", "mcc", "baseline")
"""Figures of the test split that stand at the top level of metrics.json too."""
_BASELINE = ("accuracy", "macro_f1", "mcc", "ece", "intervals")

Scores = Mapping[Split, Mapping[str, Any]]
"""What `metrics.score` says about each scored split."""


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What candidate, floor and champion showed; `answers` follow `exam.scored` one by one."""

    exam: Exam
    answers: Sequence[Answer]
    is_known: npt.NDArray[np.bool_]
    """True where the candidate was trained on the scored protein."""
    candidate: Scores
    floor: Scores
    membrane: MembraneScores
    """Of the second task, which has no say in the decision."""
    comparison: Comparison | None
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
                "num_known": int(self.is_known[self.exam.rows(split)].sum()),
                "baseline": {name: floor[name] for name in _BASELINE if name in floor},
                "membrane": self.membrane[split],
            }
        if self.comparison is not None and not self.comparison.obstacle:
            metrics[Split.GATE]["champion"] = self.comparison.champion.to_json()
        test = metrics[Split.TEST]
        return {name: test[name] for name in _HEADLINE if name in test} | metrics

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
        if self.comparison is None:
            return {"champion": None, "champion_version": ""}
        if self.comparison.obstacle:
            return {"champion": None, "champion_version": self.comparison.version}
        return {
            "champion": self.comparison.champion.to_json(),
            "champion_version": self.comparison.version,
            "candidate_beside_champion": self.comparison.candidate.to_json(),
            "num_known_to_champion": self.comparison.num_known,
            "difference_to_champion": asdict(found) if (found := self.decision.difference) else None,
        }
