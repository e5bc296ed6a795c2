"""Pod specs wherever they hide in a manifest, and the rules of the restricted Pod Security Standard for them.

Scanners look into kinds that they know; a pod inside a custom resource they pass over in silence. So pods
are found by their shape, and every `image:` of a document must lie in a pod that was found.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from kubernetes import client

from pipelines.manifests import images_in

_CONTAINERS = ("containers", "initContainers", "ephemeralContainers")
_VOLUMES = (
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
)
_MIN_USER = 10_000


@dataclass(frozen=True)
class Pod:
    """A pod spec and where it was found."""

    where: str
    spec: Mapping[str, Any]
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def containers(self) -> list[Mapping[str, Any]]:
        return [container for kind in _CONTAINERS for container in self.spec.get(kind, [])]


def pods_of(document: Mapping[str, Any]) -> list[Pod]:
    """Every pod spec inside one object.

    Raises: AssertionError if an image lies outside all of them, for then a pod was missed.
    """
    where = f"{document['kind']} {document['metadata']['name']}"
    found = [Pod(where, spec, labels) for spec, labels in _pod_specs(document, {})]
    images = sorted(images_in(document))
    in_pods = sorted(container["image"] for pod in found for container in pod.containers)
    assert images == in_pods, f"{where}: images {images}, in pods that were found {in_pods}"
    return found


def plain_pod(pod: Pod, name: str, namespace: str) -> dict[str, Any]:
    """A pod as Kubernetes would get it, for scanners that know no other kind: without fields of others."""
    known = client.V1PodSpec.attribute_map.values()
    spec = {field: value for field, value in pod.spec.items() if field in known}
    metadata = {"name": name, "namespace": namespace, "labels": dict(pod.labels)}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def violations(pod: Pod) -> list[str]:
    """What the restricted standard, and prottune's own stricter rules, have against a pod.

    Source: https://kubernetes.io/docs/concepts/security/pod-security-standards/ (restricted); a read-only
        root, a user of at least 10,000, memory limits and bounded scratch space are prottune's rules.
    """
    return [f"{pod.where}: {words}" for words in (*_of_the_pod(pod), *_of_its_containers(pod))]


def _of_the_pod(pod: Pod) -> Iterator[str]:
    spec = pod.spec
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(name):
            yield f"{name} is true"
    for volume in spec.get("volumes", []):
        kinds = set(volume) - {"name"}
        if not kinds <= set(_VOLUMES):
            yield f"volume {volume['name']} is a {', '.join(sorted(kinds))}"
        if "emptyDir" in volume and "sizeLimit" not in (volume["emptyDir"] or {}):
            yield f"volume {volume['name']} has no size limit"


def _of_its_containers(pod: Pod) -> Iterator[str]:
    of_the_pod = pod.spec.get("securityContext", {})
    for container in pod.containers:
        name, own = container["name"], container.get("securityContext", {})
        merged = {**of_the_pod, **own}
        if own.get("privileged"):
            yield f"{name} is privileged"
        if own.get("allowPrivilegeEscalation") is not False:
            yield f"{name} may gain privileges"
        capabilities = own.get("capabilities", {})
        if capabilities.get("drop") != ["ALL"] or set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"}:
            yield f"{name} has capabilities {capabilities}"
        if merged.get("runAsNonRoot") is not True:
            yield f"{name} may run as root"
        if merged.get("runAsUser", 0) < _MIN_USER:
            yield f"{name} runs as user {merged.get('runAsUser')}"
        if merged.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
            yield f"{name} has no seccomp profile"
        if own.get("readOnlyRootFilesystem") is not True:
            yield f"{name} can write to its image's files"
        if "memory" not in container.get("resources", {}).get("limits", {}):
            yield f"{name} has no memory limit"
        if any("hostPort" in port for port in container.get("ports", [])):
            yield f"{name} takes a port of its host"


def _pod_specs(
    value: Any, labels: Mapping[str, str]
) -> Iterator[tuple[Mapping[str, Any], Mapping[str, str]]]:
    """Pod specs with the labels of their pods: a template's, or (KServe) those that stand in the spec."""
    if isinstance(value, Mapping):
        own = value.get("labels") or labels
        if isinstance(value.get("containers"), list) and all(
            "image" in entry for entry in value["containers"]
        ):
            yield value, own
        elif "model" in value and "image" in (value["model"] or {}):  # KServe's predictor.model
            yield {**value, "containers": [value["model"] | {"name": "model"}]}, own
        else:
            of_a_template = (value.get("metadata") or {}).get("labels") or {}
            for inner in value.values():
                yield from _pod_specs(inner, of_a_template)
    elif isinstance(value, list):
        for inner in value:
            yield from _pod_specs(inner, {})
