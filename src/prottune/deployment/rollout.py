"""A rollout: one revision takes the place of another, and goes again if it does not prove itself.

A Lease is held meanwhile, so there is one rollout at a time, and what served before it is noted there. Who
comes after a rollout that died finds the note: what was there before is still what to go back to. The note
is no annotation of the InferenceService, because KServe would give it to the pods and start them all anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from prottune.cluster.connection import Cluster
from prottune.cluster.lease import PATIENCE_SECONDS, Lease, renewed
from prottune.cluster.objects import INFERENCE_SERVICES, LEASES, Object, annotations_of
from prottune.deployment.contract import MODEL_NAME
from prottune.deployment.revision import PREFIX, Revision, check_mode
from prottune.errors import ClusterError, ConfigError, DeploymentError

ROLLOUT_LEASE = "prottune-rollout"
STABLE_NOTE = f"{PREFIX}stable"
"""What served when the rollout began, as `Revision.text`; `null` if nothing did."""
_NOTES = (STABLE_NOTE,)


class Rollout:
    """One attempt to put a revision in the place of what serves."""

    def __init__(self, cluster: Cluster, revision: Revision) -> None:
        self._cluster, self.revision = cluster, revision
        self._lease = Lease(cluster, ROLLOUT_LEASE, f"the rollout of {revision}")
        self.stable: Revision | None = None
        """What to go back to; None if nothing served before."""
        self._is_settled = False
        """Whether the note may go: what is there has proved itself, or is what was there before."""

    def is_done(self) -> bool:
        """Whether the revision is there already and proved itself when it was put there."""
        service = self._cluster.get(INFERENCE_SERVICES, MODEL_NAME)
        if service is None or not self.revision.is_on(service):
            return False
        lease = self._cluster.get(LEASES, ROLLOUT_LEASE)
        return lease is None or STABLE_NOTE not in annotations_of(lease)

    @contextmanager
    def begun(self, patience_seconds: float = PATIENCE_SECONDS) -> Iterator[None]:
        """Put the revision there, and keep every other rollout out for the length of the block.

        The note of what served before goes when the block ends well or the rollout was undone. Otherwise it
        stays for whoever comes next.

        Raises: ClusterError if another rollout goes on; DeploymentError if somebody changes the endpoint
            without a rollout; ConfigError if it cannot be changed at all.
        """
        self._lease.take(patience_seconds)
        try:
            with renewed(self._lease):
                self._begin()
                yield
        except BaseException:
            with suppress(ClusterError, ConfigError):  # the reason that ended the block is the one to tell
                self._lease.release(forget=_NOTES if self._is_settled else ())
            raise
        self._lease.release(forget=_NOTES)

    def undo(self) -> bool:
        """Put back what served before, or take the endpoint away if nothing did; False if somebody else has
        put another revision there, which is left alone."""
        left_alone = False

        def before(service: Object | None) -> Object | None:
            nonlocal left_alone
            left_alone = service is not None and Revision.on(service).name not in self._own_names()
            if left_alone or service is None:
                return service
            if self.stable is None:
                return None
            return service if self.stable.is_on(service) else self.stable.put_on(service)

        self._cluster.settle(INFERENCE_SERVICES, MODEL_NAME, before)
        self._is_settled = True
        return not left_alone

    def _own_names(self) -> set[str]:
        return {self.revision.name} | ({self.stable.name} if self.stable else set())

    def _begin(self) -> None:
        """Note what serves, unless a rollout that died has noted what served, and put the revision there.

        Who is asked to end meanwhile cannot know what was written, and takes back whatever it was.
        """
        service = self._cluster.get(INFERENCE_SERVICES, MODEL_NAME)
        there = Revision.on(service) if service else None
        before = there.text if there else "null"
        is_first = STABLE_NOTE not in self._lease.notes
        self.stable = Revision.parse(before if is_first else self._lease.notes[STABLE_NOTE])
        try:
            if is_first:
                self._lease.note(STABLE_NOTE, before)
            self._replace(there.name if there else None)
        except (DeploymentError, ConfigError):  # nothing was written
            self._is_settled = is_first
            raise
        except (SystemExit, KeyboardInterrupt):
            self.undo()
            raise

    def _replace(self, seen: str | None) -> None:
        """Put the revision in the place of the one seen; whoever was quicker is left alone."""

        def after(service: Object | None) -> Object:
            there = Revision.on(service) if service else None
            name = there.name if there else None
            if service is not None and self.revision.is_on(service):
                return service
            if name not in (seen, self.revision.name):
                raise DeploymentError(
                    f"{self.revision} was not deployed: {there or 'nothing'} was put there meanwhile"
                )
            if service is not None:
                _check_changeable(service)
            return self.revision.put_on(service)

        self._cluster.settle(INFERENCE_SERVICES, MODEL_NAME, after)


def _check_changeable(service: Object) -> None:
    check_mode(service)
    if service["metadata"].get("deletionTimestamp"):
        raise DeploymentError(f"InferenceService {MODEL_NAME} is being deleted; deploy again when it is gone")
