"""Each reason of the gate, seen to hold and to pass."""

import math
from dataclasses import replace

import numpy as np
import pytest

from prottune.errors import ConfigError
from prottune.evaluation.gate import (
    Comparison,
    Difference,
    GateScores,
    PairedAnswers,
    compare_accuracy,
    decide,
)
from prottune.evaluation.metrics import Ints
from prottune.evaluation.settings import EvaluateConfig

CONFIG = EvaluateConfig(
    max_loss_to_champion=0.02,
    max_location_loss=0.2,
    min_location_proteins=30,
    min_gate_proteins=50,
    max_calibration_error=0.2,
)
GOOD = GateScores(num_proteins=500, accuracy=0.80, macro_f1=0.70, mcc=0.75, ece=0.05)
FLOOR = GateScores(num_proteins=500, accuracy=0.60, macro_f1=0.50, mcc=0.50, ece=0.30)
LOCATIONS = ("Nucleus", "Plastid")


def right_at(num_proteins: int, right: slice) -> Ints:
    """Answers about proteins of the nucleus: right in one stretch, and `Plastid` everywhere else."""
    answers_N = np.ones(num_proteins, dtype=np.int64)
    answers_N[right] = 0
    return answers_N


def against(
    theirs: float,
    ours: float = 0.8,
    num_proteins: int = 500,
    num_known: int = 0,
    *,
    disagree: bool = False,
) -> Comparison:
    """A champion that agrees with the candidate about as many proteins as it can, or about as few."""
    num_theirs, num_ours = (round(share * num_proteins) for share in (theirs, ours))
    stretch = slice(num_proteins - num_theirs, num_proteins) if disagree else slice(0, num_theirs)
    return Comparison(
        version="3",
        champion=replace(GOOD, accuracy=theirs, num_proteins=num_proteins),
        candidate=replace(GOOD, accuracy=ours, num_proteins=num_proteins),
        answers=PairedAnswers(
            locations=LOCATIONS,
            truth_N=np.zeros(num_proteins, dtype=np.int64),
            candidate_N=right_at(num_proteins, slice(0, num_ours)),
            champion_N=right_at(num_proteins, stretch),
        ),
        num_known=num_known,
    )


def against_finder(found: int, num_plastid: int, theirs: int) -> Comparison:
    """A candidate right about all of the nucleus and some of the plastid; the champion finds more."""
    truth_N = np.repeat([0, 1], [500 - num_plastid, num_plastid])
    champion_N, candidate_N = truth_N.copy(), truth_N.copy()
    champion_N[:100] = 1  # what the candidate gains elsewhere, so that the whole is surely better
    champion_N[500 - num_plastid + theirs :] = 0
    candidate_N[500 - num_plastid + found :] = 0
    answers = PairedAnswers(
        locations=LOCATIONS, truth_N=truth_N, candidate_N=candidate_N, champion_N=champion_N
    )
    return replace(against(0.7), answers=answers)


OTHER_LABELS = Comparison(
    version="3",
    champion=GateScores(num_proteins=0),
    candidate=GateScores(num_proteins=0),
    obstacle="it answers with other locations (A, B)",
)

PROMOTED = [
    ("no champion", GOOD, FLOOR, None, "there is no champion to compare with"),
    ("champion better by two proteins", GOOD, FLOOR, against(0.804),
     "accuracy 0.800 against the champion version 3's 0.804 on the same 500 gate proteins: the 95 % interval "
     "of the difference, -0.010 to +0.000, stays above a loss of 0.02"),
    ("equal champion", GOOD, FLOOR, against(0.80), "+0.000 to +0.000, stays above a loss of 0.02"),
    ("worse champion that disagrees", GOOD, FLOOR, against(0.70, disagree=True), "stays above a loss"),
    ("much worse champion", GOOD, FLOOR, against(0.10), "champion version 3's 0.100"),
    ("champion that knows some gate proteins", GOOD, FLOOR, against(0.70, num_proteins=50, num_known=450),
     "on the same 50 gate proteins (450 that are not new to it left out)"),
    ("just enough proteins", replace(GOOD, num_proteins=50), replace(FLOOR, num_proteins=50), None,
     "on 50 gate proteins"),
    ("just above the floor", replace(GOOD, accuracy=0.601), FLOOR, None,
     "accuracy 0.601 on 500 gate proteins is above the floor's 0.600"),
    ("macro F1 just above the floor", replace(GOOD, macro_f1=0.501), FLOOR, None,
     "macro F1 0.501 on 500 gate proteins is above the floor's 0.500"),
    ("calibration at the limit", replace(GOOD, ece=0.2), FLOOR, None, "0.200 is within the 0.2 allowed"),
    ("a location that loses just what it may", GOOD, FLOOR, against_finder(14, 30, theirs=20),
     "no location with at least 30 gate proteins lost more than a share of 0.2 of them to the champion"),
    ("a location too small to be compared alone", GOOD, FLOOR, against_finder(0, 29, theirs=29),
     "no location with at least 30 gate proteins lost"),
    ("the first real run of `make deeploc`",
     GateScores(num_proteins=1096, accuracy=0.634, macro_f1=0.467, mcc=0.55, ece=0.03),
     GateScores(num_proteins=1096, accuracy=0.585, macro_f1=0.434, mcc=0.49, ece=0.05), None,
     "accuracy 0.634 on 1,096 gate proteins is above the floor's 0.585"),
]  # fmt: skip

HELD = [
    ("accuracy at the floor", replace(GOOD, accuracy=0.6), FLOOR, None,
     ["accuracy 0.600 on 500 gate proteins is not above the floor's 0.600"]),
    ("macro F1 under the floor", replace(GOOD, macro_f1=0.4), FLOOR, None,
     ["macro F1 0.400 on 500 gate proteins is not above the floor's 0.500"]),
    ("surely worse than the champion", GOOD, FLOOR, against(0.88),
     ["accuracy 0.800 against the champion version 3's 0.880 on the same 500 gate proteins: the 95 % "
      "interval of the difference, -0.104 to -0.056, reaches a loss of 0.02"]),
    ("two reasons at once", replace(GOOD, accuracy=0.5, ece=0.3), FLOOR, None,
     ["accuracy 0.500 on 500 gate proteins is not above the floor's 0.600",
      "calibration error 0.300 is above the 0.2 allowed"]),
    ("too few proteins", replace(GOOD, num_proteins=49), replace(FLOOR, num_proteins=49), None,
     ["the gate split has 49 proteins; at least 50 are needed to decide"]),
    ("no protein", GateScores(num_proteins=0), GateScores(num_proteins=0), None,
     ["the gate split has 0 proteins; at least 50 are needed to decide"]),
    ("floor on other proteins", GOOD, replace(FLOOR, num_proteins=499), None,
     ["the floor was scored on 499 gate proteins and the candidate on 500; both must be scored on the same "
      "ones"]),
    ("candidate not finite", GateScores(num_proteins=500), FLOOR, None,
     ["not all figures of the candidate are finite numbers"]),
    ("one figure NaN", replace(GOOD, ece=math.nan), FLOOR, None,
     ["not all figures of the candidate are finite numbers"]),
    ("one figure infinite", replace(GOOD, macro_f1=math.inf), FLOOR, None,
     ["not all figures of the candidate are finite numbers"]),
    ("floor not finite", GOOD, replace(FLOOR, accuracy=math.nan), None,
     ["not all figures of the floor are finite numbers"]),
    ("champion not finite", GOOD, FLOOR, replace(against(0.8), champion=replace(GOOD, accuracy=math.nan)),
     ["cannot be compared with the champion version 3: its figures are not finite numbers"]),
    ("champion with other labels", GOOD, FLOOR, OTHER_LABELS,
     ["cannot be compared with the champion version 3: it answers with other locations (A, B)"]),
    ("champion that knows the gate", GOOD, FLOOR, against(0.1, num_proteins=49, num_known=451),
     ["cannot be compared with the champion version 3: 451 gate proteins are not new to it, which leaves 49, "
      "of at least 50 needed"]),
    ("a location lost, though the whole is better", GOOD, FLOOR, against_finder(13, 30, theirs=20),
     ["it finds 13 of 30 Plastid proteins, the champion version 3 20: more than a share of 0.2 lost"]),
]  # fmt: skip


@pytest.mark.parametrize(("candidate", "floor", "champion", "words"), [row[1:] for row in PROMOTED],
                         ids=[row[0] for row in PROMOTED])  # fmt: skip
def test_promotes(candidate: GateScores, floor: GateScores, champion: Comparison | None, words: str) -> None:
    decision = decide(candidate, floor, champion, CONFIG)
    assert decision.decision == "promote"
    assert len(decision.reasons) == (4 if champion is None else 5)
    assert words in "; ".join(decision.reasons)


@pytest.mark.parametrize(("candidate", "floor", "champion", "reasons"), [row[1:] for row in HELD],
                         ids=[row[0] for row in HELD])  # fmt: skip
def test_holds_and_says_only_what_speaks_against_the_candidate(
    candidate: GateScores, floor: GateScores, champion: Comparison | None, reasons: list[str]
) -> None:
    decision = decide(candidate, floor, champion, CONFIG)
    assert (decision.decision, decision.reasons) == ("hold", reasons)


def test_the_settings_of_the_real_run_are_the_defaults() -> None:
    assert EvaluateConfig() == CONFIG


def test_equal_accuracy_is_not_enough_when_it_may_be_luck() -> None:
    """Both are right about 400 of 500 proteins, but not about the same ones: a difference would not show."""
    (reason,) = decide(GOOD, FLOOR, against(0.80, disagree=True), CONFIG).reasons
    assert "0.800 against the champion version 3's 0.800" in reason
    assert "reaches a loss of 0.02" in reason


def test_without_a_margin_only_a_surely_better_candidate_is_promoted() -> None:
    strict = replace(CONFIG, max_loss_to_champion=0.0)
    assert decide(GOOD, FLOOR, against(0.80), strict).decision == "hold"
    assert decide(GOOD, FLOOR, against(0.75), strict).decision == "promote"


def test_the_settings_move_the_limits() -> None:
    lenient = EvaluateConfig(max_loss_to_champion=0.15, min_gate_proteins=10, max_calibration_error=0.5)
    weak, floor = replace(GOOD, num_proteins=20, ece=0.4), replace(FLOOR, num_proteins=20)
    assert decide(weak, floor, against(0.84), CONFIG).decision == "hold"
    assert decide(weak, floor, against(0.84), lenient).decision == "promote"
    lost = against_finder(13, 30, theirs=20)
    assert decide(GOOD, FLOOR, lost, replace(CONFIG, max_location_loss=0.25)).decision == "promote"
    assert decide(GOOD, FLOOR, lost, replace(CONFIG, min_location_proteins=31)).decision == "promote"


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("max_loss_to_champion", -0.01, "expected a number from 0 to 1"),
        ("max_loss_to_champion", math.nan, "expected a number from 0 to 1"),
        ("max_location_loss", 1.5, "max_location_loss=1.5: expected a number from 0 to 1"),
        ("min_location_proteins", 0, "min_location_proteins=0: expected at least 1"),
        ("min_gate_proteins", 0, "min_gate_proteins=0: expected at least 1"),
    ],
)
def test_limits_that_mean_nothing_are_refused(name: str, value: float, line: str) -> None:
    with pytest.raises(ConfigError, match=line):
        replace(CONFIG, **{name: value})


def test_the_difference_to_the_champion_has_the_interval_of_paired_proteins() -> None:
    answers = against(0.70, disagree=True).answers
    assert answers is not None
    found = compare_accuracy(answers, num_bootstraps=2000, seed=43)
    # 150 proteins are right for the candidate alone, 100 for the champion alone.
    error = math.sqrt(250 / 500 - 0.1**2) / math.sqrt(500)
    assert found.accuracy == pytest.approx(0.1)
    assert found.low == pytest.approx(0.1 - 1.96 * error, abs=0.006)
    assert found.high == pytest.approx(0.1 + 1.96 * error, abs=0.006)
    same = replace(answers, champion_N=answers.candidate_N)
    assert compare_accuracy(same, num_bootstraps=100, seed=43) == Difference(accuracy=0.0, low=0.0, high=0.0)


def test_a_decision_tells_the_difference_it_rests_on() -> None:
    held = decide(GOOD, FLOOR, against(0.88), CONFIG)
    assert held.difference is not None
    assert held.difference.accuracy == pytest.approx(-0.08)
    assert decide(GOOD, FLOOR, None, CONFIG).difference is None
    assert decide(GOOD, FLOOR, OTHER_LABELS, CONFIG).difference is None


def test_a_champion_from_a_folder_has_no_version_to_name() -> None:
    champion = replace(against(0.9), version="")
    assert "against the champion's 0.900" in decide(GOOD, FLOOR, champion, CONFIG).reasons[0]


def test_scores_travel_from_metrics_to_json_without_what_is_not_finite() -> None:
    scores = GateScores.from_metrics({"num_proteins": 5, "accuracy": 0.5, "confusion": [[5]]})
    assert scores.to_json() == {"num_proteins": 5, "accuracy": 0.5}
    assert not scores.is_finite
