"""A TrainJob, followed to its end: what rank 0 says, why a pod does not start, what went wrong.

All by asking now and then. Nothing is watched, so there is nothing to expire, and an API server that is away
for a while costs only the time it is away: the nodes train on without it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

from prottune.cluster.connection import Cluster
from prottune.cluster.logs import LogFollower
from prottune.cluster.objects import PODS, TRAIN_JOBS, Object
from prottune.cluster.pods import ailment, is_hopeless, is_live, warnings
from prottune.errors import ClusterError, ConfigError, ProttuneError, ServiceError, TrainJobError
from prottune.training.settings import MOST_SECONDS
from prottune.training.trainjob import INDEX_LABEL, NODE, POD_LABEL, end_of, suspension_of

POLL_SECONDS = 5.0
HOPELESS_SECONDS = 600.0
"""So long Kubernetes may try in vain to start a pod: a registry may be back by then."""
AWAY_SECONDS = 1800.0
"""So long the API server may be away."""
EXPLAIN_SECONDS = 30.0
_LATE_SECONDS = 600.0
"""So long the cluster may take to end a TrainJob whose time is over."""
_LAST_LINES = 20

_log = logging.getLogger(__name__)


def pods_of(cluster: Cluster, name: str) -> list[Object]:
    """All pods of a TrainJob, node by node."""
    found = cluster.list(PODS, labels=f"{POD_LABEL}={name}")
    return sorted(found, key=lambda pod: (_index(pod), pod["metadata"].get("creationTimestamp", "")))


class Following:
    """One TrainJob, seen by the step that waits for it."""

    def __init__(
        self,
        cluster: Cluster,
        job: Object,
        say: Callable[[str], None],
        failure: Callable[[], Exception | None],
    ) -> None:
        """`say` gets each line of rank 0's log; `failure` tells what ended a process, if one has said so."""
        self._cluster, self._say, self._failure = cluster, say, failure
        self._name, self._uid = job["metadata"]["name"], job["metadata"]["uid"]
        self._lines = LogFollower(cluster, NODE)
        self._falls: set[tuple[str, int]] = set()
        """Pod and number of restarts of each end of a container that was not a good one."""
        self._told = ""
        self._last_answer = self._hopeless_since = cluster.now()
        self._tell_next = cluster.now() + EXPLAIN_SECONDS

    def until_complete(self) -> None:
        """Wait until all nodes are done.

        Raises: the ProttuneError of ours that ended a node, at once if trying again would end the same way;
            TrainJobError with the last words if the TrainJob failed, cannot start or is gone; ClusterError if
            the API server stays away.
        """
        deadline = self._cluster.now() + MOST_SECONDS + _LATE_SECONDS
        while self._cluster.now() < deadline:
            if (seen := self._look()) is not None:
                job, pods = seen
                self._listen(pods)
                how, why = end_of(job)
                if how == "Complete":
                    return
                if how == "Failed":
                    raise self._ended_by(why, pods)
                self._end_early(pods)
                self._explain(job, pods)
            self._cluster.sleep(POLL_SECONDS)
        raise TrainJobError(f"TrainJob {self._name} was not over after {MOST_SECONDS} s; given up")

    def _look(self) -> tuple[Object, list[Object]] | None:
        """The TrainJob and its pods; None if the API server does not answer for now."""
        try:
            job = self._cluster.get(TRAIN_JOBS, self._name)
            pods = pods_of(self._cluster, self._name) if job else []
        except ClusterError as error:
            if self._cluster.now() - self._last_answer > AWAY_SECONDS:
                raise
            _log.warning("%s; TrainJob %s goes on meanwhile", error, self._name)
            return None
        if job is None or job["metadata"]["uid"] != self._uid:
            raise TrainJobError(
                f"TrainJob {self._name} is gone: somebody has deleted it; start the step again"
            )
        self._last_answer = self._cluster.now()
        return job, pods

    def _listen(self, pods: list[Object]) -> None:
        """Pass on what rank 0 has said since; of several pods of node 0 the newest is heard."""
        if leading := [pod for pod in pods if _index(pod) == 0 and not _is_pending(pod)]:
            for line in self._lines.read(leading[-1]["metadata"]["name"]):
                self._say(line)

    def _end_early(self, pods: list[Object]) -> None:
        """Do not let the cluster try again what can only end the same way."""
        if falls := set(_falls(pods)) - self._falls:
            self._falls |= falls
            _log.warning("a node has failed: %s", self._ailment(_pod_named(pods, min(falls)[0])))
            failure = self._word()
            if isinstance(failure, ProttuneError) and not isinstance(failure, ServiceError):
                self._tell_last_words(pods)
                raise failure
        hopeless = [pod for pod in pods if is_live(pod) and is_hopeless(pod)]
        if not hopeless:
            self._hopeless_since = self._cluster.now()
        elif self._cluster.now() - self._hopeless_since > HOPELESS_SECONDS:
            raise TrainJobError(
                f"TrainJob {self._name} cannot start: {self._ailment(hopeless[0])}; tried for "
                f"{HOPELESS_SECONDS:.0f} s"
            )

    def _explain(self, job: Object, pods: list[Object]) -> None:
        """Say why a pod does not start, again only if the reason is another."""
        if self._cluster.now() < self._tell_next:
            return
        self._tell_next = self._cluster.now() + EXPLAIN_SECONDS
        live = [pod for pod in pods if is_live(pod)]
        waiting = [pod for pod in live if _is_pending(pod)]
        told = suspension_of(job)
        if not told and waiting:
            told = self._ailment(waiting[0])
        elif not told and not pods:
            told = self._why_no_pods()
        if told and told != self._told:
            _log.info("TrainJob %s waits: %s", self._name, told)
        self._told = told

    def _why_no_pods(self) -> str:
        """What Kubernetes says of the TrainJob, its JobSet or its Job: a quota, a webhook."""
        found = (warnings(self._cluster, kind, self._name) for kind in ("TrainJob", "JobSet", "Job"))
        try:
            return next(filter(None, found), "no pod was made yet; is Kubeflow Trainer's controller running?")
        except (ClusterError, ConfigError) as error:  # asked for to explain, not to fail
            return str(error)

    def _ailment(self, pod: Object) -> str:
        try:
            return ailment(self._cluster, pod)
        except (ClusterError, ConfigError) as error:  # asked for to explain, not to fail
            return f"pod {pod['metadata']['name']}: {error}"

    def _ended_by(self, why: str, pods: list[Object]) -> Exception:
        """The error that a failed TrainJob means."""
        self._tell_last_words(pods)
        failure = self._word()
        if isinstance(failure, ProttuneError):
            return failure
        told = [self._ailment(_pod_named(pods, name)) for name, _ in sorted(_falls(pods))[:1]]
        if failure is not None:
            told.append(str(failure).strip().splitlines()[-1])
        return TrainJobError("; ".join([f"TrainJob {self._name} failed ({why})", *told]))

    def _word(self) -> Exception | None:
        try:
            return self._failure()
        except ProttuneError as error:  # asked for to explain a failure, not to make another
            _log.warning("what ended the nodes cannot be read: %s", error)
            return None

    def _tell_last_words(self, pods: list[Object]) -> None:
        for pod in pods:
            name = pod["metadata"]["name"]
            text = self._cluster.log(name, NODE, lines=_LAST_LINES)
            _log.error("last words of node %d (%s):\n%s", _index(pod), name, text.strip() or "none")


def _index(pod: Object) -> int:
    return int(pod["metadata"].get("labels", {}).get(INDEX_LABEL, 0))


def _is_pending(pod: Object) -> bool:
    return bool(pod.get("status", {}).get("phase", "Pending") == "Pending")


def _falls(pods: list[Object]) -> Iterator[tuple[str, int]]:
    for pod in pods:
        for status in pod.get("status", {}).get("containerStatuses") or []:
            over = [status.get(state, {}).get("terminated") or {} for state in ("state", "lastState")]
            if any(each.get("exitCode") for each in over):
                yield pod["metadata"]["name"], int(status.get("restartCount", 0))


def _pod_named(pods: list[Object], name: str) -> Object:
    return next(pod for pod in pods if pod["metadata"]["name"] == name)
