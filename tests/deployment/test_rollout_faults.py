"""Rollouts in which a call fails, or the deploying process dies: whichever call, the end is right."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from half_real_cluster import ONLY_SMALL
from kubernetes import client
from small_cluster import Call
from small_kserve import CLUSTER_CONFIG as CONFIG
from small_kserve import LEASES, NAME, SERVICES, SmallKServe, connected, deployed, free, spec_of

from prottune.cluster.objects import annotations_of
from prottune.deployment.kserve import KServeDeployment
from prottune.deployment.rollout import ROLLOUT_LEASE
from prottune.errors import DeploymentError


class Killed(BaseException):
    """The deploying process is gone."""


def mortal(last_call: int, *, after: bool) -> type[client.ApiClient]:
    """A client whose process dies with a call, before or after the server has done what was asked."""

    class Mortal(client.ApiClient):
        num_calls = 0

        def call_api(self, *args: Any, **kwargs: Any) -> Any:
            self.num_calls += 1
            if self.num_calls == last_call and after:
                super().call_api(*args, **kwargs)
            if self.num_calls >= last_call:
                raise Killed
            return super().call_api(*args, **kwargs)

    return Mortal


def interrupted(number: int, *, after: bool) -> type[client.ApiClient]:
    """A client whose process is asked to end at one call, before or after the server has done it."""

    class Interrupted(client.ApiClient):
        num_calls = 0

        def call_api(self, *args: Any, **kwargs: Any) -> Any:
            self.num_calls += 1
            answer = None if self.num_calls == number and not after else super().call_api(*args, **kwargs)
            if self.num_calls == number:
                raise SystemExit(143)
            return answer

    return Interrupted


FAULTS: tuple[str | int, ...] = ("cut", "lost", "timeout", 409, 410, 429, 500)


def attempt(kserve: SmallKServe, folder: Path, *, bad: bool) -> None:
    """One more deployment, which ends as it should whatever fails on the way."""
    if bad:
        with pytest.raises(DeploymentError, match="version 1 serves again"):
            deployed(kserve, folder, "2")
    else:
        deployed(kserve, folder, "2")


def ended_well(kserve: SmallKServe, *, bad: bool, before: Any) -> None:
    version = kserve.cluster.get(SERVICES, NAME)["metadata"]["annotations"]["prottune.dev/model-version"]
    assert (kserve.serving, version) == (("1", "1") if bad else ("2", "2"))
    assert (spec_of(kserve) == before) == bad
    assert free(kserve)


def start(kserve: SmallKServe, folder: Path, *, bad: bool) -> tuple[Any, ...]:
    """Version 1 serves; version 2 will turn out good or bad. Returns that state."""
    deployed(kserve, folder, "1")
    kserve.fate = {"2": "wrong"} if bad else {}
    kserve.cluster.calls.clear()
    return kserve.snapshot()


def fail_each_call(
    kserve: SmallKServe, folder: Path, fault_of: Callable[[int], str | int], *, bad: bool
) -> int:
    """Deploy version 2 as often as that takes calls, and let one call after the other fail."""
    begin = start(kserve, folder, bad=bad)
    before = spec_of(kserve)
    attempt(kserve, folder, bad=bad)
    num_calls = len(kserve.cluster.calls)
    for number in range(1, num_calls + 1):
        kserve.restore(begin)
        kserve.cluster.faults = {number: fault_of(number)}
        attempt(kserve, folder, bad=bad)
        assert len(kserve.cluster.calls) > num_calls, "a call failed, so it was asked again"
        ended_well(kserve, bad=bad, before=before)
    return num_calls


def die_at_each_call(kserve: SmallKServe, folder: Path, *, bad: bool, after: bool) -> None:
    """Let the deploying process die at one call after the other, and deploy once more."""
    begin = start(kserve, folder, bad=bad)
    before = spec_of(kserve)
    attempt(kserve, folder, bad=bad)
    for number in range(1, len(kserve.cluster.calls) + 1):
        kserve.restore(begin)
        dying = connected(kserve, mortal(number, after=after))
        with pytest.raises(Killed):
            deployed(kserve, folder, "2", cluster=dying)
        attempt(kserve, folder, bad=bad)
        ended_well(kserve, bad=bad, before=before)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_whichever_call_a_deployment_is_ended_at_what_served_before_is_there(
    kserve: SmallKServe, folder: Path, models: str, after: bool
) -> None:
    begin = start(kserve, folder, bad=False)
    before = spec_of(kserve)
    attempt(kserve, folder, bad=False)
    written = [(call.resource, call.verb) for call in kserve.cluster.calls].index((SERVICES, "update"))
    for number in range(1, written + 3):
        kserve.restore(begin)
        with pytest.raises(SystemExit):
            deployed(kserve, folder, "2", cluster=connected(kserve, interrupted(number, after=after)))
        notes = annotations_of(kserve.cluster.get(LEASES, ROLLOUT_LEASE))
        assert (spec_of(kserve), notes) == (before, {}), f"ended at call {number}"


@pytest.mark.parametrize("bad", [False, True], ids=["good", "bad"])
def test_whichever_call_fails_the_end_is_right(
    kserve: SmallKServe, folder: Path, models: str, bad: bool
) -> None:
    """A fault for each call in turn; every fault at every call is in the integration tests below."""
    quick = [fault for fault in FAULTS if fault != "timeout"]
    num_calls = fail_each_call(kserve, folder, lambda number: quick[number % len(quick)], bad=bad)
    assert num_calls == (16 if bad else 12)


@pytest.mark.integration
@ONLY_SMALL
@pytest.mark.parametrize("bad", [False, True], ids=["good", "bad"])
@pytest.mark.parametrize("fault", FAULTS)
def test_whichever_fault_meets_whichever_call_the_end_is_right(
    kserve: SmallKServe, folder: Path, models: str, fault: str | int, bad: bool
) -> None:
    assert fail_each_call(kserve, folder, lambda number: fault, bad=bad) > 10


@pytest.mark.integration
@pytest.mark.parametrize("bad", [False, True], ids=["good", "bad"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_deployment_that_dies_at_any_call_is_finished_by_the_next(
    kserve: SmallKServe, folder: Path, models: str, bad: bool, after: bool
) -> None:
    die_at_each_call(kserve, folder, bad=bad, after=after)


def test_after_a_rollout_that_died_another_version_still_goes_back_to_the_one_that_was_proven(
    kserve: SmallKServe, folder: Path, models: str
) -> None:
    start(kserve, folder, bad=True)
    before = spec_of(kserve)
    place = KServeDeployment(connected(kserve, mortal(9, after=False)))
    with pytest.raises(Killed), place.endpoint(folder, "s3://models/2", CONFIG, "2"):
        pass
    assert kserve.serving == "2", "nobody was there to look at it"
    kserve.fate["3"] = "wrong"
    with pytest.raises(DeploymentError, match="version 1 serves again"):
        deployed(kserve, folder, "3")
    assert spec_of(kserve) == before


def test_an_api_server_that_stays_away_is_a_service_error_and_the_next_attempt_goes_on(
    kserve: SmallKServe, folder: Path, models: str
) -> None:
    start(kserve, folder, bad=False)

    def away(call: Call, written: Any) -> None:
        kserve.reconcile(call, written)
        kserve.cluster.down = call.resource == SERVICES

    kserve.cluster.after_write = away
    try:
        with pytest.raises(
            DeploymentError, match=r"given up after 120 s.*it is still there.*goes on from here"
        ):
            deployed(kserve, folder, "2")
    finally:
        kserve.cluster.after_write = kserve.reconcile
    kserve.cluster.down = False
    attempt(kserve, folder, bad=False)
    assert (kserve.serving, free(kserve)) == ("2", True)
