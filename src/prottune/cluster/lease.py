"""A lock that all pods of a namespace see: a Lease of the API server, with one holder at a time.

A holder renews its Lease while it works. One that died is outwaited: a Lease that nobody has renewed for as
long as it says is free. That time is measured by the clock of the one who waits, so clocks need not agree.

Source: the same rule as client-go's leader election (k8s.io/client-go/tools/leaderelection).
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from uuid import uuid4

from prottune.cluster.connection import Cluster
from prottune.cluster.objects import LEASES, Object, annotations_of
from prottune.errors import ClusterError, ConfigError

LEASE_SECONDS = 60
"""A Lease that was not renewed for so long is free."""
PATIENCE_SECONDS = 1.5 * LEASE_SECONDS
"""Long enough to outwait a holder that died."""
_RENEW_SECONDS = LEASE_SECONDS / 3
_POLL_SECONDS = 2.0

_log = logging.getLogger(__name__)


class Lease:
    """A Lease that this program holds, and notes in it that the next holder finds if this one dies."""

    def __init__(self, cluster: Cluster, name: str, purpose: str) -> None:
        self._cluster, self._name = cluster, name
        self.holder = f"{purpose} ({socket.gethostname()}, {uuid4().hex[:8]})"
        self.notes: dict[str, str] = {}

    def take(self, patience_seconds: float) -> None:
        """Raises: ClusterError if somebody else holds it all that time."""
        deadline, seen, since = self._cluster.now() + patience_seconds, "", self._cluster.now()
        while True:
            silent_seconds = self._cluster.now() - since

            def taken(there: Object | None, seen: str = seen, silent: float = silent_seconds) -> Object:
                return self._taken(there, gone=_version(there) == seen and silent >= _seconds(there))

            found = self._cluster.settle(LEASES, self._name, taken)
            if _holder(found) == self.holder:
                self.notes = annotations_of(found or {})
                return
            if _version(found) != seen:
                seen, since = _version(found), self._cluster.now()
            if self._cluster.now() >= deadline:
                raise ClusterError(
                    f"lease {self._name} of namespace {self._cluster.namespace}: held by {_holder(found)}; "
                    "try again when that is done"
                )
            self._cluster.sleep(_POLL_SECONDS)

    def note(self, name: str, value: str) -> None:
        """Write a note that outlives this program.

        Raises: ClusterError if somebody else holds the lease by now.
        """

        def noted(there: Object | None) -> Object:
            content = self._own(there)
            content["metadata"]["annotations"] = annotations_of(content) | {name: value}
            return content

        self._cluster.settle(LEASES, self._name, noted)
        self.notes[name] = value

    def renew(self) -> None:
        """Raises: ClusterError if somebody else holds the lease by now."""
        self._cluster.settle(LEASES, self._name, lambda there: _renewed(self._own(there)))

    def release(self, *, forget: Collection[str] = ()) -> None:
        """Let the next one in at once, without these notes; a lease that was taken over is left alone."""

        def free(there: Object | None) -> Object | None:
            if there is None or _holder(there) != self.holder:
                return there
            del there["spec"]["holderIdentity"]
            kept = {name: value for name, value in annotations_of(there).items() if name not in forget}
            there["metadata"]["annotations"] = kept
            return there

        self._cluster.settle(LEASES, self._name, free)

    def _own(self, there: Object | None) -> Object:
        if there is None or _holder(there) != self.holder:
            raise ClusterError(f"lease {self._name}: {_holder(there)!r} holds it by now, not {self.holder!r}")
        return there

    def _taken(self, there: Object | None, *, gone: bool) -> Object:
        """The Lease with this holder, if nobody holds it or its holder is gone."""
        if there is None:
            metadata = {"name": self._name, "namespace": self._cluster.namespace}
            there = {"apiVersion": LEASES.api_version, "kind": LEASES.kind, "metadata": metadata, "spec": {}}
        elif _holder(there) and not gone:
            return there
        spec = there["spec"]
        spec |= {"holderIdentity": self.holder, "leaseDurationSeconds": LEASE_SECONDS, "acquireTime": _now()}
        spec["leaseTransitions"] = spec.get("leaseTransitions", -1) + 1
        return _renewed(there)


@contextmanager
def held(
    cluster: Cluster, name: str, purpose: str, patience_seconds: float = PATIENCE_SECONDS
) -> Iterator[Lease]:
    """Hold a Lease for the length of a `with` block, renewed by a thread of its own.

    Raises: ClusterError if somebody else holds it for `patience_seconds`.
    """
    lease = Lease(cluster, name, purpose)
    lease.take(patience_seconds)
    try:
        with renewed(lease):
            yield lease
    except BaseException:
        with suppress(ClusterError, ConfigError):  # the reason that ended the block is the one to tell
            lease.release()
        raise
    lease.release()


@contextmanager
def renewed(lease: Lease) -> Iterator[None]:
    """Renew a Lease that is held, again and again, for the length of a `with` block."""
    done = threading.Event()

    def work() -> None:
        while not done.wait(_RENEW_SECONDS):
            try:
                lease.renew()
            except (ClusterError, ConfigError) as error:
                _log.warning("%s", error)

    thread = threading.Thread(target=work, name="lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _holder(found: Object | None) -> str:
    return str((found or {}).get("spec", {}).get("holderIdentity") or "")


def _seconds(found: Object | None) -> float:
    return float((found or {}).get("spec", {}).get("leaseDurationSeconds") or LEASE_SECONDS)


def _version(found: Object | None) -> str:
    return str(found["metadata"]["resourceVersion"]) if found else ""


def _renewed(content: Object) -> Object:
    content["spec"]["renewTime"] = _now()
    return content


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
