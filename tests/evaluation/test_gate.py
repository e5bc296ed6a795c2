"""Each reason of the gate, seen to hold and to pass."""

import math
from dataclasses import replace

import pytest

from prottune.evaluation.gate import Comparison, GateScores, decide
from prottune.evaluation.settings import EvaluateConfig

CONFIG = EvaluateConfig(max_loss_to_champion=0.01, min_gate_proteins=50, max_calibration_error=0.2)
GOOD = GateScores(num_proteins=500, accuracy=0.80, macro_f1=0.70, mcc=0.75, ece=0.05)
FLOOR = GateScores(num_proteins=500, accuracy=0.60, macro_f1=0.50, mcc=0.50, ece=0.30)


def against(theirs: float, ours: float = 0.8, num_proteins: int = 500, num_known: int = 0) -> Comparison:
    champion = replace(GOOD, accuracy=theirs, num_proteins=num_proteins)
    candidate = replace(GOOD, accuracy=ours, num_proteins=num_proteins)
    return Comparison(version="3", champion=champion, candidate=candidate, num_known=num_known)


OTHER_LABELS = Comparison(
    version="3",
    champion=GateScores(num_proteins=0),
    candidate=GateScores(num_proteins=0),
    obstacle="it answers with other locations (A, B)",
)

PROMOTED = [
    ("no champion", GOOD, FLOOR, None, "there is no champion to compare with"),
    (
        "better champion by less than the margin",
        GOOD,
        FLOOR,
        against(0.805),
        "0.800 is not more than 0.01 below the champion version 3's 0.805 on the same 500 gate proteins",
    ),
    ("better by exactly the margin", GOOD, FLOOR, against(0.81), "champion version 3's 0.810"),
    ("equal champion", GOOD, FLOOR, against(0.80), "champion version 3's 0.800"),
    ("worse champion", GOOD, FLOOR, against(0.10), "champion version 3's 0.100"),
    (
        "champion that knows some gate proteins",
        GOOD,
        FLOOR,
        against(0.70, num_proteins=50, num_known=450),
        "on the same 50 gate proteins (450 that it was trained on left out)",
    ),
    ("just enough proteins", replace(GOOD, num_proteins=50), FLOOR, None, "on 50 gate proteins"),
    ("calibration at the limit", replace(GOOD, ece=0.2), FLOOR, None, "0.200 is within the 0.2 allowed"),
]

HELD = [
    ("accuracy at the floor", replace(GOOD, accuracy=0.6), FLOOR, None,
     ["accuracy 0.600 on 500 gate proteins is not above the floor's 0.600"]),
    ("macro F1 under the floor", replace(GOOD, macro_f1=0.4), FLOOR, None,
     ["macro F1 0.400 on 500 gate proteins is not above the floor's 0.500"]),
    ("worse than the champion", GOOD, FLOOR, against(0.82),
     ["accuracy 0.800 is more than 0.01 below the champion version 3's 0.820 on the same 500 gate proteins"]),
    ("two reasons at once", replace(GOOD, accuracy=0.5, ece=0.3), FLOOR, None,
     ["accuracy 0.500 on 500 gate proteins is not above the floor's 0.600",
      "calibration error 0.300 is above the 0.2 allowed"]),
    ("too few proteins", replace(GOOD, num_proteins=49), FLOOR, None,
     ["the gate split has 49 proteins; at least 50 are needed to decide"]),
    ("no protein", GateScores(num_proteins=0), GateScores(num_proteins=0), None,
     ["the gate split has 0 proteins; at least 50 are needed to decide"]),
    ("candidate not finite", GateScores(num_proteins=500), FLOOR, None,
     ["not all figures of the candidate are finite numbers"]),
    ("one figure NaN", replace(GOOD, ece=math.nan), FLOOR, None,
     ["not all figures of the candidate are finite numbers"]),
    ("one figure infinite", replace(GOOD, macro_f1=math.inf), FLOOR, None,
     ["not all figures of the candidate are finite numbers"]),
    ("floor not finite", GOOD, replace(FLOOR, accuracy=math.nan), None,
     ["not all figures of the floor are finite numbers"]),
    ("champion not finite", GOOD, FLOOR, against(math.nan),
     ["cannot be compared with the champion version 3: its figures are not finite numbers"]),
    ("champion with other labels", GOOD, FLOOR, OTHER_LABELS,
     ["cannot be compared with the champion version 3: it answers with other locations (A, B)"]),
    ("champion that knows the gate", GOOD, FLOOR, against(0.1, num_proteins=49, num_known=451),
     ["cannot be compared with the champion version 3: it was trained on 451 gate proteins, leaving 49, "
      "of at least 50 needed"]),
    ("lucky on the whole, worse on what the champion does not know", GOOD, FLOOR,
     against(0.75, num_proteins=100, num_known=400, ours=0.7),
     ["accuracy 0.700 is more than 0.01 below the champion version 3's 0.750 on the same 100 gate proteins "
      "(400 that it was trained on left out)"]),
]  # fmt: skip


@pytest.mark.parametrize(("candidate", "floor", "champion", "words"), [row[1:] for row in PROMOTED],
                         ids=[row[0] for row in PROMOTED])  # fmt: skip
def test_promotes(candidate: GateScores, floor: GateScores, champion: Comparison | None, words: str) -> None:
    decision = decide(candidate, floor, champion, CONFIG)
    assert decision.decision == "promote"
    assert len(decision.reasons) == 4
    assert words in "; ".join(decision.reasons)


@pytest.mark.parametrize(("candidate", "floor", "champion", "reasons"), [row[1:] for row in HELD],
                         ids=[row[0] for row in HELD])  # fmt: skip
def test_holds_and_says_only_what_speaks_against_the_candidate(
    candidate: GateScores, floor: GateScores, champion: Comparison | None, reasons: list[str]
) -> None:
    decision = decide(candidate, floor, champion, CONFIG)
    assert (decision.decision, decision.reasons) == ("hold", reasons)


def test_the_settings_move_the_limits() -> None:
    lenient = EvaluateConfig(max_loss_to_champion=0.05, min_gate_proteins=10, max_calibration_error=0.5)
    weak = replace(GOOD, num_proteins=20, ece=0.4)
    assert decide(weak, FLOOR, against(0.84), CONFIG).decision == "hold"
    assert decide(weak, FLOOR, against(0.84), lenient).decision == "promote"


def test_a_champion_from_a_folder_has_no_version_to_name() -> None:
    champion = replace(against(0.9), version="")
    assert "below the champion's 0.900" in decide(GOOD, FLOOR, champion, CONFIG).reasons[0]


def test_scores_travel_from_metrics_to_json_without_what_is_not_finite() -> None:
    scores = GateScores.from_metrics({"num_proteins": 5, "accuracy": 0.5, "confusion": [[5]]})
    assert scores.to_json() == {"num_proteins": 5, "accuracy": 0.5}
    assert not scores.is_finite
