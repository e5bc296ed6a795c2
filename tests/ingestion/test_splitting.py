"""Whole clusters become validation, gate and test, near their shares in every location."""

import random
from collections import Counter, defaultdict

import pytest

from prottune.errors import DataError
from prottune.ingestion.splitting import cut_splits
from prottune.records import Split

LOCATIONS = ["Nucleus"] * 600 + ["Cytoplasm"] * 300 + ["Plastid"] * 90 + ["Peroxisome"] * 10


def cut(
    given: list[Split], clusters: list[str], locations: list[str] = LOCATIONS, seed: int = 43
) -> list[Split]:
    """Cut with the default shares."""
    return cut_splits(
        given, clusters, locations, test_share=0.2, validation_share=0.1, gate_share=0.1, seed=seed
    )


def random_clusters(seed: int) -> list[str]:
    """Clusters of one to nine proteins, some over several locations."""
    draw = random.Random(seed)
    return [f"c{draw.randrange(350)}" for _ in LOCATIONS]


def test_shares_are_met_in_every_location_when_each_protein_is_its_own_cluster() -> None:
    given = [Split.TEST if place % 5 == 0 else Split.TRAIN for place in range(1000)]
    splits = cut(given, [f"c{place}" for place in range(1000)])
    counts = Counter(zip(LOCATIONS, splits, strict=True))
    assert [counts[place, Split.VALIDATION] for place in dict.fromkeys(LOCATIONS)] == [48, 24, 7, 1]
    assert [counts[place, Split.GATE] for place in dict.fromkeys(LOCATIONS)] == [48, 24, 7, 1]
    assert [split is Split.TEST for split in splits] == [split is Split.TEST for split in given]


@pytest.mark.parametrize("seed", range(5))
def test_no_cluster_straddles_two_splits_and_given_test_clusters_stay_in_train(seed: int) -> None:
    clusters = random_clusters(seed)
    given = [Split.TEST if place % 29 == 0 else Split.TRAIN for place in range(1000)]
    splits = cut(given, clusters, seed=seed)
    found: defaultdict[str, set[Split]] = defaultdict(set)
    for cluster, split in zip(clusters, splits, strict=True):
        found[cluster].add(split)
    assert all(len(members) == 1 or members == {Split.TRAIN, Split.TEST} for members in found.values())
    assert [place for place, split in enumerate(splits) if split is Split.TEST] == list(range(0, 1000, 29))


@pytest.mark.parametrize("seed", range(5))
def test_test_is_cut_by_cluster_when_none_is_given(seed: int) -> None:
    clusters = random_clusters(seed)
    splits = cut([Split.TRAIN] * 1000, clusters, seed=seed)
    found: defaultdict[str, set[Split]] = defaultdict(set)
    for cluster, split in zip(clusters, splits, strict=True):
        found[cluster].add(split)
    assert all(len(members) == 1 for members in found.values())
    counts = Counter(splits)
    assert 170 <= counts[Split.TEST] <= 230
    assert 60 <= counts[Split.VALIDATION] <= 100
    assert 60 <= counts[Split.GATE] <= 100
    present = defaultdict(set)
    for place, split in zip(LOCATIONS, splits, strict=True):
        present[place].add(split)
    assert all(present[place] == set(Split) for place in LOCATIONS)


def test_a_location_with_too_few_clusters_stays_in_train() -> None:
    locations = ["Nucleus"] * 20 + ["Cytoplasm"] * 20 + ["Plastid"] * 8
    clusters = [f"c{place}" for place in range(40)] + ["p1"] * 4 + ["p2"] * 4
    given = [Split.TEST if place in {0, 20} else Split.TRAIN for place in range(48)]
    splits = cut(given, clusters, locations)
    assert splits[40:] == [Split.TRAIN] * 8


def test_a_location_in_large_clusters_is_present_all_the_same() -> None:
    locations = ["Nucleus"] * 40 + ["Plastid"] * 15
    clusters = [f"c{place}" for place in range(40)] + ["p1"] * 5 + ["p2"] * 5 + ["p3"] * 5
    given = [Split.TEST] + [Split.TRAIN] * 54
    splits = cut(given, clusters, locations)
    assert set(splits[40:]) == {Split.TRAIN, Split.VALIDATION, Split.GATE}


def test_the_cut_depends_on_the_seed_and_not_on_the_order() -> None:
    clusters = random_clusters(7)
    given = [Split.TRAIN] * 1000
    first = cut(given, clusters)
    assert cut(given, clusters) == first
    assert cut(given, clusters, seed=44) != first
    backwards = cut(given, clusters[::-1], LOCATIONS[::-1])
    assert backwards[::-1] == first


def test_too_few_clusters_are_refused_by_name() -> None:
    locations = ["Nucleus", "Nucleus", "Cytoplasm", "Cytoplasm"]
    message = (
        "no protein left for validation and gate: 4 proteins, 3 homology clusters without test proteins; "
        "expected locations with at least three such clusters each"
    )
    with pytest.raises(DataError) as refused:
        cut([Split.TEST, Split.TRAIN, Split.TRAIN, Split.TRAIN], ["a", "b", "c", "d"], locations)
    assert str(refused.value) == message
