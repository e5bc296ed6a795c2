"""Checks of Kubeflow's parts: versions, and whether their objects have the fields that prottune writes."""

import os
import re
from importlib.metadata import version

from pipelines import manifests
from pipelines.backend import ADDRESS_VARIABLE, Backend
from pipelines.checks.finding import ONLY_NODES, Finding, NotCheckedError, failed, listed, ok, warning
from pipelines.checks.surroundings import Surroundings
from prottune.cluster.connection import Cluster, MissingError
from prottune.cluster.objects import (
    DEPLOYMENTS,
    INFERENCE_SERVICES,
    SERVING_RUNTIMES,
    TRAIN_JOBS,
    TRAINING_RUNTIMES,
    Object,
    Resource,
)
from prottune.cluster.own_pod import OwnPod
from prottune.cluster.schemas import fields_of, is_served, schema_of, unknown_fields
from prottune.deployment.revision import predictor
from prottune.deployment.settings import DeployConfig
from prottune.errors import ConfigError, ServiceError
from prottune.training.order import Order
from prottune.training.settings import TrainConfig
from prottune.training.trainjob import NODE, train_job

OLDEST_KSERVE = (0, 16)
"""Knows the mode Standard by that name."""
_TRAINER_BY_FIELD = {
    "runtimePatches": "2.2 or newer",
    "podTemplateOverrides": "2.1",
    "podSpecOverrides": "2.0",
}
"""Field of a TrainJob -> the Trainer that has it; its apiVersion never changed.

Source: https://github.com/kubeflow/trainer, CRDs of its releases.
"""
_KSERVE_BY_FIELD = {"canary": "0.20 or newer"}
_CONTROLLERS = {
    "trainer": ("kubeflow-trainer-controller-manager", ("kubeflow-system", "kubeflow")),
    "kserve": ("kserve-controller-manager", ("kserve", "kubeflow")),
}
"""Name of a controller's Deployment, and the namespaces where installations put it."""
_CONTAINER: Object = {"name": NODE, "resources": {"requests": {"cpu": "2"}, "limits": {"memory": "8Gi"}}}
_RUNTIME: Object = {
    "spec": {
        "template": {
            "spec": {
                "replicatedJobs": [
                    {
                        "name": NODE,
                        "template": {"spec": {"template": {"spec": {"containers": [_CONTAINER]}}}},
                    }
                ]
            }
        }
    }
}
_POD = OwnPod(
    image="image",
    node_selector={"pool": "gpu"},
    tolerations=({"key": "k"},),
    pull_secrets=({"name": "secret"},),
    environment=({"name": "NAME", "valueFrom": {"secretKeyRef": {"name": "secret", "key": "key"}}},),
)
_ORDER = Order(TrainConfig(num_nodes=2, node_gpus=1), "s3://bucket/checkpoints", "0" * 64)
TRAIN_JOB: Object = train_job("name", _ORDER, _RUNTIME, _POD)["spec"]
"""Every field of a TrainJob's spec that a training over several nodes writes."""


def pipelines(surroundings: Surroundings) -> Finding:
    """Whether Kubeflow Pipelines answers to who submits, and which version it is."""
    flags, sdk = surroundings.flags, version("kfp")
    if not flags.host and not os.environ.get(ADDRESS_VARIABLE):
        _through(surroundings)
    try:
        backend = Backend(flags)
        found, num_schedules = backend.version(), len(backend.schedules())
    except ConfigError as error:
        return failed(str(error), "name who asks and where: --token-file, --namespace, --host")
    except ServiceError as error:
        forward = (
            "kubectl -n kubeflow port-forward service/ml-pipeline-ui 8080:80, --host http://localhost:8080"
        )
        return failed(str(error), forward)
    counted = f"{num_schedules} schedule{'' if num_schedules == 1 else 's'} on it"
    if found and _numbers(found) < _numbers(sdk)[:2]:
        told = f"Kubeflow Pipelines {found} is older than the SDK {sdk} that compiles the graphs; {counted}"
        return warning(told, f"a field that it does not know is dropped: prefer {sdk}")
    return ok(f"Kubeflow Pipelines {found or '(tells no version)'}, SDK {sdk}; {counted}")


def _through(surroundings: Surroundings) -> None:
    """Raises: NotCheckedError if there is no cluster through which Kubeflow Pipelines could be asked."""
    try:
        surroundings.cluster()
    except NotCheckedError as error:
        advice = f"name a cluster, or Kubeflow Pipelines itself: --host or {ADDRESS_VARIABLE}"
        raise NotCheckedError(str(error), advice) from error


def trainer(surroundings: Surroundings) -> Finding:
    """Whether Kubeflow Trainer has the objects and fields of a training over several nodes."""
    cluster = surroundings.cluster()
    (runtime,) = manifests.objects(TRAINING_RUNTIMES.kind)
    wanted = {TRAIN_JOBS: TRAIN_JOB, TRAINING_RUNTIMES: runtime["spec"]}
    advice = f"install Kubeflow Trainer 2.2 or newer; {ONLY_NODES}"
    found = _held(cluster, "Trainer", wanted, _TRAINER_BY_FIELD, advice)
    return warning(found.found, found.advice) if found.state == "failed" else found


def kserve(surroundings: Surroundings) -> Finding:
    """Whether KServe has the objects and fields of a deployment."""
    cluster = surroundings.cluster()
    config = DeployConfig(to="kserve", serving_gpus=1, cpu="1", memory="1Gi")
    (runtime,) = manifests.objects(SERVING_RUNTIMES.kind)
    service = {"predictor": predictor("s3://bucket/model", config, "1")}
    wanted = {INFERENCE_SERVICES: service, SERVING_RUNTIMES: runtime["spec"]}
    advice = "install KServe 0.16 or newer; only runs with deploy_to=kserve need it"
    return _held(cluster, "KServe", wanted, _KSERVE_BY_FIELD, advice)


def _held(
    cluster: Cluster, name: str, wanted: dict[Resource, Object], by_field: dict[str, str], advice: str
) -> Finding:
    """Hold what prottune writes to what is served."""
    absent = [f"{each.kind} ({each.api_version})" for each in wanted if not is_served(cluster, each)]
    if absent:
        return failed(f"not served: {listed(absent)}", advice)
    schemas = {each: schema_of(cluster, each) for each in wanted}
    kinds = listed([each.kind for each in wanted])
    if not all(schemas.values()):
        raise NotCheckedError(f"{kinds} are served; the API server publishes no schema of them")
    told = _version(cluster, name, fields_of(next(iter(schemas.values())), "spec"), by_field)
    unknown = [
        f"{resource.kind} {path}"
        for resource, spec in wanted.items()
        for path in unknown_fields(schemas[resource], {"spec": spec})
    ]
    if unknown:
        return failed(f"{told} does not know {listed(unknown)}", advice)
    if name == "KServe" and (numbers := _numbers(told)) and numbers < OLDEST_KSERVE:
        return failed(f"{told} does not know the mode Standard", advice)
    return ok(f"{told}: {kinds} served with all fields that are written")


def _version(cluster: Cluster, name: str, fields: set[str], by_field: dict[str, str]) -> str:
    """A part's name and version: its controller's image tells it, else the fields that it has."""
    deployment, namespaces = _CONTROLLERS[name.lower()]
    for namespace in namespaces:
        try:
            found = cluster.read(DEPLOYMENTS.path(namespace, deployment))
        except (MissingError, ConfigError):  # not here, or not for our eyes
            continue
        containers = found["spec"]["template"]["spec"]["containers"]
        (own, *_) = [each for each in containers if each.get("name") == "manager"] or containers
        image = str(own["image"]).partition("@")[0]
        if tag := image.rpartition("/")[2].partition(":")[2]:
            return f"{name} {tag}"
    told = next((words for field, words in by_field.items() if field in fields), "")
    return f"{name} {told} (by its fields)" if told else f"{name} of an unknown version"


def _numbers(text: str) -> tuple[int, ...]:
    """Major and minor of the first version in a text; empty if there is none."""
    found = re.search(r"(\d+)\.(\d+)", text)
    return tuple(map(int, found.groups())) if found else ()
