"""The TrainJob of a training over several nodes, for Kubeflow Trainer 2.2 and newer.

Image, shared memory, security and restarts are the TrainingRuntime's (manifests/base/training-runtime.yaml).
The TrainJob says how many nodes, what runs there, and what differs from one training to the next.

Source: https://www.kubeflow.org/docs/components/trainer/ and the schema of trainer.kubeflow.org/v1alpha1.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any

from prottune.cluster.objects import GPU, TRAIN_JOBS, TRAINING_RUNTIMES, Object, covers
from prottune.cluster.own_pod import OwnPod
from prottune.training.order import ORDER_VARIABLE, Order
from prottune.training.settings import MOST_SECONDS

RUNTIME = "prottune"
NODE = "node"
"""Name of the runtime's replicated job, and of its container."""
COMMAND = ("torchrun", "-m", "prottune.training.node")
POD_LABEL = "jobset.sigs.k8s.io/jobset-name"
"""Label of all pods of a TrainJob, whose JobSet has its name."""
INDEX_LABEL = "batch.kubernetes.io/job-completion-index"
"""Label of a pod that says which node it is; rank 0 runs on node 0."""

_MANAGER = "prottune.dev/launcher"
_LONGEST_RUN = 36
"""The pods' names, of at most 63 characters, are `prottune-`, this, and as much as `-node-0-99-abcde`.

Source: https://github.com/kubernetes-sigs/jobset/blob/main/pkg/webhooks/jobset_webhook.go"""
_SHUTDOWN_SECONDS = 100
"""What torchrun gives the ranks to keep their last step, a little less than the runtime gives the pod."""


def job_name(run: str, place: str) -> str:
    """The name of a run's TrainJob, the same in every try: of the pipeline run, else of its checkpoints."""
    if re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", run) and len(run) <= _LONGEST_RUN:
        return f"prottune-{run}"
    return f"prottune-{hashlib.sha256(f'{run} {place}'.encode()).hexdigest()[:16]}"


def train_job(name: str, order: Order, runtime: Object, pod: OwnPod) -> Object:
    """The TrainJob that does what is ordered, on nodes like the launching pod's."""
    config = order.config
    told = [
        {"name": ORDER_VARIABLE, "value": order.text},
        {"name": "TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "value": str(_SHUTDOWN_SECONDS)},
    ]
    trainer: Object = {
        "numNodes": config.num_nodes,
        "numProcPerNode": config.num_processes,  # left out, a node without GPUs starts one for each core
        "command": list(COMMAND),
        "env": [*pod.environment, *told],
    }
    if pod.image:
        trainer["image"] = pod.image
    if resources := _resources(runtime, config.node_gpus):
        trainer["resourcesPerNode"] = resources
    spec: Object = {
        "runtimeRef": {"apiGroup": TRAINING_RUNTIMES.group, "kind": TRAINING_RUNTIMES.kind, "name": RUNTIME},
        "activeDeadlineSeconds": MOST_SECONDS,
        "trainer": trainer,
    }
    if patch := _pod_patch(pod):
        spec["runtimePatches"] = [patch]
    metadata: Object = {"name": name, "labels": {"app.kubernetes.io/managed-by": "prottune"}}
    if pod.owner:
        metadata["ownerReferences"] = [pod.owner]
    return {
        "apiVersion": TRAIN_JOBS.api_version,
        "kind": TRAIN_JOBS.kind,
        "metadata": metadata,
        "spec": spec,
    }


def is_same_training(found: Object, wanted: Object) -> bool:
    """Whether a TrainJob does what another one would do; who else patches its pods does not matter."""
    return all(
        covers(found["spec"].get(name), wanted["spec"][name])
        for name in ("runtimeRef", "activeDeadlineSeconds", "trainer")
    )


def end_of(job: Object) -> tuple[str, str]:
    """How a TrainJob ended, `Complete` or `Failed`, and why; empty while it has not."""
    for condition in job.get("status", {}).get("conditions") or []:
        if condition["status"] == "True" and condition["type"] in ("Complete", "Failed"):
            return condition["type"], _told(condition)
    return "", ""


def suspension_of(job: Object) -> str:
    """Why a TrainJob does not start although nothing is wrong with it: it queues; empty if it does not."""
    for condition in job.get("status", {}).get("conditions") or []:
        if condition["status"] == "True" and condition["type"] == "Suspended":
            return f"suspended: {_told(condition)}"
    return ""


def _told(condition: Object) -> str:
    return " ".join(f"{condition.get('reason', '')}: {condition.get('message', '')}".split())


def _resources(runtime: Object, num_gpus: int) -> Object:
    """What the runtime gives a node, with these GPUs: a TrainJob's word replaces all of the runtime's."""
    resources: Object = {}
    for each in _named(runtime["spec"]["template"]["spec"]["replicatedJobs"], NODE):
        for container in _named(each["template"]["spec"]["template"]["spec"]["containers"], NODE):
            resources = container.get("resources") or {}
    found = {
        kind: {name: amount for name, amount in resources.get(kind, {}).items() if name != GPU}
        for kind in ("requests", "limits")
    }
    if num_gpus:
        found["limits"][GPU] = str(num_gpus)
    return {kind: amounts for kind, amounts in found.items() if amounts}


def _named(entries: list[Object], name: str) -> list[Object]:
    return [entry for entry in entries if entry.get("name") == name]


def _pod_patch(pod: OwnPod) -> Object:
    """Where the pods may run, and how their image is fetched; empty if nothing is to be said."""
    spec: dict[str, Any] = {
        "nodeSelector": pod.node_selector,
        "tolerations": list(pod.tolerations),
        "imagePullSecrets": list(pod.pull_secrets),
    }
    spec = {name: value for name, value in spec.items() if value}
    if not spec:
        return {}
    jobs = [{"name": NODE, "template": {"spec": {"template": {"spec": spec}}}}]
    return {"manager": _MANAGER, "trainingRuntimeSpec": {"template": {"spec": {"replicatedJobs": jobs}}}}
