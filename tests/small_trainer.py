"""Kubeflow Trainer as far as a training step meets it: a controller of the small cluster, and pods that talk.

Time passes only when the step sleeps: each sleep plays the next act of a script. `train_for_real` starts a
process for each pod instead, with the environment that Trainer's torch plugin gives it.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from kubernetes import client
from small_cluster import Call, Object, SmallCluster, now

from prottune.artifacts import new_folder, read_manifest
from prottune.cluster.connection import Cluster
from prottune.training.order import ORDER_VARIABLE, Order
from prottune.training.settings import TrainReport

JOBS = "trainjobs.trainer.kubeflow.org"
RUNTIMES = "trainingruntimes.trainer.kubeflow.org"
RIGHTS = {
    ("get", RUNTIMES),
    *((verb, JOBS) for verb in ("get", "create", "update", "delete")),
    ("get", "pods"),
    ("list", "pods"),
    ("get", "pods/log"),
    ("list", "events"),
}
"""All that a training of several nodes may ask of the API server."""
RUN = "run-1"
NAME = f"prottune-{RUN}"
STEP_POD = "train-step-1"
POINTS = [{"step": 1, "train/loss": 2.5}, {"step": 2, "train/loss": 1.25}]
REPORT = TrainReport(
    num_parameters=7,
    num_steps=2,
    epochs_run=1,
    best_epoch=1,
    validation_loss=1.0,
    validation_accuracy=0.5,
    temperature=1.0,
    seconds=1.0,
    tokens_per_second=10.0,
    model_digest="",
)
RESOURCES = {"requests": {"cpu": "2", "memory": "8Gi"}, "limits": {"memory": "64Gi"}}

Act = Callable[["SmallTrainer"], object]


def runtime() -> Object:
    """A TrainingRuntime as manifests/ has it, as far as the step reads it."""
    container = {"name": "node", "image": "prottune-torch", "resources": RESOURCES}
    template = {"spec": {"template": {"spec": {"containers": [container]}}}}
    spec = {"template": {"spec": {"replicatedJobs": [{"name": "node", "template": template}]}}}
    return {"metadata": {"name": "prottune"}, "spec": spec}


def step_pod() -> Object:
    """The pod of a training step, as Kubeflow Pipelines starts it."""
    secret = {"secretKeyRef": {"name": "prottune-s3", "key": "AWS_ACCESS_KEY_ID", "optional": True}}
    bundle = {"configMapKeyRef": {"name": "prottune", "key": "AWS_CA_BUNDLE", "optional": True}}
    field_ref = {"fieldRef": {"fieldPath": "metadata.labels['pipeline/runid']"}}
    env = [
        {"name": "AWS_ACCESS_KEY_ID", "valueFrom": secret},
        {"name": "AWS_CA_BUNDLE", "valueFrom": bundle},
        {"name": "PROTTUNE_PIPELINE_RUN", "valueFrom": field_ref},
    ]
    main = {"name": "main", "image": "registry/prottune-torch:7", "env": env}
    tolerations = [
        {"key": "nvidia.com/gpu", "operator": "Exists"},
        {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "tolerationSeconds": 300},
    ]
    spec = {"containers": [{"name": "wait", "image": "argo"}, main], "nodeSelector": {"pool": "gpu"}}
    return {"metadata": {"name": STEP_POD}, "spec": spec | {"tolerations": tolerations}}


@dataclass
class SmallTrainer:
    """Plays Trainer's controller, JobSet's, and the pods' kubelet."""

    cluster: SmallCluster
    script: list[Act] = field(default_factory=list)
    """What happens at each sleep of the step, in order; then nothing more does."""
    seconds: float = 0.0
    at_create: Act = lambda trainer: None

    def begin(self) -> None:
        """A cluster with the runtime and the step's pod, in which nothing was ever trained."""
        self.cluster.clear()
        self.cluster.put(RUNTIMES, runtime())
        self.cluster.put("pods", step_pod())
        self.seconds, self.script, self.at_create = 0.0, [], lambda trainer: None

    def now(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds
        if self.script:
            self.script.pop(0)(self)

    def reconcile(self, call: Call, written: Object) -> None:
        if call.resource == JOBS and call.verb == "create":
            self.at_create(self)
        if call.resource == JOBS and call.verb == "delete":
            for name in self.pods:
                self.cluster.remove("pods", name)

    @property
    def pods(self) -> list[str]:
        """Names of the nodes' pods."""
        return [name for name in self.cluster.named("pods") if name.startswith(f"{NAME}-node")]

    @property
    def job(self) -> Object:
        return self.cluster.get(JOBS, NAME)

    @property
    def jobs(self) -> list[Object]:
        return [self.cluster.get(JOBS, name) for name in self.cluster.named(JOBS)]

    @property
    def order(self) -> Order:
        (text,) = [e["value"] for e in self.job["spec"]["trainer"]["env"] if e["name"] == ORDER_VARIABLE]
        return Order.parse(text)

    def start(self, index: int = 0, life: str = "a", **status: Any) -> str:
        """A pod of a node comes up, running unless told otherwise."""
        name = f"{NAME}-node-0-{index}-{life}"
        labels = {
            "jobset.sigs.k8s.io/jobset-name": NAME,
            "batch.kubernetes.io/job-completion-index": str(index),
        }
        self.cluster.put(
            "pods", {"metadata": {"name": name, "labels": labels}, "status": {"phase": "Running"} | status}
        )
        return name

    def say(self, *lines: str, index: int = 0, life: str = "a") -> None:
        key = (f"{NAME}-node-0-{index}-{life}", "node")
        self.cluster.logs[key] = self.cluster.logs.get(key, "") + "".join(f"{line}\n" for line in lines)

    def end(self, how: str, reason: str = "JobsCompleted", message: str = "") -> None:
        suspended = {"status": "False", "reason": "Resumed", "message": ""}
        conditions = {"Suspended": suspended, how: {"status": "True", "reason": reason, "message": message}}
        told = [{"type": name, "lastTransitionTime": now()} | words for name, words in conditions.items()]
        self.cluster.change(JOBS, NAME, lambda found: found.update(status={"conditions": told}))

    def deliver(self, folder: Path) -> None:
        """Rank 0 has trained."""
        with new_folder(folder, "train", self.order.config) as draft:
            (draft.path / "weights").write_bytes(b"learned")
            history = "".join(f"{json.dumps(point)}\n" for point in POINTS)
            (draft.path / "history.jsonl").write_text(history)
        self.order.deliver(folder, replace(REPORT, model_digest=read_manifest(folder).digest))

    def leave_word(self, error: Exception, rank: int = 0) -> None:
        self.order.leave_word(error, rank)

    def fall(self, index: int = 0, life: str = "a", code: int = 1) -> None:
        """The container of a node ends badly."""
        over = {"terminated": {"exitCode": code, "reason": "Error"}}
        container = {"name": "node", "state": over, "restartCount": 0}
        status = {"phase": "Failed", "containerStatuses": [container]}
        self.cluster.change(
            "pods", f"{NAME}-node-0-{index}-{life}", lambda found: found.update(status=status)
        )


def told_point(number: int) -> str:
    return f"point {json.dumps(POINTS[number])}"


def good_course(folder: Path) -> list[Act]:
    """A training that goes well: two pods, two points, a model."""
    return [
        lambda trainer: (trainer.start(0), trainer.start(1)),
        lambda trainer: trainer.say("hello", told_point(0)),
        lambda trainer: trainer.say(told_point(1), "bye"),
        lambda trainer: (trainer.deliver(folder), trainer.end("Complete", "JobsCompleted")),
    ]


def connected(trainer: SmallTrainer, api: type[client.ApiClient] = client.ApiClient) -> Cluster:
    settings = client.Configuration(host=trainer.cluster.url)
    settings.retries = False
    seconds = 0.15 if "timeout" in trainer.cluster.faults.values() else 5.0
    return Cluster(api(settings), "lab", read_seconds=seconds, now=trainer.now, sleep=trainer.sleep)


@dataclass
class RealPods:
    """Pods that are processes: the very command of the TrainJob, in Trainer's environment."""

    trainer: SmallTrainer
    secrets: dict[str, str]
    folder: Path
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self) -> None:
        """What Trainer's torch plugin sets.

        Source: https://github.com/kubeflow/trainer/blob/master/pkg/runtime/framework/plugins/torch/torch.go
        """
        asked = self.trainer.job["spec"]["trainer"]
        given = {
            e["name"]: e["value"]
            if "value" in e
            else self.secrets.get(next(iter(e["valueFrom"].values()))["key"])
            for e in asked["env"]
        }
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        of_all = {
            "PET_NNODES": str(asked["numNodes"]),
            "PET_NPROC_PER_NODE": str(asked["numProcPerNode"]),
            "PET_MASTER_ADDR": "127.0.0.1",
            "PET_MASTER_PORT": str(port),
        }
        kept = ("PYTHONPATH", "OMP_NUM_THREADS", "GLOO_SOCKET_IFNAME", "S3_ENDPOINT", "HOME", "TMPDIR")
        image = {name: os.environ[name] for name in kept if name in os.environ}
        image["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        for index in range(asked["numNodes"]):
            self.trainer.start(index)
            environment = (
                image | of_all | {n: v for n, v in given.items() if v} | {"PET_NODE_RANK": str(index)}
            )
            with (self.folder / f"node-{index}.log").open("wb") as log:
                self.running.append(
                    subprocess.Popen(asked["command"], env=environment, stdout=log, stderr=subprocess.STDOUT)
                )

    def look(self, _: SmallTrainer) -> None:
        """Bring logs and ends of the processes to the API server."""
        time.sleep(0.1)
        for index in range(len(self.running)):
            key = (f"{NAME}-node-0-{index}-a", "node")
            self.trainer.cluster.logs[key] = (self.folder / f"node-{index}.log").read_text()
        ends = [process.poll() for process in self.running]
        if any(ends):
            index, code = next((index, code) for index, code in enumerate(ends) if code)
            self.trainer.fall(index, code=code)
            self.trainer.end("Failed", "JobsFailed", "a node has failed")
        elif ends and all(code == 0 for code in ends):
            self.trainer.end("Complete", "JobsCompleted")
        else:
            self.trainer.script.insert(0, self.look)


@contextmanager
def train_for_real(trainer: SmallTrainer, secrets: dict[str, str], folder: Path) -> Iterator[RealPods]:
    pods = RealPods(trainer, secrets, folder)
    trainer.at_create = lambda _: pods.start()
    trainer.script = [pods.look]
    try:
        yield pods
    finally:
        for process in pods.running:
            process.terminate()
        for process in pods.running:
            process.wait()
