"""What probabilities are worth, by values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from prottune.evaluation.reliability import (
    calibration,
    confident_answers,
    judge_probabilities,
    rejection_curve,
    undo_temperature,
)


def test_undoing_a_temperature_gives_the_probabilities_of_the_undivided_logits() -> None:
    logits_NC = torch.tensor([[2.0, -1.0, 0.5], [0.0, 0.0, 9.0], [-800.0, 3.0, 1.0]], dtype=torch.float64)
    answered_NC = (logits_NC / 2.5).softmax(dim=1).numpy()
    expected_NC = logits_NC.softmax(dim=1).numpy()
    np.testing.assert_allclose(undo_temperature(answered_NC, 2.5), expected_NC, rtol=1e-12)
    np.testing.assert_allclose(undo_temperature(answered_NC, 1.0), answered_NC, rtol=1e-12)


def test_undoing_a_temperature_survives_a_probability_of_nothing() -> None:
    assert undo_temperature(np.array([[1.0, 0.0]]), 3.0).tolist() == [[1.0, 0.0]]
    many = np.full((1, 10), 0.1)
    np.testing.assert_allclose(undo_temperature(many, 20.0), many)


def test_calibration_is_told_before_and_after_the_temperature() -> None:
    """Odds of 3 to 1 were odds of 9 to 1 before a temperature of 2; 3 of 4 answers are right."""
    truth_N = np.array([0, 0, 0, 1])
    found = calibration(truth_N, np.tile([0.75, 0.25], (4, 1)), 2.0)
    assert found["temperature"] == 2.0
    assert found["after"]["ece"] == pytest.approx(0.0)
    assert found["before"]["ece"] == pytest.approx(0.9 - 0.75)
    assert found["before"]["reliability"] == [
        {"confidence": pytest.approx(0.9), "accuracy": 0.75, "num_proteins": 4}
    ]
    assert found["after"]["reliability"] == [{"confidence": 0.75, "accuracy": 0.75, "num_proteins": 4}]


def test_the_rejection_curve_ends_with_all_answers_and_keeps_ties_together() -> None:
    probability_N = np.array([0.5, 0.9, 0.7, 0.7])
    is_correct_N = np.array([False, True, True, False])
    assert rejection_curve(probability_N, is_correct_N) == [
        {"num_proteins": 1, "share": 0.25, "accuracy": 1.0, "probability": 0.9},
        {"num_proteins": 3, "share": 0.75, "accuracy": pytest.approx(2 / 3), "probability": 0.7},
        {"num_proteins": 4, "share": 1.0, "accuracy": 0.5, "probability": 0.5},
    ]


def test_the_rejection_curve_of_many_proteins_has_a_point_each_two_percent() -> None:
    probability_N = np.linspace(1, 0.5, 1000)
    is_correct_N = np.arange(1000) < 500
    curve = rejection_curve(probability_N, is_correct_N)
    assert [point["num_proteins"] for point in curve] == list(range(20, 1001, 20))
    assert [point["accuracy"] for point in curve[:25]] == [1.0] * 25
    assert curve[-1]["accuracy"] == 0.5


def test_confident_answers_are_scored_apart_from_the_others() -> None:
    is_correct_N = np.array([True, True, False, True, False])
    found = confident_answers(np.array([True, True, True, False, False]), is_correct_N)
    assert found == {
        "num_proteins": 3,
        "share": 0.6,
        "accuracy": pytest.approx(2 / 3),
        "accuracy_of_others": 0.5,
    }
    assert confident_answers(np.zeros(5, bool), is_correct_N) == {
        "num_proteins": 0,
        "share": 0.0,
        "accuracy_of_others": 0.6,
    }


def test_a_judgement_has_all_three_parts() -> None:
    probabilities_NC = np.array([[0.75, 0.25], [0.4, 0.6]])
    found = judge_probabilities(np.array([0, 0]), probabilities_NC, np.array([True, False]), 2.0)
    assert set(found) == {"calibration", "rejection", "confident"}
    assert found["confident"]["accuracy"] == 1.0
    assert [point["accuracy"] for point in found["rejection"]] == [1.0, 0.5]


@pytest.mark.parametrize("probabilities_NC", [np.zeros((0, 2)), np.array([[np.nan, 0.5]])])
def test_nothing_is_said_of_no_answers_or_of_answers_that_are_no_numbers(probabilities_NC) -> None:
    num = len(probabilities_NC)
    assert judge_probabilities(np.zeros(num, np.int64), probabilities_NC, np.zeros(num, bool), 1.0) == {}
