"""A lock in the API server: one holder at a time, freed by who holds it or by silence."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from kubernetes import client
from small_cluster import SmallCluster, serving

from prottune.cluster import lease
from prottune.cluster.connection import Cluster
from prottune.cluster.lease import LEASE_SECONDS, Lease, held
from prottune.errors import ClusterError

LEASES = "leases.coordination.k8s.io"


class Clock:
    """Time that passes only when somebody waits."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds


@pytest.fixture
def server() -> Iterator[SmallCluster]:
    with serving(SmallCluster()) as running:
        yield running


def reaching(server: SmallCluster, clock: Any = None) -> Cluster:
    settings = client.Configuration(host=server.url)
    settings.retries = False
    times = {"now": clock.now, "sleep": clock.sleep} if clock else {}
    return Cluster(client.ApiClient(settings), "lab", read_seconds=5.0, **times)


def holder(server: SmallCluster) -> str:
    return str(server.get(LEASES, "lock")["spec"].get("holderIdentity", ""))


def test_a_lease_names_its_holder_and_is_free_again_after_the_block(server: SmallCluster) -> None:
    with held(reaching(server), "lock", "a promotion") as mine:
        content = server.get(LEASES, "lock")
        assert content["spec"]["holderIdentity"] == mine.holder
        assert mine.holder.startswith("a promotion (")
        assert content["spec"]["leaseDurationSeconds"] == LEASE_SECONDS
    assert holder(server) == ""
    with held(reaching(server), "lock", "another"):
        assert server.get(LEASES, "lock")["spec"]["leaseTransitions"] == 1


def test_it_is_free_again_when_the_block_fails(server: SmallCluster) -> None:
    with pytest.raises(ZeroDivisionError), held(reaching(server), "lock", "a promotion"):
        _ = 1 / 0
    assert holder(server) == ""


def test_who_renews_keeps_everybody_else_out(server: SmallCluster) -> None:
    mine = Lease(reaching(server), "lock", "mine")
    mine.take(0)
    clock = Clock()

    class Renewing(Clock):
        def sleep(self, seconds: float) -> None:
            clock.sleep(seconds)
            mine.renew()

    waiting = Renewing()
    waiting.now = clock.now  # type: ignore[method-assign]
    with pytest.raises(ClusterError, match=r"lease lock of namespace lab: held by mine \("):
        Lease(reaching(server, waiting), "lock", "other").take(2 * LEASE_SECONDS)
    assert clock.seconds >= 2 * LEASE_SECONDS
    assert holder(server) == mine.holder


def test_a_holder_that_died_is_outwaited_and_its_notes_are_found(server: SmallCluster) -> None:
    dead = Lease(reaching(server), "lock", "dead")
    dead.take(0)
    dead.note("prottune.dev/stable", "version 1")
    clock = Clock()
    heir = Lease(reaching(server, clock), "lock", "heir")
    heir.take(2 * LEASE_SECONDS)
    assert LEASE_SECONDS <= clock.seconds < LEASE_SECONDS + 5
    assert heir.notes == {"prottune.dev/stable": "version 1"}
    for late in (dead.renew, lambda: dead.note("a", "b")):
        with pytest.raises(ClusterError, match=r"'heir .* holds it by now, not 'dead "):
            late()
    dead.release()
    assert holder(server) == heir.holder, "what was taken over is not given away by who lost it"
    heir.release(forget=("prottune.dev/stable",))
    assert "annotations" not in server.get(LEASES, "lock")["metadata"]


@pytest.mark.parametrize("fault", ["lost", "cut", 409, 429, 500])
@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_a_call_that_fails_is_asked_again_and_there_is_one_holder(
    server: SmallCluster, fault: str | int, number: int
) -> None:
    server.faults = {number: fault}
    with held(reaching(server, Clock()), "lock", "mine") as mine:
        assert holder(server) == mine.holder
    assert holder(server) == ""


def test_racing_threads_hold_it_one_after_the_other(
    server: SmallCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "_POLL_SECONDS", 0.01)
    inside, most, done = 0, 0, []

    def work(number: int) -> None:
        nonlocal inside, most
        with held(reaching(server), "lock", f"thread {number}", patience_seconds=30):
            inside += 1
            most = max(most, inside)
            done.append(number)
            threading.Event().wait(0.01)
            inside -= 1

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most, sorted(done)) == (1, [0, 1, 2, 3])


def test_the_thread_of_a_long_block_renews_it(server: SmallCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "_RENEW_SECONDS", 0.01)
    renewed = threading.Event()
    server.after_write = lambda call, written: renewed.set() if len(server.writes) > 2 else None
    with held(reaching(server), "lock", "mine"):
        assert renewed.wait(20)
    assert holder(server) == ""
