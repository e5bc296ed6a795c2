"""A log that is followed: each line once, whatever happens between two questions."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from kubernetes import client
from small_cluster import SmallCluster, serving

from prottune.cluster.connection import Cluster
from prottune.cluster.logs import LogFollower


@pytest.fixture
def small() -> Iterator[SmallCluster]:
    with serving(SmallCluster()) as running:
        for name in ("a", "b"):
            running.put("pods", {"metadata": {"name": name}})
        yield running


@pytest.fixture
def follower(small: SmallCluster) -> LogFollower:
    settings = client.Configuration(host=small.url)
    settings.retries = False
    return LogFollower(Cluster(client.ApiClient(settings), "lab"), "node")


def test_each_line_is_read_once_though_seconds_and_times_are_shared(
    small: SmallCluster, follower: LogFollower
) -> None:
    heard: list[str] = []
    for number in range(200):  # three lines in a second, two of them at the same time
        small.logs["a", "node"] = small.logs.get(("a", "node"), "") + f"line {number}\n"
        if number % 5 in (0, 1, 4):
            heard += follower.read("a")
    assert heard == [f"line {number}" for number in range(200)]
    assert follower.read("a") == []


def test_a_call_that_fails_costs_no_line(small: SmallCluster, follower: LogFollower) -> None:
    assert follower.read("a") == [], "it has not started"
    small.logs["a", "node"] = "one\n\ntwo  words\n"
    small.faults[2] = 500
    assert follower.read("a") == []
    assert follower.read("a") == ["one", "", "two  words"]


def test_another_pod_is_heard_from_its_beginning(small: SmallCluster, follower: LogFollower) -> None:
    small.logs["a", "node"] = small.logs["b", "node"] = "one\n"
    assert follower.read("a") == ["one"]
    assert follower.read("b") == ["one"]
