"""How far a protein lies from the training proteins, by values worked out otherwise."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import mahalanobis
from sklearn.covariance import ledoit_wolf

from prottune.model.likeness import (
    Likeness,
    fit_likeness,
    fit_unlike_above,
    read_likeness,
    shrunk_covariance,
)


def features(num_proteins=400, width=6, seed=0):
    """Correlated features around two centres, and the location of each protein."""
    generator = torch.Generator().manual_seed(seed)
    mixed_DD = torch.randn(width, width, generator=generator)
    labels_N = torch.arange(num_proteins) % 2
    features_ND = torch.randn(num_proteins, width, generator=generator) @ mixed_DD + 10 * labels_N[:, None]
    return features_ND, labels_N


@pytest.mark.parametrize("num_proteins", [5, 40, 2000])
def test_the_covariance_is_that_of_ledoit_and_wolf(num_proteins):
    features_ND, _ = features(num_proteins, width=12)
    deviations_ND = features_ND.double() - features_ND.double().mean(dim=0)
    expected_DD, _ = ledoit_wolf(deviations_ND.numpy(), assume_centered=True)
    np.testing.assert_allclose(shrunk_covariance(deviations_ND).numpy(), expected_DD, rtol=1e-9, atol=1e-12)


def test_the_distance_is_mahalanobis_to_the_nearest_centre():
    features_ND, labels_N = features()
    centres_CD = torch.stack([features_ND[labels_N == label].mean(dim=0) for label in (0, 1)]).numpy()
    deviations_ND = features_ND.numpy() - centres_CD[labels_N]
    inverse_DD = np.linalg.inv(ledoit_wolf(deviations_ND, assume_centered=True)[0])
    asked_BD = torch.cat([features_ND[:5], torch.full((1, 6), 100.0)])
    expected_B = [
        min(mahalanobis(row, centre, inverse_DD) for centre in centres_CD) / 6**0.5
        for row in asked_BD.numpy()
    ]
    found_B = fit_likeness(features_ND, labels_N).distance(asked_BD)
    assert found_B.tolist() == pytest.approx(expected_B, rel=1e-3)


def test_a_usual_training_protein_lies_at_about_one():
    features_ND, labels_N = features(2000)
    distance_N = fit_likeness(features_ND, labels_N).distance(features_ND)
    assert float((distance_N**2).mean()) == pytest.approx(1, abs=0.05)


def test_a_location_without_training_proteins_has_no_centre():
    features_ND, labels_N = features()
    assert fit_likeness(features_ND, labels_N * 7).centres_CD.shape == (2, 6)


@pytest.mark.parametrize("proteins", [torch.zeros(1, 64), torch.ones(30, 64), torch.randn(10, 64)])
def test_few_proteins_or_features_that_never_change_give_a_distance_too(proteins):
    likeness = fit_likeness(proteins, torch.arange(len(proteins)) % 2)
    at_home, abroad = likeness.distance(torch.stack([proteins[0], proteins[0] + 5])).tolist()
    assert np.isfinite([at_home, abroad]).all()
    assert abroad > 2 * at_home


def test_one_in_a_hundred_validation_proteins_is_unlike_training():
    distance_N = torch.arange(1000.0)
    assert (distance_N > fit_unlike_above(distance_N)).sum() == 10


def test_what_is_saved_loads_back_equal_and_a_folder_may_have_none(tmp_path):
    assert read_likeness(tmp_path) is None
    saved = fit_likeness(*features())
    saved.save(tmp_path)
    loaded = read_likeness(tmp_path)
    assert isinstance(loaded, Likeness)
    assert torch.equal(loaded.centres_CD, saved.centres_CD)
    assert torch.equal(loaded.whitening_DD, saved.whitening_DD)
