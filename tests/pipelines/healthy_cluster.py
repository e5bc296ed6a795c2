"""A small cluster as the manifests and Kubeflow's installations leave it: the doctor finds nothing wrong."""

from __future__ import annotations

import json
from typing import Any

from small_cluster import SmallCluster, merged

from pipelines import manifests
from pipelines.checks.kubeflow import TRAIN_JOB
from prottune.cluster.objects import (
    GPU,
    INFERENCE_SERVICES,
    SERVING_RUNTIMES,
    TRAIN_JOBS,
    TRAINING_RUNTIMES,
    Object,
    Resource,
)
from prottune.deployment.revision import predictor
from prottune.deployment.settings import DeployConfig


def made_healthy(cluster: SmallCluster) -> SmallCluster:
    """Put everything there, and take back every refusal."""
    cluster.objects.clear()
    cluster.pages.clear()
    cluster.denied.clear()
    cluster.denied_to.clear()
    cluster.rules.clear()
    cluster.pages["/version"] = {"gitVersion": "v1.33.2"}
    config = DeployConfig(to="kserve", serving_gpus=1, cpu="1", memory="1Gi")
    (serving,), (training,) = (manifests.objects(f"{name}Runtime") for name in ("Serving", "Training"))
    serve(cluster, INFERENCE_SERVICES, {"predictor": predictor("s3://bucket/model", config, "1")})
    serve(cluster, SERVING_RUNTIMES, serving["spec"])
    serve(cluster, TRAIN_JOBS, TRAIN_JOB)
    serve(cluster, TRAINING_RUNTIMES, training["spec"])
    controller(cluster, "kubeflow-system", "kubeflow-trainer-controller-manager", "v2.3.0")
    controller(cluster, "kserve", "kserve-controller-manager", "v0.20.0")
    for name, settings in manifests.generated("configMap").items():
        cluster.put("configmaps", {"metadata": {"name": name}, "data": dict(settings)})
    for kind, plural in (
        ("ConfigMap", "configmaps"),
        ("ServiceAccount", "serviceaccounts"),
        ("ServingRuntime", "servingruntimes.serving.kserve.io"),
        ("TrainingRuntime", "trainingruntimes.trainer.kubeflow.org"),
    ):
        for each in manifests.objects(kind):
            text = json.dumps(each).replace('"prottune-torch"', '"registry.example/prottune-torch:1"')
            cluster.put(plural, json.loads(text))
    for name in manifests.generated("secret"):
        annotations = {"serving.kserve.io/s3-endpoint": "prottune-store:8333"}
        content = {"AWS_SECRET_ACCESS_KEY": "cHJpdmF0ZQ=="}
        cluster.put("secrets", {"metadata": {"name": name, "annotations": annotations}, "data": content})
    node(cluster, "gpu-1", gpus=4)
    node(cluster, "gpu-2", gpus=8)
    node(cluster, "cpu-1", gpus=0)
    return cluster


def serve(cluster: SmallCluster, resource: Resource, spec: Object) -> Object:
    """Let the API server know a kind, with the fields that one object's spec has; returns the schema."""
    group = f"{resource.group}/{resource.version}"
    known = cluster.pages.setdefault(f"/apis/{group}", {"resources": []})
    known["resources"].append({"name": resource.plural})
    empty: Any = {"components": {"schemas": {}}}
    published = cluster.pages.setdefault(f"/openapi/v3/apis/{group}", empty)
    schema = {"properties": {"spec": schema_like(spec)}}
    kinds = {"x-kubernetes-group-version-kind": [{"kind": resource.kind}]}
    published["components"]["schemas"][resource.kind] = schema | kinds
    return schema["properties"]["spec"]


def schema_like(value: Any) -> Object:
    """A schema that knows the fields that a value has."""
    if isinstance(value, dict):
        return {"type": "object", "properties": {name: schema_like(inner) for name, inner in value.items()}}
    if isinstance(value, list):
        items: Object = {}
        for entry in value:
            items = merged(items, schema_like(entry))
        return {"type": "array", "items": items}
    return {}


def controller(cluster: SmallCluster, namespace: str, name: str, tag: str) -> None:
    """Let a part of Kubeflow run in some version."""
    proxy = {"name": "kube-rbac-proxy", "image": "registry.example/proxy:v1.0.0"}
    manager = {"name": "manager", "image": f"registry.example:5000/kubeflow/{name}:{tag}"}
    pod = {"spec": {"containers": [proxy, manager]}}
    cluster.put("deployments.apps", {"metadata": {"name": name}, "spec": {"template": pod}}, namespace)


def node(cluster: SmallCluster, name: str, *, gpus: int, ready: str = "True", closed: bool = False) -> None:
    """Let a node offer GPUs."""
    status = {"conditions": [{"type": "Ready", "status": ready}], "allocatable": {"cpu": "8"}}
    status["allocatable"] |= {GPU: str(gpus)} if gpus else {}  # type: ignore[operator]
    content = {"metadata": {"name": name}, "spec": {"unschedulable": closed}, "status": status}
    cluster.put("nodes", content, namespace="")
