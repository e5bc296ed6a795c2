import math

import pytest
import torch
from torch.nn import functional

from prottune.alphabet import encode
from prottune.model.calibration import (
    NOBODY,
    calibrated_loss,
    energy,
    fit_confident_above,
    fit_energy_below,
    fit_temperature,
    fold_temperature,
)
from prottune.model.packed import PackedBatch
from tests.model.small_models import random_sequence, small_model


def calibrated(num_proteins=4000, num_locations=5, seed=0):
    """Logits and labels drawn from their own probabilities: the right temperature is 1."""
    generator = torch.Generator().manual_seed(seed)
    logits_NC = 2 * torch.randn(num_proteins, num_locations, generator=generator)
    labels_N = torch.multinomial(logits_NC.softmax(dim=1), 1, generator=generator)[:, 0]
    return logits_NC, labels_N


def calibration_error(logits_NC, labels_N, num_bins=15):
    probability_N, answer_N = logits_NC.softmax(dim=1).max(dim=1)
    bin_N = (probability_N * num_bins).long().clamp(max=num_bins - 1)
    is_right_N = (answer_N == labels_N).float()
    gaps = [
        abs(is_right_N[bin_N == b].mean() - probability_N[bin_N == b].mean()) * (bin_N == b).float().mean()
        for b in bin_N.unique()
    ]
    return float(sum(gaps))


@pytest.mark.parametrize("factor", [0.25, 1.0, 3.0, 8.0])
def test_the_temperature_undoes_a_factor_on_calibrated_logits(factor):
    logits_NC, labels_N = calibrated()
    assert fit_temperature(factor * logits_NC, labels_N) == pytest.approx(factor, rel=0.06)


def test_calibration_improves_what_it_was_not_fitted_on_and_changes_no_answer():
    logits_NC, labels_N = calibrated()
    logits_NC = 4 * logits_NC
    fitted, held_out = slice(0, 2000), slice(2000, 4000)
    temperature = fit_temperature(logits_NC[fitted], labels_N[fitted])
    before, after = logits_NC[held_out], logits_NC[held_out] / temperature
    assert functional.cross_entropy(after, labels_N[held_out]) < functional.cross_entropy(
        before, labels_N[held_out]
    )
    assert calibration_error(after, labels_N[held_out]) < 0.05 < calibration_error(before, labels_N[held_out])
    assert torch.equal(before.argmax(dim=1), after.argmax(dim=1))


def test_the_fitted_temperature_is_never_worse_than_none():
    for seed in range(5):
        logits_NC, labels_N = calibrated(num_proteins=20, seed=seed)
        temperature = fit_temperature(logits_NC, labels_N)
        fitted = functional.cross_entropy(logits_NC.double() / temperature, labels_N)
        assert fitted <= functional.cross_entropy(logits_NC.double(), labels_N)


def test_a_folded_temperature_divides_the_logits(head):
    model = small_model(head)
    batch = PackedBatch.from_ids([encode([random_sequence(n)])[0] for n in (5, 50)])
    before_BC = model(batch)
    fold_temperature(model.classifier, 2.5)
    torch.testing.assert_close(model(batch), before_BC / 2.5, rtol=0, atol=1e-5)


def test_energy_is_low_for_what_the_model_recognises():
    energies = energy(torch.tensor([[0.0, 0.0], [10.0, 0.0]]))
    assert energies.tolist() == pytest.approx([-math.log(2), -10.0000454])


def test_one_in_a_hundred_validation_proteins_is_unlike_training():
    logits_NC = torch.tensor([[float(i), -1e9] for i in range(1000)])
    energy_below = fit_energy_below(logits_NC)
    assert (energy(logits_NC) > energy_below).sum() == 10


def answers(probabilities, is_right):
    """Two-location logits whose answers have these probabilities and are right or wrong as told."""
    logits_NC = torch.tensor([[math.log(p / (1 - p)), 0.0] for p in probabilities], dtype=torch.float64)
    return logits_NC, torch.tensor([0 if right else 1 for right in is_right])


def test_confidence_starts_where_nine_of_ten_answers_are_right():
    probabilities = [0.95 - 0.001 * i for i in range(40)]
    logits_NC, labels_N = answers(probabilities, [True] * 27 + [False] * 13)
    # The first 27 and 3 wrong ones make 30 answers of which 27 are right: 0.9.
    assert fit_confident_above(logits_NC, labels_N, 0.9) == pytest.approx(probabilities[29])


def test_who_wants_more_right_answers_gets_a_higher_threshold():
    probabilities = [0.95 - 0.001 * i for i in range(40)]
    logits_NC, labels_N = answers(probabilities, [True] * 27 + [False] * 13)
    assert fit_confident_above(logits_NC, labels_N, 1.0) == pytest.approx(probabilities[26])
    assert fit_confident_above(logits_NC, labels_N, 0.675) == pytest.approx(probabilities[39])


def test_answers_of_one_probability_are_confident_together_or_not_at_all():
    logits_NC, labels_N = answers([0.9] * 30 + [0.8] * 30, [True] * 30 + [True] * 20 + [False] * 10)
    assert fit_confident_above(logits_NC, labels_N, 0.9) == pytest.approx(0.9)


def test_a_model_that_is_never_right_often_enough_is_never_confident():
    logits_NC, labels_N = answers([0.9] * 50, [True, False] * 25)
    assert fit_confident_above(logits_NC, labels_N, 0.9) == NOBODY


def test_a_few_right_answers_are_no_ground_for_confidence():
    logits_NC, labels_N = answers([0.99] * 19 + [0.6] * 100, [True] * 19 + [False] * 100)
    assert fit_confident_above(logits_NC, labels_N, 0.9) == NOBODY


def test_calibrated_loss_does_not_see_overconfidence():
    logits_NC, labels_N = calibrated()
    plain = float(functional.cross_entropy(logits_NC, labels_N))
    assert calibrated_loss(logits_NC * 3, labels_N) == pytest.approx(plain, rel=1e-3)
    assert float(functional.cross_entropy(logits_NC * 3, labels_N)) > 1.5 * plain


def test_calibrated_loss_sees_right_answers_that_are_unsure():
    logits_NC, labels_N = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 1])
    assert calibrated_loss(logits_NC, labels_N) == pytest.approx(math.log1p(math.exp(-1)))
