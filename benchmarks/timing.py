"""How ways of doing one thing are timed: in turns, many times, with a warm-up that does not count."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

WARM_UP = -1
"""Number of the repetition that is done first and dropped."""

Way = Callable[[int], float]
"""Does its work for a repetition (from 0; `WARM_UP` before) and returns the seconds that count."""


@dataclass(frozen=True)
class Samples:
    """Seconds of one way, one figure a repetition."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def least(self) -> float:
        return min(self.seconds)

    @property
    def spread(self) -> float:
        """Most less least seconds, as a share of the median."""
        return (max(self.seconds) - self.least) / self.median

    def as_json(self) -> dict[str, float]:
        return {
            "median_seconds": self.median,
            "least_seconds": self.least,
            "spread": self.spread,
            "repetitions": len(self.seconds),
        }


def in_turns(ways: Mapping[str, Way], repetitions: int) -> dict[str, Samples]:
    """Time all ways A B C, A B C ...: a machine that slows down for a while harms all of them alike."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        way(WARM_UP)
    for repetition in range(repetitions):
        for name, way in ways.items():
            seconds[name].append(way(repetition))
    return {name: Samples(tuple(found)) for name, found in seconds.items()}


def processor_time(work: Callable[[], object]) -> Way:
    """A way that does the same in every repetition; what counts is the processor time of all its threads."""

    def way(_: int) -> float:
        start = time.process_time()
        work()
        return time.process_time() - start

    return way
