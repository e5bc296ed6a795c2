"""The rule that promotes or holds a model: a pure function of what is known about the gate split.

The official test is not among its inputs: it is reported, and never decides.

Shapes: N proteins, B resamples. Answers are positions in the label set.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from prottune.evaluation.metrics import Floats, Ints, draws, interval
from prottune.evaluation.settings import EvaluateConfig

_ROUNDING = 1e-9
"""A model exactly at a limit is not judged by a last binary digit."""


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
class PairedAnswers:
    """What candidate and champion answered about the same gate proteins, one by one."""

    locations: tuple[str, ...]
    """The label set that both speak."""
    truth_N: Ints
    candidate_N: Ints
    champion_N: Ints


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Candidate and champion on the same gate proteins: those whose cluster is new to the champion."""

    version: str
    """The champion's version in the registry; empty when it came from a folder."""
    champion: GateScores
    candidate: GateScores
    answers: PairedAnswers | None = None
    """None only when the two cannot be compared at all."""
    num_known: int = 0
    """Gate proteins left out: the champion was trained on them, or on others of their homology cluster."""
    obstacle: str = ""
    """Why the two cannot be compared at all, in words; empty when they can."""

    @property
    def name(self) -> str:
        """What reasons call the champion."""
        return f"champion version {self.version}" if self.version else "champion"


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Accuracy of the candidate less that of the champion, and the 95 % interval of this difference."""

    accuracy: float
    low: float
    high: float


@dataclass(frozen=True)
class Decision:
    """What happens to the candidate, and why: what spoke against it, or all that spoke for it."""

    decision: Literal["promote", "hold"]
    reasons: list[str]
    difference: Difference | None = None
    """None when there was no champion to compare with, or no way to."""


@dataclass(frozen=True)
class _Check:
    passed: bool
    words: str


def decide(
    candidate: GateScores, floor: GateScores, champion: Comparison | None, config: EvaluateConfig
) -> Decision:
    """Promote a candidate that is sound, beats the floor and is not worse than the champion; hold any other.

    All is known on the gate split. `champion` is None when there is none yet. Only when its proteins are
    enough, and all figures finite, is a candidate compared with anything.
    """
    difference = None
    checks = [_enough_proteins(candidate, config), _same_proteins(candidate, floor)]
    if _all_passed(checks):
        checks = [_finite(candidate, floor)]
    if _all_passed(checks):
        checks = [
            _above_floor("accuracy", candidate.accuracy, floor.accuracy, candidate.num_proteins),
            _above_floor("macro F1", candidate.macro_f1, floor.macro_f1, candidate.num_proteins),
            _calibrated(candidate, config),
        ]
        obstacle = _comparable(champion, config)
        if champion is None or obstacle is not None:
            checks.append(obstacle or _Check(True, "there is no champion to compare with"))
        else:
            difference = compare_accuracy(_answers(champion), config.num_bootstraps, config.bootstrap_seed)
            checks += [_not_worse(champion, difference, config), _no_location_lost(champion, config)]
    against = [check.words for check in checks if not check.passed]
    if against:
        return Decision("hold", against, difference)
    return Decision("promote", [check.words for check in checks], difference)


def compare_accuracy(answers: PairedAnswers, num_bootstraps: int, seed: int) -> Difference:
    """Say by how much the candidate is more often right than the champion, and how sure that is.

    Proteins are drawn again with both models' answers about them, so what is hard for both cancels out.

    Source: Koehn 2004, Statistical Significance Tests for Machine Translation Evaluation (paired bootstrap).
    """
    right_N = (answers.candidate_N == answers.truth_N).astype(np.float64)
    gain_N = right_N - (answers.champion_N == answers.truth_N)
    gains = [gain_N[draws_BN].mean(axis=1) for draws_BN in draws(len(gain_N), num_bootstraps, seed)]
    gain_B: Floats = np.concatenate(gains)
    low, high = interval(gain_B)
    return Difference(accuracy=float(gain_N.mean()), low=low, high=high)


def _all_passed(checks: list[_Check]) -> bool:
    return all(check.passed for check in checks)


def _answers(champion: Comparison) -> PairedAnswers:
    assert champion.answers is not None, "what can be compared was asked"
    return champion.answers


def _enough_proteins(candidate: GateScores, config: EvaluateConfig) -> _Check:
    return _Check(
        candidate.num_proteins >= config.min_gate_proteins,
        f"the gate split has {candidate.num_proteins:,} proteins; "
        f"at least {config.min_gate_proteins:,} are needed to decide",
    )


def _same_proteins(candidate: GateScores, floor: GateScores) -> _Check:
    return _Check(
        candidate.num_proteins == floor.num_proteins,
        f"the floor was scored on {floor.num_proteins:,} gate proteins and the candidate on "
        f"{candidate.num_proteins:,}; both must be scored on the same ones",
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


def _comparable(champion: Comparison | None, config: EvaluateConfig) -> _Check | None:
    """What stands in the way of a comparison with the champion; None if nothing does."""
    if champion is None:
        return None
    words = champion.obstacle
    if not words and champion.champion.num_proteins < config.min_gate_proteins:
        words = (
            f"{champion.num_known:,} gate proteins are not new to it, which leaves "
            f"{champion.champion.num_proteins:,}, of at least {config.min_gate_proteins:,} needed"
        )
    if not words and not (champion.champion.is_finite and champion.candidate.is_finite):
        words = "its figures are not finite numbers"
    return _Check(False, f"cannot be compared with the {champion.name}: {words}") if words else None


def _not_worse(champion: Comparison, difference: Difference, config: EvaluateConfig) -> _Check:
    passed = difference.low + config.max_loss_to_champion > _ROUNDING
    left_out = f" ({champion.num_known:,} that are not new to it left out)" if champion.num_known else ""
    return _Check(
        passed,
        f"accuracy {champion.candidate.accuracy:.3f} against the {champion.name}'s "
        f"{champion.champion.accuracy:.3f} on the same {champion.champion.num_proteins:,} gate proteins"
        f"{left_out}: the 95 % interval of the difference, {difference.low:+.3f} to {difference.high:+.3f}, "
        f"{'stays above' if passed else 'reaches'} a loss of {config.max_loss_to_champion:g}",
    )


def _no_location_lost(champion: Comparison, config: EvaluateConfig) -> _Check:
    """Hold when a location that the champion finds is hardly found any more, however good the whole is."""
    answers, lost = _answers(champion), []
    for number, location in enumerate(answers.locations):
        is_here_N = answers.truth_N == number
        num_here = int(is_here_N.sum())
        ours, theirs = (
            int((is_here_N & (said_N == number)).sum())
            for said_N in (answers.candidate_N, answers.champion_N)
        )
        most = config.max_location_loss * num_here
        if num_here >= config.min_location_proteins and theirs - ours > most + _ROUNDING:
            lost.append(f"{ours:,} of {num_here:,} {location} proteins, the {champion.name} {theirs:,}")
    share = f"a share of {config.max_location_loss:g}"
    if lost:
        return _Check(False, f"it finds {'; '.join(lost)}: more than {share} lost")
    return _Check(
        True,
        f"no location with at least {config.min_location_proteins:,} gate proteins lost more than {share} "
        f"of them to the {champion.name}",
    )
