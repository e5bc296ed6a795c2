"""One curve for all locations: by value on answers made by hand."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from prottune.evaluation.roc import MAX_POINTS, micro_average_roc


def test_ties_move_together_and_the_area_is_that_of_all_answers() -> None:
    curve = micro_average_roc(np.array([0, 1]), np.array([[0.75, 0.25], [0.75, 0.25]]))
    assert curve["false_positive_rate"] == [0.0, 0.5, 1.0]
    assert curve["true_positive_rate"] == [0.0, 0.5, 1.0]
    assert curve["threshold"] == [1.0, 0.75, 0.25]
    assert curve["area"] == 0.5


def test_a_long_curve_is_thinned_and_its_area_is_that_of_scikit_learn() -> None:
    generator = np.random.default_rng(3)
    truth = generator.integers(0, 4, 500)
    probabilities = generator.dirichlet(np.ones(4), 500) + 0.3 * np.eye(4)[truth]
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    curve = micro_average_roc(truth, probabilities)
    assert len(curve["threshold"]) == MAX_POINTS + 1
    assert curve["true_positive_rate"][-1] == curve["false_positive_rate"][-1] == 1.0
    for name in ("true_positive_rate", "false_positive_rate"):
        assert np.all(np.diff(curve[name]) >= 0)
    assert curve["area"] == pytest.approx(roc_auc_score(np.eye(4)[truth].ravel(), probabilities.ravel()))


@pytest.mark.parametrize(
    "probabilities", [np.zeros((0, 3)), np.full((2, 3), np.nan), np.ones((2, 1))], ids=["none", "nan", "one"]
)
def test_nothing_is_said_where_there_is_no_curve(probabilities: np.ndarray) -> None:
    assert micro_average_roc(np.zeros(len(probabilities), dtype=np.int64), probabilities) == {}
