"""Kinds of objects that an API server keeps, and when one says all that another one wants."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]
"""An object of the API server, as its JSON."""


@dataclass(frozen=True)
class Resource:
    """One kind of objects: the names that paths, rights and the objects themselves have for it."""

    group: str
    """Empty for the core kinds, as pods."""
    version: str
    plural: str
    kind: str
    is_namespaced: bool = True
    """False for what belongs to the whole cluster, as nodes."""

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str, name: str = "", part: str = "") -> str:
        """Where the API server keeps all objects of a namespace, one of them, or a part of one."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        place = f"{root}/namespaces/{namespace}" if self.is_namespaced else root
        return "/".join(filter(None, (f"{place}/{self.plural}", name, part)))


NODES = Resource("", "v1", "nodes", "Node", is_namespaced=False)
SECRETS = Resource("", "v1", "secrets", "Secret")
CONFIG_MAPS = Resource("", "v1", "configmaps", "ConfigMap")
SERVICE_ACCOUNTS = Resource("", "v1", "serviceaccounts", "ServiceAccount")
DEPLOYMENTS = Resource("apps", "v1", "deployments", "Deployment")
SERVING_RUNTIMES = Resource("serving.kserve.io", "v1alpha1", "servingruntimes", "ServingRuntime")
PODS = Resource("", "v1", "pods", "Pod")
EVENTS = Resource("", "v1", "events", "Event")
LEASES = Resource("coordination.k8s.io", "v1", "leases", "Lease")
INFERENCE_SERVICES = Resource("serving.kserve.io", "v1beta1", "inferenceservices", "InferenceService")
TRAIN_JOBS = Resource("trainer.kubeflow.org", "v1alpha1", "trainjobs", "TrainJob")
TRAINING_RUNTIMES = Resource("trainer.kubeflow.org", "v1alpha1", "trainingruntimes", "TrainingRuntime")


GPU = "nvidia.com/gpu"
"""Name of the resource of which a pod with GPUs asks for some."""
S3_SECRET = "prottune-s3"  # noqa: S105 - its name, not its content
"""Secret that holds the keys of the object store."""
S3_SECRET_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
S3_TOKEN_KEY = "AWS_SESSION_TOKEN"  # noqa: S105 - its name
"""Key of the same Secret, if the keys are temporary."""


def annotations_of(content: Object) -> dict[str, str]:
    """The annotations of an object or of a pod template; empty if it has none."""
    return dict(content.get("metadata", content).get("annotations") or {})


def covers(found: Any, wanted: Any, *, amounts: bool = False) -> bool:
    """Whether `found` says all that `wanted` says; what else it says (defaults that a webhook filled in) is
    its own affair. Lists must be equally long; amounts below `resources` equal in value: 1000m is 1.
    """
    if isinstance(wanted, dict):
        return isinstance(found, dict) and all(
            covers(found.get(name), wanted[name], amounts=amounts or name == "resources") for name in wanted
        )
    if isinstance(wanted, list):
        return (
            isinstance(found, list)
            and len(found) == len(wanted)
            and all(covers(*pair, amounts=amounts) for pair in zip(found, wanted, strict=True))
        )
    return bool(found == wanted) or (amounts and _amount(found) == _amount(wanted) is not None)


def _amount(value: Any) -> Any:
    """The number that `2`, `500m` or `8Gi` means; None for other words."""
    from kubernetes.utils import parse_quantity

    try:
        return parse_quantity(value) if isinstance(value, str | int) else None
    except ValueError:
        return None
