"""The pod that this program runs in, and what pods that it starts take over from it.

Environment goes by reference: what this pod got from a Secret or a ConfigMap, the others get from there too.
A value goes over as such only if it can be no secret.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field

from prottune.cluster.connection import Cluster
from prottune.cluster.objects import PODS, S3_SECRET, S3_SECRET_KEYS, S3_TOKEN_KEY, Object

FORWARDED = ("AWS_", "HF_", "MLFLOW_", "PROTTUNE_", "S3_")
"""How the names of the variables begin that go over."""
_OF_THIS_STEP = ("PROTTUNE_CACHE", "PROTTUNE_FAILURE_FILE")
_OF_THIS_POD = ("AWS_CA_BUNDLE", "AWS_ROLE_ARN", "AWS_ROLE_SESSION_NAME")
"""Values that only hold where they are: a file, and whom a pod is taken for by its service account. EKS gives
no token to a pod that brings AWS_ROLE_ARN.
Source: https://github.com/aws/amazon-eks-pod-identity-webhook, pkg/handler/handler.go, addEnvToContainer."""
_MAIN_CONTAINER = "main"
"""Name of the container of a step, as Argo Workflows calls it."""
_SECRET = re.compile(r"KEY|SECRET|TOKEN|PASSWORD|CREDENTIAL|USERNAME")
_ADDRESS_WITH_PASSWORD = re.compile(r"://[^/]*@")
_OWN_TO_EVERY_POD = "node.kubernetes.io/"
"""How the keys of the tolerations begin that Kubernetes itself gives every pod."""

_STORE_KEYS: dict[str, Object] = {
    name: {"name": name, "valueFrom": {"secretKeyRef": {"name": S3_SECRET, "key": name, "optional": True}}}
    for name in (*S3_SECRET_KEYS, S3_TOKEN_KEY)
}
"""The keys of the object store, from the namespace's Secret."""


@dataclass(frozen=True)
class OwnPod:
    """What others take over from this pod; of no pod, nothing but the keys of the object store."""

    owner: Object | None = None
    """The reference by which Kubernetes deletes what this pod owns together with it."""
    image: str = ""
    node_selector: Object = field(default_factory=dict)
    tolerations: tuple[Object, ...] = ()
    pull_secrets: tuple[Object, ...] = ()
    environment: tuple[Object, ...] = ()


def own_pod(cluster: Cluster) -> OwnPod:
    """Ask the API server for the pod that this program runs in.

    Raises: ClusterError if the server is away; ConfigError if it may not be asked.
    """
    name = os.environ.get("KFP_POD_NAME", "")
    if not name and os.environ.get("KUBERNETES_SERVICE_HOST"):
        name = os.environ.get("HOSTNAME", "")
    pod = cluster.get(PODS, name) if name else None
    if pod is None:
        return OwnPod(environment=_in_order(_STORE_KEYS))
    spec, metadata = pod["spec"], pod["metadata"]
    named = [entry for entry in spec["containers"] if entry["name"] == _MAIN_CONTAINER]
    container = (named or spec["containers"])[0]
    return OwnPod(
        owner={"apiVersion": "v1", "kind": "Pod", "name": metadata["name"], "uid": metadata["uid"]},
        image=container.get("image", ""),
        node_selector=spec.get("nodeSelector") or {},
        tolerations=tuple(
            entry
            for entry in spec.get("tolerations") or []
            if not entry.get("key", "").startswith(_OWN_TO_EVERY_POD)
        ),
        pull_secrets=tuple({each["name"]: each for each in spec.get("imagePullSecrets") or []}.values()),
        environment=_environment(container.get("env") or []),
    )


def _environment(entries: list[Object]) -> tuple[Object, ...]:
    """The variables that go over: references as this pod has them, then plain values, sorted by name."""
    found = _STORE_KEYS | {
        name: {"name": name, "value": value}
        for name, value in os.environ.items()
        if name.startswith(FORWARDED)
        and name not in _OF_THIS_STEP + _OF_THIS_POD
        and _is_no_secret(name, value)
    }
    for entry in entries:
        by_reference = {"secretKeyRef", "configMapKeyRef"} & set(entry.get("valueFrom") or {})
        if by_reference and entry["name"].startswith(FORWARDED):
            found[entry["name"]] = {"name": entry["name"], "valueFrom": entry["valueFrom"]}
    return _in_order(found)


def _in_order(variables: dict[str, Object]) -> tuple[Object, ...]:
    return tuple(variables[name] for name in sorted(variables))


def _is_no_secret(name: str, value: str) -> bool:
    return not _SECRET.search(name) and not _ADDRESS_WITH_PASSWORD.search(value)
