"""A training step whose nodes are a TrainJob's: how it starts, waits, ends, and what it leaves behind."""

from __future__ import annotations

import json
import logging
import os
import signal
import ssl
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from crd_schemas import schema_of
from half_real_cluster import KINDS, ONLY_SMALL, cluster_of
from kubernetes import client
from small_store import Store
from small_trainer import (
    JOBS,
    NAME,
    POINTS,
    REPORT,
    RIGHTS,
    RUN,
    RUNTIMES,
    STEP_POD,
    SmallTrainer,
    connected,
    good_course,
    step_pod,
    told_point,
)

from prottune.artifacts import read_manifest
from prottune.cluster.connection import Cluster
from prottune.errors import (
    ArtifactError,
    ClusterError,
    ConfigError,
    DivergedError,
    HungError,
    TrainJobError,
)
from prottune.training.launching import take_away_what_is_left, train_on_nodes
from prottune.training.order import Order
from prottune.training.settings import TrainConfig, TrainReport

CONFIG = TrainConfig(base_model="tiny", num_nodes=2, num_processes=1)
PLACE = f"s3://bucket/{RUN}"


@pytest.fixture(scope="module", params=KINDS)
def running(request: pytest.FixtureRequest) -> Iterator[SmallTrainer]:
    with cluster_of(request) as cluster:
        trainer = SmallTrainer(cluster)
        cluster.after_write = trainer.reconcile
        yield trainer


@pytest.fixture
def trainer(running: SmallTrainer, store: Store, monkeypatch: pytest.MonkeyPatch) -> SmallTrainer:
    """A cluster in which nothing was ever trained, and a step of a pipeline run in it. Certificates, of which
    none is needed, are read once and not for every client."""
    monkeypatch.setattr(ssl, "create_default_context", _context)
    running.begin()
    running.cluster.schemas = {JOBS: schema_of(JOBS)}
    monkeypatch.setenv("KFP_POD_NAME", STEP_POD)
    monkeypatch.setenv("PROTTUNE_PIPELINE_RUN", RUN)
    return running


class Step:
    """The step, which may be started again."""

    def __init__(self, trainer: SmallTrainer, tokens: Path, folder: Path) -> None:
        self.trainer, self.tokens, self.folder = trainer, tokens, folder
        self.points: list[dict[str, Any]] = []
        self.model = folder / "model"

    def run(self, config: TrainConfig = CONFIG, cluster: Cluster | None = None) -> TrainReport:
        order = Order.of(read_manifest(self.tokens).digest, config, PLACE)
        cluster = cluster or connected(self.trainer)
        return train_on_nodes(order, self.tokens, self.model, self.points.append, cluster)


@pytest.fixture
def step(trainer: SmallTrainer, shared_tokens: Path, tmp_path: Path) -> Step:
    return Step(trainer, shared_tokens, tmp_path)


_context = cache(ssl.create_default_context)


class Killed(BaseException):
    """The step's process is gone."""


def mortal(trainer: SmallTrainer, num_calls: int) -> Cluster:
    """A connection whose process dies after so many calls."""

    class Mortal(client.ApiClient):
        left = num_calls

        def call_api(self, *args: Any, **kwargs: Any) -> Any:
            Mortal.left -= 1
            if Mortal.left < 0:
                raise Killed
            return super().call_api(*args, **kwargs)

    return connected(trainer, Mortal)


def test_the_model_comes_back_with_its_points_and_nothing_stays(
    step: Step, trainer: SmallTrainer, store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer.script = good_course(tmp_path / "made")
    with caplog.at_level(logging.INFO):
        report = step.run()
    assert report == replace(REPORT, model_digest=read_manifest(step.model, "train").digest)
    assert (step.model / "weights").read_bytes() == b"learned"
    assert step.points == POINTS
    assert f"TrainJob {NAME}: 2 nodes, each with 1 processes and 1 GPUs" in caplog.text
    heard = [record.message for record in caplog.records if record.message.startswith("node 0: ")]
    assert heard == ["node 0: hello", "node 0: bye"], "points are no words"
    assert trainer.cluster.named(JOBS) == []
    assert store.objects == {}


def test_it_asks_for_what_its_role_allows_and_no_more(
    step: Step, trainer: SmallTrainer, tmp_path: Path
) -> None:
    trainer.script = good_course(tmp_path / "made")
    step.run()
    calls = {(call.verb, call.resource) for call in trainer.cluster.calls}
    assert calls == RIGHTS - {("update", JOBS), ("list", "events")}  # a takeover; a pod that waits


def test_points_that_no_log_told_are_handed_on_from_the_history(
    step: Step, trainer: SmallTrainer, tmp_path: Path
) -> None:
    start, _, _, end = good_course(tmp_path / "made")
    trainer.script = [start, lambda t: t.say(told_point(1), "point {cut"), end]
    step.run()
    assert step.points == [POINTS[1], POINTS[0]]


def test_a_short_training_that_nobody_saw_running_is_over(
    step: Step, trainer: SmallTrainer, tmp_path: Path
) -> None:
    trainer.at_create = lambda t: (t.deliver(tmp_path / "made"), t.end("Complete"))
    step.run()
    assert step.points == POINTS


def test_what_diverged_is_not_tried_again_by_the_cluster(
    step: Step, trainer: SmallTrainer, caplog: pytest.LogCaptureFixture
) -> None:
    """The job has not failed yet: its failure policy would start all pods once more."""
    trainer.script = [
        lambda t: (t.start(0), t.start(1), t.say("boom", index=1)),
        lambda t: (t.leave_word(DivergedError("step 3: the loss is nan"), 1), t.fall(1)),
    ]
    with pytest.raises(DivergedError, match="step 3: the loss is nan") as error:
        step.run()
    assert error.value.exit_code == 4
    assert "last words of node 1" in caplog.text
    assert "boom" in caplog.text
    assert trainer.cluster.named(JOBS) == []
    assert not step.model.exists()


def test_a_node_that_falls_without_a_word_is_the_clusters_to_start_again(
    step: Step, trainer: SmallTrainer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def restart(t: SmallTrainer) -> None:
        for name in t.pods:
            t.cluster.remove("pods", name)
        t.start(0, "b")
        t.say(told_point(0), told_point(1), life="b")

    trainer.script = [
        lambda t: (t.start(0), t.start(1), t.say(told_point(0))),
        lambda t: (t.leave_word(HungError("waited 20 s")), t.fall(1, code=137)),
        restart,
        good_course(tmp_path / "made")[-1],
    ]
    step.run()
    assert step.points == [POINTS[0], *POINTS], "points up to the checkpoint are handed on once more"
    assert "a node has failed: container node of pod prottune-run-1-node-0-1-a" in caplog.text


@pytest.mark.parametrize(
    ("word", "kind", "line"),
    [
        (HungError("rank 0 waited 20 s"), HungError, "rank 0 waited 20 s"),
        (RuntimeError("connection reset"), TrainJobError, "RuntimeError: connection reset"),
        (None, TrainJobError, r"TrainJob prottune-run-1 failed \(JobsFailed: no more restarts\); container"),
    ],
)
def test_a_failed_job_may_be_tried_again_and_says_why(
    step: Step, trainer: SmallTrainer, word: Exception | None, kind: type[Exception], line: str
) -> None:
    def fail(t: SmallTrainer) -> None:
        if word is not None:
            t.leave_word(word)
        t.fall(0)
        t.end("Failed", "JobsFailed", "no more restarts")

    trainer.script = [lambda t: t.start(0), fail]
    with pytest.raises(kind, match=line) as error:
        step.run()
    assert error.value.exit_code == 3
    assert trainer.cluster.named(JOBS) == []


NO_GPU = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
TAINT = "0/3 nodes are available: 3 node(s) had untolerated taint {gpu: true}."


def unscheduled(message: str) -> dict[str, Any]:
    condition = {"type": "PodScheduled", "status": "False", "message": message}
    return {"phase": "Pending", "conditions": [condition]}


def no_image() -> dict[str, Any]:
    waiting = {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "prottune-torch:7"'}
    return {"phase": "Pending", "containerStatuses": [{"name": "node", "state": {"waiting": waiting}}]}


REASONS = {NO_GPU: unscheduled(NO_GPU), TAINT: unscheduled(TAINT), "ImagePullBackOff": no_image()}


@pytest.mark.parametrize("told", REASONS)
def test_a_pod_that_does_not_start_is_explained_once_and_waited_for(
    step: Step, trainer: SmallTrainer, tmp_path: Path, caplog: pytest.LogCaptureFixture, told: str
) -> None:
    nothing = [lambda t: None] * 30
    trainer.script = [lambda t: t.start(0, **REASONS[told]), *nothing, *good_course(tmp_path / "made")]
    with caplog.at_level(logging.INFO):
        step.run()
    waits = [record.message for record in caplog.records if " waits: " in record.message]
    assert len([line for line in waits if told in line]) == 1


def test_a_quota_that_lets_no_pod_be_made_is_told(
    step: Step, trainer: SmallTrainer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(t: SmallTrainer) -> None:
        involved = {"name": f"{NAME}-node-0", "kind": "Job"}
        event = {"metadata": {"name": "e1"}, "involvedObject": involved, "type": "Warning"}
        t.cluster.put("events", event | {"reason": "FailedCreate", "message": "exceeded quota: gpus"})

    trainer.script = [*[refuse] * 8, *good_course(tmp_path / "made")]
    with caplog.at_level(logging.INFO):
        step.run()
    assert "waits: FailedCreate exceeded quota: gpus" in caplog.text


def test_a_job_that_queues_is_waited_for(
    step: Step, trainer: SmallTrainer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer.at_create = lambda t: t.end("Suspended", "Suspended", "queued by Kueue")
    trainer.script = [*[lambda t: None] * 8, *good_course(tmp_path / "made")]
    with caplog.at_level(logging.INFO):
        step.run()
    assert "waits: suspended: Suspended: queued by Kueue" in caplog.text


def test_an_image_that_stays_away_ends_the_step_after_ten_minutes(step: Step, trainer: SmallTrainer) -> None:
    trainer.script = [lambda t: t.start(0, **no_image())]
    with pytest.raises(TrainJobError, match=r"cannot start: container node .* ImagePullBackOff"):
        step.run()
    assert 600 < trainer.seconds < 660
    assert trainer.cluster.named(JOBS) == []


def test_a_job_that_never_ends_is_given_up_after_its_deadline(
    step: Step, trainer: SmallTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prottune.training.following.MOST_SECONDS", 60)
    trainer.script = [lambda t: t.start(0)]
    with pytest.raises(TrainJobError, match="was not over after 60 s"):
        step.run()


def test_a_step_that_died_is_followed_by_one_that_takes_its_job_over(
    step: Step, trainer: SmallTrainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer.script = good_course(tmp_path / "made")[:2]
    with pytest.raises(Killed):
        step.run(cluster=mortal(trainer, 16))
    assert step.points == POINTS[:1]
    uid = trainer.job["metadata"]["uid"]
    again = step_pod()
    again["metadata"]["name"] = "train-step-2"
    trainer.cluster.put("pods", again)
    monkeypatch.setenv("KFP_POD_NAME", "train-step-2")
    owners: list[Any] = []
    trainer.script = [
        lambda t: owners.append((t.job["metadata"]["uid"], t.job["metadata"]["ownerReferences"][0]["name"])),
        *good_course(tmp_path / "made")[2:],
    ]
    step.points.clear()
    step.run()
    assert owners == [(uid, "train-step-2")]
    assert step.points == POINTS
    assert [call.verb for call in trainer.cluster.writes] == ["create", "update", "delete"]


def test_the_end_of_the_run_takes_away_the_job_of_a_step_that_was_killed(
    step: Step, trainer: SmallTrainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer.script = good_course(tmp_path / "made")[:2]
    with pytest.raises(Killed):
        step.run(cluster=mortal(trainer, 16))
    assert trainer.cluster.named(JOBS) == [NAME]
    monkeypatch.setenv("PROTTUNE_PIPELINE_RUN", "another-run")
    take_away_what_is_left(connected(trainer))
    assert trainer.cluster.named(JOBS) == [NAME], "it is another run's"
    monkeypatch.setenv("PROTTUNE_PIPELINE_RUN", RUN)
    for _ in range(2):
        take_away_what_is_left(connected(trainer))
        assert trainer.cluster.named(JOBS) == []


def test_at_the_end_of_a_run_a_cluster_that_refuses_is_told_of_and_no_more(
    trainer: SmallTrainer, caplog: pytest.LogCaptureFixture
) -> None:
    trainer.cluster.denied.add(("get", JOBS))
    take_away_what_is_left(connected(trainer))
    (said,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert said.endswith("a TrainJob of this run may go on until its deadline")
    take_away_what_is_left()
    assert len(caplog.records) == 1, "outside a cluster there is none"


def test_a_step_whose_job_was_taken_over_leaves_it_alone(
    step: Step, trainer: SmallTrainer, tmp_path: Path
) -> None:
    def take_over(t: SmallTrainer) -> None:
        owner = {"apiVersion": "v1", "kind": "Pod", "name": "train-step-2", "uid": "other"}
        t.cluster.change(JOBS, NAME, lambda job: job["metadata"].update(ownerReferences=[owner]))

    trainer.script = [take_over, *good_course(tmp_path / "made")]
    step.run()
    assert trainer.cluster.named(JOBS) == [NAME]


@pytest.mark.parametrize("why", ["other settings", "failed"])
def test_a_job_of_no_use_goes_before_a_new_one_comes(
    step: Step, trainer: SmallTrainer, tmp_path: Path, why: str
) -> None:
    trainer.script = good_course(tmp_path / "made")[:1]
    with pytest.raises(Killed):
        step.run(cluster=mortal(trainer, 12))
    uid = trainer.job["metadata"]["uid"]
    if why == "failed":
        trainer.end("Failed", "JobsFailed")
    config = replace(CONFIG, epochs=3) if why == "other settings" else CONFIG
    lingering = trainer.cluster.get("pods", trainer.pods[0])
    trainer.cluster.after_write = lambda call, written: None  # no garbage collector for now

    def collect(t: SmallTrainer) -> None:
        assert t.cluster.named(JOBS) == [], "the new one waits for the pods of the old"
        t.cluster.after_write = t.reconcile
        for name in t.pods:
            t.cluster.remove("pods", name)

    trainer.script = [collect, lambda t: uids.append(t.job["metadata"]["uid"])]
    trainer.script += good_course(tmp_path / "made")
    uids: list[str] = []
    step.run(config)
    assert lingering["metadata"]["name"] not in trainer.pods
    assert uids != [uid]


def test_pods_that_never_go_are_a_reason_to_stop(step: Step, trainer: SmallTrainer) -> None:
    trainer.start(0)
    with pytest.raises(ClusterError, match="the one before is not gone after 300 s"):
        step.run()
    assert trainer.cluster.writes == []


def test_a_job_that_somebody_deletes_ends_the_step(step: Step, trainer: SmallTrainer) -> None:
    trainer.script = [lambda t: t.cluster.remove(JOBS, NAME)]
    with pytest.raises(TrainJobError, match="somebody has deleted it"):
        step.run()


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_step_that_is_asked_to_end_takes_its_job_away(
    step: Step, trainer: SmallTrainer, sent: signal.Signals
) -> None:
    trainer.script = [lambda t: t.start(0), lambda t: os.kill(os.getpid(), sent)]
    with pytest.raises(SystemExit if sent == signal.SIGTERM else KeyboardInterrupt):
        step.run()
    assert trainer.cluster.named(JOBS) == []
    assert not step.model.exists()


def test_an_api_server_that_is_away_for_minutes_costs_nothing_else(
    step: Step, trainer: SmallTrainer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def until(t: SmallTrainer) -> None:
        t.cluster.down = t.seconds < 600
        if t.cluster.down:
            t.script.insert(0, until)

    start, *rest = good_course(tmp_path / "made")
    trainer.script = [start, until, *rest]
    step.run()
    assert step.points == POINTS
    assert "goes on meanwhile" in caplog.text


def test_an_api_server_that_stays_away_is_a_service_error_and_the_job_stays(
    step: Step, trainer: SmallTrainer, caplog: pytest.LogCaptureFixture
) -> None:
    trainer.script = [lambda t: setattr(t.cluster, "down", True)]
    with pytest.raises(ClusterError, match="given up after 120 s"):
        step.run()
    assert trainer.seconds > 1800
    assert "stays until its deadline, or until this pod is gone" in caplog.text
    assert trainer.cluster.named(JOBS) == [NAME]


def test_a_right_that_is_missing_is_told_before_anything_is_made(step: Step, trainer: SmallTrainer) -> None:
    trainer.cluster.denied.add(("create", JOBS))
    with pytest.raises(ConfigError, match=r"403 .* is forbidden"):
        step.run()
    assert trainer.cluster.named(JOBS) == []


def test_a_cluster_without_the_runtime_is_a_setting_to_change(step: Step, trainer: SmallTrainer) -> None:
    trainer.cluster.remove(RUNTIMES, "prottune")
    with pytest.raises(ConfigError, match=r"no TrainingRuntime 'prottune' in namespace 'lab'; install"):
        step.run()


def test_a_place_that_is_taken_is_refused_before_anything_is_made(step: Step, trainer: SmallTrainer) -> None:
    step.model.mkdir()
    (step.model / "mine").touch()
    with pytest.raises(ConfigError, match="exists already"):
        step.run()
    assert trainer.cluster.calls == []


def test_a_model_that_was_damaged_on_its_way_is_refused(
    step: Step, trainer: SmallTrainer, store: Store, tmp_path: Path
) -> None:
    def damage(t: SmallTrainer) -> None:
        t.deliver(tmp_path / "made")
        store.objects[f"bucket/{RUN}/launch/model/weights"] = b"Learned"
        t.end("Complete")

    trainer.script = [damage]
    with pytest.raises(ArtifactError, match="damaged"):
        step.run()
    assert not step.model.exists()
    assert trainer.cluster.named(JOBS) == []


def test_a_model_that_rank_0_has_not_reported_is_refused(
    step: Step, trainer: SmallTrainer, store: Store, tmp_path: Path
) -> None:
    def swap(t: SmallTrainer) -> None:
        t.deliver(tmp_path / "made")
        key = f"bucket/{RUN}/launch/report.json"
        store.objects[key] = json.dumps(json.loads(store.objects[key]) | {"model_digest": "x"}).encode()
        t.end("Complete")

    trainer.script = [swap]
    with pytest.raises(ArtifactError, match="but rank 0 has reported x"):
        step.run()


FAULTS: tuple[str | int, ...] = ("cut", "lost", "timeout", 409, 410, 429, 500)


def test_whichever_call_fails_the_model_comes_back_and_nothing_stays(
    step: Step, store: Store, tmp_path: Path
) -> None:
    """A fault for each call in turn; every fault at every call is in the integration tests below."""
    quick = [fault for fault in FAULTS if fault != "timeout"]
    fail_each_call(step, store, tmp_path, quick)


@pytest.mark.integration
@ONLY_SMALL
@pytest.mark.parametrize("fault", FAULTS)
def test_whichever_fault_meets_whichever_call_the_model_comes_back(
    step: Step, store: Store, tmp_path: Path, fault: str | int
) -> None:
    fail_each_call(step, store, tmp_path, [fault])


def fail_each_call(step: Step, store: Store, tmp_path: Path, faults: list[str | int]) -> None:
    trainer = step.trainer
    trainer.script = good_course(tmp_path / "made-0")
    step.run()
    for number in range(1, len(trainer.cluster.calls) + 1):
        trainer.begin()
        step.model, step.points = tmp_path / f"model-{number}", []
        idle: list[Any] = [lambda t: None] * 3  # what a call that is repeated sleeps
        trainer.script = [*idle, *good_course(tmp_path / f"made-{number}")]
        trainer.cluster.faults = {number: faults[number % len(faults)]}
        step.run()
        assert_ended_well(step, store)
        assert sorted(step.points, key=lambda point: point["step"]) == POINTS, number


def assert_ended_well(step: Step, store: Store) -> None:
    assert (step.model / "weights").read_bytes() == b"learned"
    assert step.trainer.cluster.named(JOBS) == []
    assert store.objects == {}


def die_at(step: Step, store: Store, tmp_path: Path, num_calls: int) -> None:
    """Let the step's process die after so many calls, and start it again."""
    trainer = step.trainer
    trainer.begin()
    trainer.script = good_course(tmp_path / f"made-{num_calls}")
    step.model = tmp_path / f"model-of-the-dead-{num_calls}"
    with pytest.raises(Killed):
        step.run(cluster=mortal(trainer, num_calls))
    if "Complete" not in json.dumps(trainer.jobs):
        trainer.script = good_course(tmp_path / f"made-again-{num_calls}")
    step.model = tmp_path / f"model-{num_calls}"
    step.run()
    assert_ended_well(step, store)


def test_a_step_that_dies_before_its_job_is_there_is_finished_by_the_next(
    step: Step, store: Store, tmp_path: Path
) -> None:
    die_at(step, store, tmp_path, 5)


@pytest.mark.integration
def test_a_step_that_dies_at_any_call_is_finished_by_the_next(
    step: Step, store: Store, tmp_path: Path
) -> None:
    step.trainer.script = good_course(tmp_path / "made")
    step.run()
    for num_calls in range(1, len(step.trainer.cluster.calls)):
        die_at(step, store, tmp_path, num_calls)
