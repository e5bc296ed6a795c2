"""Clusters -> splits: whole clusters go to validation, to the gate and, when none is marked, to test."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from prottune.errors import DataError
from prottune.records import Split

Sizes = Mapping[str, Mapping[str, int]]
"""Cluster -> location -> number of proteins."""


def cut_splits(
    given: Sequence[Split],
    clusters: Sequence[str],
    locations: Sequence[str],
    *,
    test_share: float,
    validation_share: float,
    gate_share: float,
    seed: int,
) -> list[Split]:
    """Give each protein its split; `given` holds TEST or TRAIN. Equal input gives equal splits.

    A given test stays as it is, and the clusters it touches give nothing to validation and gate: their
    other proteins train. Clusters are taken in an order that depends on `seed` and their names only, as
    long as they bring the split nearer to its share of each location. A location in at least three free
    clusters (four when test is cut too) is present in every split.

    Raises: DataError if a split stays empty.
    """
    pool = list(given)
    if Split.TEST not in pool:
        sizes = _sizes(clusters, locations, pool)
        wanted = {Split.TEST: _targets(sizes, locations, test_share, min_clusters=4)}
        chosen = _choose(_order(sizes, seed), sizes, wanted)
        pool = [chosen.get(cluster, Split.TRAIN) for cluster in clusters]
    sizes = _sizes(clusters, locations, pool)
    training = [location for location, split in zip(locations, pool, strict=True) if split is Split.TRAIN]
    wanted = {
        Split.VALIDATION: _targets(sizes, training, validation_share, min_clusters=3),
        Split.GATE: _targets(sizes, training, gate_share, min_clusters=3),
    }
    chosen = _choose(_order(sizes, seed), sizes, wanted)
    splits = [
        split if split is Split.TEST else chosen.get(cluster, Split.TRAIN)
        for split, cluster in zip(pool, clusters, strict=True)
    ]
    _refuse_empty(splits, len(sizes))
    return splits


def _sizes(clusters: Sequence[str], locations: Sequence[str], splits: Sequence[Split]) -> Sizes:
    """Free clusters only: those that hold no test protein."""
    sizes: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for cluster, location in zip(clusters, locations, strict=True):
        sizes[cluster][location] += 1
    for cluster, split in zip(clusters, splits, strict=True):
        if split is Split.TEST:
            sizes.pop(cluster, None)
    return sizes


def _order(sizes: Sizes, seed: int) -> list[str]:
    return sorted(sizes, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())


def _targets(sizes: Sizes, locations: Sequence[str], share: float, min_clusters: int) -> dict[str, int]:
    """Proteins wanted of each location; none of one that has too few free clusters to be everywhere."""
    num_clusters = Counter(location for cluster in sizes.values() for location in cluster)
    return {
        location: max(1, round(share * count)) if num_clusters[location] >= min_clusters else 0
        for location, count in Counter(locations).items()
    }


def _choose(
    order: Sequence[str], sizes: Sizes, wanted: Mapping[Split, Mapping[str, int]]
) -> dict[str, Split]:
    """Take clusters greedily towards what each split wants; the others are not in the answer."""
    left = {split: dict(targets) for split, targets in wanted.items()}
    chosen: dict[str, Split] = {}

    def take(name: str, split: Split) -> None:
        chosen[name] = split
        for location, count in sizes[name].items():
            left[split][location] = left[split].get(location, 0) - count

    for name in order:
        split = max(left, key=lambda split: (_gain(sizes[name], left[split]), sum(left[split].values())))
        if _gain(sizes[name], left[split]) > 0:
            take(name, split)
    for split, targets in wanted.items():
        for location in [location for location, target in targets.items() if target == left[split][location]]:
            others = [name for name in order if name not in chosen and location in sizes[name]]
            if targets[location] and len(others) > 1:
                take(min(others, key=lambda name: sum(sizes[name].values())), split)
    return chosen


def _gain(cluster: Mapping[str, int], left: Mapping[str, int]) -> int:
    """Proteins of a cluster that a split still wants, less those beyond what it wants."""
    return sum(count - 2 * max(0, count - max(0, left.get(place, 0))) for place, count in cluster.items())


def _refuse_empty(splits: Sequence[Split], num_free: int) -> None:
    counts = Counter(splits)
    if empty := [split.value for split in Split if not counts[split]]:
        raise DataError(
            f"no protein left for {' and '.join(empty)}: {len(splits)} proteins, {num_free} homology "
            "clusters without test proteins; expected locations with at least three such clusters each"
        )
