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
    long as they bring the split nearer to its share of each location. A location in at least one free cluster
    is in train, and one in at least three (four when test is cut too) in every split, unless another location
    has too few clusters beside those that the two share.

    Raises: DataError if a split stays empty.
    """
    pool = list(given)
    if Split.TEST not in pool:
        sizes = _sizes(clusters, locations, pool)
        wanted = {Split.TEST: _targets(sizes, locations, test_share, min_clusters=4)}
        chosen = _choose(seed, sizes, wanted, kept=3)
        pool = [chosen.get(cluster, Split.TRAIN) for cluster in clusters]
    sizes = _sizes(clusters, locations, pool)
    training = [location for location, split in zip(locations, pool, strict=True) if split is Split.TRAIN]
    wanted = {
        Split.VALIDATION: _targets(sizes, training, validation_share, min_clusters=3),
        Split.GATE: _targets(sizes, training, gate_share, min_clusters=3),
    }
    chosen = _choose(seed, sizes, wanted, kept=1)
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


def _targets(sizes: Sizes, locations: Sequence[str], share: float, min_clusters: int) -> dict[str, int]:
    """Proteins wanted of each location; none of one that has too few free clusters to be everywhere."""
    num_clusters = Counter(location for cluster in sizes.values() for location in cluster)
    return {
        location: max(1, round(share * count)) if num_clusters[location] >= min_clusters else 0
        for location, count in Counter(locations).items()
    }


class _Choice:
    """Which free clusters leave train, and for which split.

    Of each location `kept` clusters stay, for train and the splits that are cut later.
    """

    def __init__(self, sizes: Sizes, wanted: Mapping[Split, Mapping[str, int]], kept: int) -> None:
        self.chosen: dict[str, Split] = {}
        self._sizes = sizes
        self._wanted = wanted
        self._left = {split: dict(targets) for split, targets in wanted.items()}
        self._num_free = Counter(location for cluster in sizes.values() for location in cluster)
        self._kept = kept

    def fill(self, order: Sequence[str]) -> None:
        """Take clusters as long as each brings the split that gains most by it nearer to what it wants."""
        for name in order:
            gains = {
                split: (_gain(self._sizes[name], left), sum(left.values()))
                for split, left in self._left.items()
            }
            split = max(gains, key=lambda split: gains[split])
            if gains[split][0] > 0 and self._is_spare(name, split):
                self._take(name, split)

    def complete(self, order: Sequence[str]) -> None:
        """Give each split its smallest cluster of every location it still has none of, the rarest first."""
        wishes = [
            (self._num_free[location], location, split)
            for split, targets in self._wanted.items()
            for location in targets
        ]
        for _, location, split in sorted(wishes):
            if not self._waits(split, location):
                continue
            spare = [
                name
                for name in order
                if name not in self.chosen and location in self._sizes[name] and self._is_spare(name, split)
            ]
            if spare:
                self._take(min(spare, key=lambda name: sum(self._sizes[name].values())), split)

    def _waits(self, split: Split, location: str) -> bool:
        """Whether a split wants proteins of a location and has none yet."""
        target = self._wanted[split].get(location, 0)
        return 0 < target == self._left[split][location]

    def _is_spare(self, name: str, split: Split) -> bool:
        """Whether each of its locations has enough clusters beside it: `kept`, and one a split that waits."""
        others = [other for other in self._wanted if other is not split]
        return all(
            self._num_free[location] > self._kept + sum(self._waits(other, location) for other in others)
            for location in self._sizes[name]
        )

    def _take(self, name: str, split: Split) -> None:
        self.chosen[name] = split
        self._num_free.subtract(self._sizes[name].keys())
        for location, count in self._sizes[name].items():
            self._left[split][location] = self._left[split].get(location, 0) - count


def _choose(
    seed: int, sizes: Sizes, wanted: Mapping[Split, Mapping[str, int]], kept: int
) -> dict[str, Split]:
    """The split of each cluster that leaves train; the others are not in the answer."""
    order = sorted(sizes, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())
    choice = _Choice(sizes, wanted, kept)
    choice.fill(order)
    choice.complete(order)
    return choice.chosen


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
