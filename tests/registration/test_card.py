"""The model card says what the facts say, and nothing that they do not."""

from typing import Any

from prottune.registration.card import model_card

PER_CLASS = {
    "Nucleus": {"support": 60, "precision": 0.7, "recall": 0.8, "f1": 0.75, "f1_interval": [0.7, 0.8]},
    "Lysosome/Vacuole": {"support": 4, "recall": 0.0, "f1": 0.0, "f1_interval": [0.0, 0.0]},
}
SCORES: dict[str, Any] = {
    "num_proteins": 2773,
    "accuracy": 0.594,
    "macro_f1": 0.447,
    "mcc": 0.506,
    "ece": 0.027,
    "intervals": {"accuracy": [0.576, 0.613]},
    "baseline": {"accuracy": 0.563, "macro_f1": 0.443},
}
METRICS = {
    "test": {**SCORES, "per_class": PER_CLASS, "num_known": 0},
    "gate": {**SCORES, "num_proteins": 1096},
}
DECISION = {"decision": "promote", "reasons": ["accuracy is above the floor"], "champion_version": "2"}
DESCRIPTION = {
    "labels": ["Nucleus", "Lysosome/Vacuole"],
    "max_residues": 510,
    "cut": "head_tail",
    "base_model": "small",
    "head": "attention",
    "confident_above": 0.8341,
    "versions": {"torch": "2.13.0"},
}
SETTINGS = {"epochs": 8, "seed": 43, "base_revision": ""}
ORIGIN = {"version": "3", "model digest": "abc", "pipeline run": ""}


def test_a_card_tells_use_scores_decision_limits_training_and_origin() -> None:
    card = model_card(DESCRIPTION, SETTINGS, METRICS, DECISION, ORIGIN)
    assert card.startswith("# Model card: prottune version 3\n\nSays in which of 2 parts of the cell")
    assert [line for line in card.splitlines() if line.startswith("## ")] == [
        *("## Intended use", "## Scores", "## Decision", "## Limits", "## Training", "## Where it comes from")
    ]
    for words in (
        "the right one for 59.4 % of 2,773 official test proteins (95 % interval 57.6 % to 61.3 %).",
        "The floor, which only counts residues, reaches 56.3 %.",
        "It answers one of Nucleus, Lysosome/Vacuole:",
        "| accuracy | 0.594 | 0.576 to 0.613 | 0.563 | 0.594 | 0.576 to 0.613 | 0.563 |",
        "| MCC | 0.506 | - | - |",
        "official test (2,773) | 95 % interval | floor | gate split (1,096)",
        "| Nucleus | 60 | 0.700 | 0.800 | 0.750 | 0.700 to 0.800 |",
        "| Lysosome/Vacuole | 4 | - | 0.000 | 0.000 | 0.000 to 0.000 |",
        "**promote**, on the gate split alone, compared with champion version 2:\n\n- accuracy is above",
        "- Proteins longer than 510 residues are cut (`head_tail`).",
        "- Found most rarely of all test proteins of their kind: Lysosome/Vacuole (0.0 %), Nucleus (80.0 %).",
        "- An answer with a probability under 0.834 is marked `confident: false`.",
        "- The scores are those of one training, with seed 43.",
        "- Base model `small`, head `attention`.",
        "- Settings: `epochs` 8, `seed` 43.",
        "| model digest | `abc` |",
    ):
        assert words in card, words
    assert "pipeline run" not in card
    assert "own training" not in card


def test_proteins_with_and_without_relatives_in_training_are_told_apart() -> None:
    far = {"num_proteins": 900, "accuracy": 0.5, "macro_f1": 0.3, "intervals": {"accuracy": [0.45, 0.55]}}
    floor = {"by_relatives": {"far": {"accuracy": 0.4}}}
    test = SCORES | {"by_relatives": {"far": far}, "baseline": floor}
    card = model_card(DESCRIPTION, SETTINGS, {"test": test}, DECISION, ORIGIN)
    assert "| no relative in training | 900 | 0.500 | 0.450 to 0.550 | 0.300 | 0.400 |" in card


def test_what_is_not_known_is_not_in_the_card() -> None:
    card = model_card({}, {}, {}, {}, {})
    assert "It has no score on the official test." in card
    assert "without a champion to compare with" in card
    assert "nan" not in card.lower()
    assert "None" not in card


def test_a_card_says_when_the_test_is_no_honest_one_and_when_nothing_is_cut() -> None:
    known = {**METRICS, "test": {**METRICS["test"], "num_known": 12}}
    card = model_card(DESCRIPTION | {"max_residues": 0}, SETTINGS, known, DECISION, ORIGIN)
    assert "- 12 test proteins were in the model's own training: of these it is no honest test." in card
    assert "- Proteins are read whole." in card


def test_a_bar_in_a_name_does_not_break_the_table() -> None:
    test = {**SCORES, "per_class": {"A|B": {"support": 1}}}
    card = model_card(DESCRIPTION, SETTINGS, {"test": test}, DECISION, ORIGIN)
    assert "| A/B | 1 | - | - | - | - |" in card
