"""The rule that promotes or holds a model: a pure function of scores on the gate split.

The official test is not among its inputs: it is reported, and never decides.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from prottune.evaluation.settings import EvaluateConfig

_ROUNDING = 1e-9
"""A model exactly the allowed loss below the champion is not held for a last binary digit."""


@dataclass(frozen=True, kw_only=True)
class GateScores:
    """What the gate looks at; a figure that could not be computed is NaN."""

    num_proteins: int
    accuracy: float = math.nan
    macro_f1: float = math.nan
    mcc: float = math.nan
    ece: float = math.nan
    """Expected calibration error."""

    @classmethod
    def from_metrics(cls, metrics: Mapping[str, Any]) -> GateScores:
        """Take the gate's figures out of what `metrics.score` returns."""
        return cls(**{name: metrics[name] for name in cls.__dataclass_fields__ if name in metrics})

    def to_json(self) -> dict[str, float | int]:
        """Plain numbers; what is not finite is left out."""
        return {name: value for name, value in asdict(self).items() if math.isfinite(value)}

    @property
    def is_finite(self) -> bool:
        """Whether every figure could be computed."""
        return all(math.isfinite(value) for value in asdict(self).values())


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Candidate and champion on the same gate proteins: those that the champion was not trained on."""

    version: str
    """The champion's version in the registry; empty when it came from a folder."""
    champion: GateScores
    candidate: GateScores
    num_known: int = 0
    """Gate proteins left out because the champion was trained on them."""
    obstacle: str = ""
    """Why the two cannot be compared at all, in words; empty when they can."""


@dataclass(frozen=True)
class Decision:
    """What happens to the candidate, and why: what spoke against it, or all that spoke for it."""

    decision: Literal["promote", "hold"]
    reasons: list[str]


@dataclass(frozen=True)
class _Check:
    passed: bool
    words: str


def decide(
    candidate: GateScores, floor: GateScores, champion: Comparison | None, config: EvaluateConfig
) -> Decision:
    """Promote a candidate that is sound, beats the floor and is not worse than the champion; hold any other.

    All scores are on the gate split. `champion` is None when there is none yet.
    """
    checks = [_enough_proteins(candidate, config)]
    if checks[0].passed:
        checks = [_finite(candidate, floor)]
    if checks[0].passed:
        checks = [
            _above_floor("accuracy", candidate.accuracy, floor.accuracy, candidate.num_proteins),
            _above_floor("macro F1", candidate.macro_f1, floor.macro_f1, candidate.num_proteins),
            _calibrated(candidate, config),
            _not_worse_than_champion(champion, config),
        ]
    against = [check.words for check in checks if not check.passed]
    if against:
        return Decision("hold", against)
    return Decision("promote", [check.words for check in checks])


def _enough_proteins(candidate: GateScores, config: EvaluateConfig) -> _Check:
    return _Check(
        candidate.num_proteins >= config.min_gate_proteins,
        f"the gate split has {candidate.num_proteins:,} proteins; "
        f"at least {config.min_gate_proteins:,} are needed to decide",
    )


def _finite(candidate: GateScores, floor: GateScores) -> _Check:
    broken = [name for name, scores in (("candidate", candidate), ("floor", floor)) if not scores.is_finite]
    return _Check(not broken, f"not all figures of the {' and the '.join(broken)} are finite numbers")


def _above_floor(figure: str, candidate: float, floor: float, num_proteins: int) -> _Check:
    passed = candidate > floor
    return _Check(
        passed,
        f"{figure} {candidate:.3f} on {num_proteins:,} gate proteins is "
        f"{'above' if passed else 'not above'} the floor's {floor:.3f}",
    )


def _calibrated(candidate: GateScores, config: EvaluateConfig) -> _Check:
    passed = candidate.ece <= config.max_calibration_error
    return _Check(
        passed,
        f"calibration error {candidate.ece:.3f} is {'within' if passed else 'above'} "
        f"the {config.max_calibration_error:g} allowed",
    )


def _not_worse_than_champion(champion: Comparison | None, config: EvaluateConfig) -> _Check:
    if champion is None:
        return _Check(True, "there is no champion to compare with")
    name = f"champion version {champion.version}" if champion.version else "champion"
    if champion.obstacle:
        return _Check(False, f"cannot be compared with the {name}: {champion.obstacle}")
    if champion.champion.num_proteins < config.min_gate_proteins:
        return _Check(
            False,
            f"cannot be compared with the {name}: it was trained on {champion.num_known:,} gate proteins, "
            f"leaving {champion.champion.num_proteins:,}, of at least {config.min_gate_proteins:,} needed",
        )
    ours, theirs = champion.candidate.accuracy, champion.champion.accuracy
    if not (math.isfinite(ours) and math.isfinite(theirs)):
        return _Check(False, f"cannot be compared with the {name}: its figures are not finite numbers")
    passed = ours >= theirs - config.max_loss_to_champion - _ROUNDING
    left_out = f" ({champion.num_known:,} that it was trained on left out)" if champion.num_known else ""
    return _Check(
        passed,
        f"accuracy {ours:.3f} {'is not' if passed else 'is'} more than {config.max_loss_to_champion:g} below "
        f"the {name}'s {theirs:.3f} on the same {champion.champion.num_proteins:,} gate proteins{left_out}",
    )
