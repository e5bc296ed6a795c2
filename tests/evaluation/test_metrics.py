"""The figures against scikit-learn, against numbers worked out by hand, and at their edges."""

import json
import math

import numpy as np
import pytest
from sklearn.metrics import (
    f1_score,
    matthews_corrcoef,
    precision_score,
    recall_score,
    top_k_accuracy_score,
)

from prottune.evaluation.metrics import (
    calibration_error,
    confusion,
    figures,
    ranks,
    reliability,
    score,
    score_groups,
)

LOCATIONS = ("Nucleus", "Cytoplasm", "Golgi.apparatus", "Peroxisome")


def answers(seed: int = 0, size: int = 400, num_locations: int = 4) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    probabilities = generator.dirichlet(np.full(num_locations, 0.4), size)
    truth = np.array([generator.choice(num_locations, p=row) for row in probabilities])
    return truth, probabilities


def scored(truth: np.ndarray, probabilities: np.ndarray, **settings: int) -> dict:
    residues = np.full(len(truth), 100)
    return score(truth, probabilities, LOCATIONS, residues, **({"num_bootstraps": 200, "seed": 1} | settings))


@pytest.mark.parametrize("seed", range(5))
def test_figures_equal_those_of_scikit_learn(seed: int) -> None:
    truth, probabilities = answers(seed)
    answered = probabilities.argmax(axis=1)
    scores = scored(truth, probabilities)
    assert scores["accuracy"] == pytest.approx((truth == answered).mean())
    assert scores["macro_f1"] == pytest.approx(f1_score(truth, answered, average="macro"))
    assert scores["mcc"] == pytest.approx(matthews_corrcoef(truth, answered))
    assert scores["top2_accuracy"] == pytest.approx(top_k_accuracy_score(truth, probabilities, k=2))
    for number, name in enumerate(LOCATIONS):
        found = scores["per_class"][name]
        assert found["precision"] == pytest.approx(precision_score(truth == number, answered == number))
        assert found["recall"] == pytest.approx(recall_score(truth == number, answered == number))
        assert found["f1"] == pytest.approx(f1_score(truth == number, answered == number))
        assert found["support"] == (truth == number).sum()


def test_macro_f1_counts_only_locations_that_occur_in_the_truth() -> None:
    # true: 0 0 1, answered: 0 2 1. F1 of 0 is 2/3, of 1 is 1; 2 never occurs, 3 neither
    matrix = confusion(np.array([0, 0, 1]), np.array([0, 2, 1]), 4)
    assert figures(matrix)["macro_f1"] == pytest.approx((2 / 3 + 1) / 2)


def test_a_location_that_occurs_and_is_never_found_has_f1_0_and_no_precision() -> None:
    scores = scored(np.array([0, 0, 1]), np.eye(4)[[0, 0, 0]])
    golgi = scores["per_class"]["Cytoplasm"]
    assert (golgi["support"], golgi["recall"], golgi["f1"]) == (1, 0.0, 0.0)
    assert "precision" not in golgi


def test_a_location_that_does_not_occur_has_only_its_support_and_a_precision_if_it_was_answered() -> None:
    scores = scored(np.array([0, 0, 1]), np.eye(4)[[0, 2, 1]])
    assert scores["per_class"]["Golgi.apparatus"] == {"support": 0, "precision": 0.0}
    assert scores["per_class"]["Peroxisome"] == {"support": 0}


def test_mcc_of_a_model_that_always_answers_the_same_is_0() -> None:
    assert figures(confusion(np.array([0, 1, 1]), np.array([1, 1, 1]), 2))["mcc"] == 0.0


def test_confusion_has_true_locations_as_rows() -> None:
    assert confusion(np.array([0, 0, 1]), np.array([1, 1, 1]), 2).tolist() == [[0, 2], [0, 1]]


def test_calibration_error_by_hand() -> None:
    # bin (8/15, 9/15]: confidence 0.6 and 0.58, one right -> |1 - 1.18|; bin (14/15, 1]: 1.0, right -> 0
    error = calibration_error(np.array([0.6, 0.58, 1.0]), np.array([True, False, True]))
    assert error == pytest.approx(0.18 / 3)


def test_an_edge_of_a_bin_belongs_below() -> None:
    points = reliability(np.array([3 / 15, 3 / 15 + 1e-6]), np.array([True, False]))
    assert [(point["num_proteins"], point["accuracy"]) for point in points] == [(1, 1.0), (1, 0.0)]


def test_length_bins_hold_their_largest_length() -> None:
    truth, residues = np.zeros(6, int), np.array([128, 129, 510, 511, 1022, 1023])
    probabilities = np.eye(4)[[0, 1, 0, 0, 0, 1]]
    scores = score(truth, probabilities, LOCATIONS, residues, num_bootstraps=100, seed=1)["by_length"]
    assert {name: (bin_["num_proteins"], bin_["accuracy"]) for name, bin_ in scores.items()} == {
        "up_to_128": (1, 1.0),
        "129_to_256": (1, 0.0),
        "257_to_510": (1, 1.0),
        "511_to_1022": (2, 1.0),
        "above_1022": (1, 0.0),
    }


def test_of_equally_probable_locations_the_first_is_the_answer_and_the_next_the_second() -> None:
    probabilities = np.array([[0.4, 0.4, 0.1, 0.1]] * 4)
    assert ranks(np.arange(4), probabilities).tolist() == [0, 1, 2, 3]


def test_groups_are_scored_as_if_they_were_all_there_is() -> None:
    truth, probabilities = answers(size=90)
    inside = np.arange(90) < 60
    groups = {"some": inside, "none": np.zeros(90, bool), "others": ~inside}
    found = score_groups(truth, probabilities, groups, num_bootstraps=200, seed=1)
    assert list(found) == ["some", "others"]
    alone = scored(truth[inside], probabilities[inside])
    assert found["some"] == {name: alone[name] for name in found["some"]}
    assert set(found["some"]) == {"num_proteins", *found["some"]["intervals"], "intervals"}
    low, high = found["some"]["intervals"]["top2_accuracy"]
    assert low < found["some"]["top2_accuracy"] < high


def test_interval_of_accuracy_is_that_of_the_binomial_distribution() -> None:
    truth = np.zeros(2000, int)
    probabilities = np.eye(4)[[0] * 1200 + [1] * 800]
    low, high = scored(truth, probabilities, num_bootstraps=1000)["intervals"]["accuracy"]
    spread = 1.96 * math.sqrt(0.6 * 0.4 / 2000)
    assert low == pytest.approx(0.6 - spread, abs=0.003)
    assert high == pytest.approx(0.6 + spread, abs=0.003)


def test_intervals_equal_those_of_resampling_one_by_one_with_scikit_learn() -> None:
    truth, probabilities = answers(size=150)
    answered = probabilities.argmax(axis=1)
    draws = np.random.default_rng(7).integers(0, 150, (100, 150))
    slow = [matthews_corrcoef(truth[draw], answered[draw]) for draw in draws]
    fast = scored(truth, probabilities, num_bootstraps=100, seed=7)["intervals"]["mcc"]
    assert fast == pytest.approx(np.quantile(slow, (0.025, 0.975)))


def test_the_seed_decides_the_intervals() -> None:
    truth, probabilities = answers()
    assert scored(truth, probabilities, seed=1) == scored(truth, probabilities, seed=1)
    assert (
        scored(truth, probabilities, seed=1)["intervals"] != scored(truth, probabilities, seed=2)["intervals"]
    )


def test_all_figures_are_plain_numbers() -> None:
    truth, probabilities = answers()
    scores = scored(truth, probabilities)
    assert json.loads(json.dumps(scores, allow_nan=False)) == scores


def test_no_protein_has_no_figure() -> None:
    assert scored(np.zeros(0, int), np.zeros((0, 4))) == {"num_proteins": 0}


def test_answers_that_are_not_finite_have_no_figure() -> None:
    probabilities = np.eye(4)[[0, 1, 2]]
    probabilities[1, 3] = np.nan
    assert scored(np.array([0, 1, 2]), probabilities) == {"num_proteins": 3, "num_not_finite": 1}
