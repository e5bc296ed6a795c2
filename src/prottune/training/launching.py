"""Training over several nodes, seen from the step: a TrainJob is made, followed, and taken away again.

Its name comes from the pipeline run, so a step that is started again finds the one that goes on and follows
that. It is taken away however the step ends: by the step, else with the step's pod, which owns it, else it
ends by its own deadline.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prottune.artifacts import check_vacant
from prottune.cluster.connection import Cluster, connect, in_cluster
from prottune.cluster.objects import TRAIN_JOBS, TRAINING_RUNTIMES, Object
from prottune.cluster.own_pod import own_pod
from prottune.errors import ClusterError, ConfigError, ProttuneError
from prottune.tracking.step import pipeline_run
from prottune.training.following import POLL_SECONDS, Following, pods_of
from prottune.training.history import HISTORY_FILE, Receiver
from prottune.training.order import POINT_MARK, Order
from prottune.training.settings import TrainReport
from prottune.training.trainjob import RUNTIME, end_of, is_same_training, job_name, train_job
from prottune.unwinding import sigterm_unwinds

_GONE_SECONDS = 300.0
"""So long the pods of an earlier TrainJob of this run may take to end: they keep their last step first."""

_log = logging.getLogger(__name__)


def train_on_nodes(
    order: Order, tokens: Path, model: Path, on_point: Receiver | None, cluster: Cluster | None = None
) -> TrainReport:
    """Have the nodes of a cluster train, hand on each point, and bring the model into its folder.

    Raises: what ended a node; TrainJobError if the TrainJob fails without a word of ours, cannot start or is
        gone; ClusterError if the API server stays away; ConfigError if it refuses, or has no TrainingRuntime;
        StorageError when the store refuses or vanishes; ArtifactError if the model is damaged.
    """
    check_vacant(model)
    cluster = cluster or connect()
    wanted = _wanted(cluster, order)
    points = _Points(on_point)
    with sigterm_unwinds(), _taken_away(cluster, wanted):
        job = _placed(cluster, wanted, order, tokens)
        Following(cluster, job, points.hear, order.failure).until_complete()
        report = order.collect(model)
    points.catch_up(model / HISTORY_FILE)
    try:
        order.clear()
    except ProttuneError as error:  # the model is here; what is left only takes room
        _log.warning("%s; it may be removed by hand", error)
    return report


def take_away_what_is_left(cluster: Cluster | None = None) -> None:
    """The run has ended: delete its TrainJob, if the train step was killed before it could do so itself.

    A cluster that does not answer, or lets us not look, is told of; what is left then is the job's deadline.
    """
    run = pipeline_run()
    if cluster is None and not (run and in_cluster()):
        return
    try:
        (cluster or connect()).settle(TRAIN_JOBS, job_name(run, ""), lambda _: None)
    except (ClusterError, ConfigError) as error:
        _log.warning("%s; a TrainJob of this run may go on until its deadline", error)


class _Points:
    """What rank 0 says: points go to who asked for them, everything else into this step's log."""

    def __init__(self, on_point: Receiver | None) -> None:
        self._on_point = on_point
        self._handed_on: set[str] = set()

    def hear(self, line: str) -> None:
        if line.startswith(POINT_MARK):
            self._hand_on(line.removeprefix(POINT_MARK))
        else:
            _log.info("node 0: %s", line)

    def catch_up(self, history: Path) -> None:
        """Hand on the points that no log has told: a log may be gone with its pod."""
        for line in history.read_text(encoding="utf-8").splitlines():
            if line not in self._handed_on:
                self._hand_on(line)

    def _hand_on(self, line: str) -> None:
        try:
            point = json.loads(line)
        except ValueError:  # two processes wrote at once; the history has it whole
            return
        self._handed_on.add(line)
        if self._on_point is not None:
            self._on_point(point)


def _wanted(cluster: Cluster, order: Order) -> Object:
    runtime = cluster.get(TRAINING_RUNTIMES, RUNTIME)
    if runtime is None:
        raise ConfigError(
            f"num_nodes={order.config.num_nodes}: no TrainingRuntime {RUNTIME!r} in namespace "
            f"{cluster.namespace!r}; install Kubeflow Trainer 2.2 or newer and apply manifests/"
        )
    return train_job(job_name(pipeline_run(), order.checkpoints), order, runtime, own_pod(cluster))


def _placed(cluster: Cluster, wanted: Object, order: Order, tokens: Path) -> Object:
    """The TrainJob that does what is wanted: the one of an earlier try of this step, else a new one."""
    name = wanted["metadata"]["name"]
    there = cluster.get(TRAIN_JOBS, name)
    if there is not None and _is_useful(there, wanted):
        there = cluster.settle(TRAIN_JOBS, name, lambda found: _adopted(found, wanted))
        if there is not None:
            _log.info("TrainJob %s: goes on, an earlier try of this step has started it", name)
            return there
    _cleared(cluster, wanted)
    order.place(tokens)

    def created(found: Object | None) -> Object:
        if found is None:
            return wanted
        if not is_same_training(found, wanted):
            raise ClusterError(f"TrainJob {name} was made by somebody else meanwhile; start the step again")
        return found

    made = cluster.settle(TRAIN_JOBS, name, created)
    assert made is not None, "it was just made"
    config = order.config
    _log.info(
        "TrainJob %s: %d nodes, each with %d processes and %d GPUs",
        *(name, config.num_nodes, config.num_processes, config.node_gpus),
    )
    return made


def _is_useful(found: Object, wanted: Object) -> bool:
    """Whether a TrainJob may be followed instead of making a new one."""
    is_leaving = bool(found["metadata"].get("deletionTimestamp"))
    return not is_leaving and end_of(found)[0] != "Failed" and is_same_training(found, wanted)


def _adopted(found: Object | None, wanted: Object) -> Object | None:
    """The same TrainJob, owned by this pod from now on: the pod that made it may be collected any time."""
    if found is not None and (owners := wanted["metadata"].get("ownerReferences")):
        found["metadata"]["ownerReferences"] = owners
    return found


def _cleared(cluster: Cluster, wanted: Object) -> None:
    """Delete a TrainJob of that name that is of no use, and wait until it and its pods are gone.

    Pods of the old one would have the names that those of the new one find each other by.
    """
    name, deadline = wanted["metadata"]["name"], cluster.now() + _GONE_SECONDS
    cluster.settle(TRAIN_JOBS, name, lambda found: None)
    while cluster.get(TRAIN_JOBS, name) is not None or pods_of(cluster, name):
        if cluster.now() >= deadline:
            raise ClusterError(f"TrainJob {name}: the one before is not gone after {_GONE_SECONDS:.0f} s")
        cluster.sleep(POLL_SECONDS)


@contextmanager
def _taken_away(cluster: Cluster, wanted: Object) -> Iterator[None]:
    """Delete the TrainJob when the block ends, however it ends, unless another try has adopted it."""
    name, owners = wanted["metadata"]["name"], wanted["metadata"].get("ownerReferences")

    def without(found: Object | None) -> Object | None:
        is_own = found is not None and found["metadata"].get("ownerReferences") == owners
        return None if is_own else found

    try:
        yield
    finally:
        try:
            cluster.settle(TRAIN_JOBS, name, without)
        except (ClusterError, ConfigError) as error:
            _log.warning("%s; TrainJob %s stays until its deadline, or until this pod is gone", error, name)
