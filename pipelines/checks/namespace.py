"""Checks of what the manifests put into a namespace: settings, secrets, accounts, runtimes, images."""

import re
from collections.abc import Iterable, Iterator

from pipelines import manifests
from pipelines.checks.finding import ONLY_NODES, Finding, NotCheckedError, failed, listed, ok, warning
from pipelines.checks.surroundings import Surroundings
from prottune.cluster.connection import Cluster, ForbiddenError
from prottune.cluster.objects import (
    CONFIG_MAPS,
    PODS,
    SECRETS,
    SERVICE_ACCOUNTS,
    SERVING_RUNTIMES,
    TRAINING_RUNTIMES,
    Object,
    Resource,
    annotations_of,
)
from prottune.s3.access import CA_VARIABLES

_ENDPOINT_ANNOTATION = "serving.kserve.io/s3-endpoint"
_NO_IMAGE = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull")
_PULL_SECRETS = "imagePullSecrets"


def settings(surroundings: Surroundings) -> Finding:
    """Whether the ConfigMaps that steps read their addresses from are there, with what steps need."""
    cluster = surroundings.cluster()
    wanted = manifests.generated("configMap")
    names = [*wanted, *(each["metadata"]["name"] for each in manifests.objects("ConfigMap"))]
    found = {name: cluster.get(CONFIG_MAPS, name) for name in names}
    if absent := _absent(cluster, CONFIG_MAPS, found):
        return absent
    lacking = [
        f"{name} has no {key}"
        for name, keys in wanted.items()
        for key in keys
        if not ((found[name] or {}).get("data") or {}).get(key)
    ]
    if lacking:
        return failed(listed(lacking), "write it into configMapGenerator (manifests/base/kustomization.yaml)")
    if lost := _lost_certificates(cluster, found[next(iter(wanted))] or {}):
        return lost
    return ok(f"ConfigMaps {listed(names)}, with {listed([key for keys in wanted.values() for key in keys])}")


def _lost_certificates(cluster: Cluster, said: Object) -> Finding | None:
    """What is wrong if steps are told of a file of certificates that they will not have."""
    from pipelines.resources import CA_CONFIG_MAP, CA_FOLDER

    file = (said.get("data") or {}).get(CA_VARIABLES[0], "")
    folder, _, key = file.rpartition("/")
    if not file or (
        folder == CA_FOLDER and key in (cluster.get(CONFIG_MAPS, CA_CONFIG_MAP) or {}).get("data", {})
    ):
        return None
    if folder != CA_FOLDER:
        return warning(
            f"steps trust {file}, which is not in {CA_FOLDER}", "is it in the images? See docs/operations.md"
        )
    told = f"steps trust {file}, but there is no ConfigMap {CA_CONFIG_MAP} with {key}"
    return failed(told, f"kubectl create configmap {CA_CONFIG_MAP} --from-file={key}=YOUR-CA.pem")


def secrets(surroundings: Surroundings) -> Finding:
    """Whether the secrets are there; their values are never asked for."""
    cluster = surroundings.cluster()
    names = list(manifests.generated("secret"))
    found = {name: cluster.metadata(SECRETS, name) for name in names}
    if absent := _absent(cluster, SECRETS, found):
        return absent
    (name, keys), *_ = found.items()
    endpoint = annotations_of(keys or {}).get(_ENDPOINT_ANNOTATION, "")
    if not endpoint or "://" in endpoint:
        told = f"Secret {name}: its annotation {_ENDPOINT_ANNOTATION} is {endpoint!r}"
        return failed(told, "give KServe the store's host and port, without http:// (manifests/base)")
    if (said := _store_of_steps(cluster)) and said != endpoint:
        told = f"KServe reads models from {endpoint} (Secret {name}), steps write them to {said}"
        return warning(f"{told} (ConfigMap)", "name one store in both, unless both names lead to it")
    return ok(f"Secrets {listed(names)} (names and annotations; their keys were not looked at)")


def _store_of_steps(cluster: Cluster) -> str:
    """Host and port of the store as steps are told it; empty if that may not be seen."""
    try:
        found = cluster.get(CONFIG_MAPS, next(iter(manifests.generated("configMap"))))
    except ForbiddenError:
        return ""
    said = str(((found or {}).get("data") or {}).get("S3_ENDPOINT", ""))
    return said.rpartition("://")[2].rstrip("/")


def accounts(surroundings: Surroundings) -> Finding:
    """Whether the service accounts are there, and the pull secrets that they name."""
    cluster = surroundings.cluster()
    names = [each["metadata"]["name"] for each in manifests.objects("ServiceAccount")]
    found = {name: cluster.get(SERVICE_ACCOUNTS, name) for name in names}
    if absent := _absent(cluster, SERVICE_ACCOUNTS, found):
        return absent
    pulled_with = _pull_secrets(found.values())
    try:
        lost = [name for name in pulled_with if cluster.metadata(SECRETS, name) is None]
    except ForbiddenError:
        told = f"accounts {listed(names)}; their pull secrets ({listed(pulled_with)}) may not be seen"
        return ok(told)
    if lost:
        told = f"accounts name the pull secrets {listed(lost)}, not there in namespace {cluster.namespace}"
        return failed(told, f"kubectl -n {cluster.namespace} create secret docker-registry {lost[0]} ...")
    pulls = f", pull secrets {listed(pulled_with)}" if pulled_with else ", no pull secrets"
    return ok(f"service accounts {listed(names)}{pulls}")


def runtimes(surroundings: Surroundings) -> Finding:
    """Whether the runtimes of serving and of training over several nodes are there."""
    cluster = surroundings.cluster()
    found = {
        f"{resource.kind} {each['metadata']['name']}": cluster.get(resource, each["metadata"]["name"])
        for resource in (SERVING_RUNTIMES, TRAINING_RUNTIMES)
        for each in manifests.objects(resource.kind)
    }
    if lost := [name for name, there in found.items() if there is None]:
        told = f"not in namespace {cluster.namespace}: {listed(lost)}"
        if all(name.startswith(TRAINING_RUNTIMES.kind) for name in lost):
            return warning(told, f"{_apply(cluster)}; {ONLY_NODES}")
        return failed(told, _apply(cluster))
    images = {name: sorted(set(manifests.images_in(there))) for name, there in found.items()}
    told = listed([f"{name} ({listed(named)})" for name, named in images.items()])
    doubts = {image: doubt for named in images.values() for image in named if (doubt := doubt_of(image))}
    if doubts:
        why = "; ".join(f"{image} {doubt}" for image, doubt in doubts.items())
        return warning(
            f"{told}: {why}", "name your registry in an overlay, as manifests/overlays/example does"
        )
    return ok(told)


def images(surroundings: Surroundings) -> Finding:
    """What can be told of the steps' images without pulling them: names, and what became of their pods."""
    flags = surroundings.flags
    names = [flags.light_image, flags.torch_image]
    advice = (
        "push the images and name their registry (PROTTUNE_REGISTRY) or them: --light-image, --torch-image"
    )
    try:
        pods = surroundings.cluster().list(PODS)
    except NotCheckedError as error:
        raise NotCheckedError(f"{error}; {_by_name(names)}") from None
    refused, seen = _pods_with(pods, names)
    if refused:
        return failed(f"nodes cannot pull {'; '.join(refused)}", f"{advice}; is a pull secret missing?")
    unseen = [name for name in names if name not in seen]
    if not unseen:
        return ok(f"pods of this namespace have run {listed(names)}")
    told = f"{_by_name(unseen)}; no pod here has run {listed(unseen)}, and nothing was pulled"
    return warning(told, advice) if any(map(doubt_of, unseen)) else ok(told)


def _by_name(names: list[str]) -> str:
    """What the names alone say of images."""
    doubts = [f"{name} {doubt}" for name in names if (doubt := doubt_of(name))]
    return "; ".join(doubts) or f"by name, {listed(names)} have a registry and a version"


def doubt_of(image: str) -> str:
    """What an image's name leaves open; empty if it names a registry and what to take there.

    Source: https://github.com/distribution/reference: the first part is a registry's host if it holds a dot
        or a port, or is localhost.
    """
    name, at, _ = image.partition("@")
    host, slash, rest = name.partition("/")
    tag = (rest if slash else name).partition(":")[2]
    if not at and tag in ("", "latest"):
        return "names no version, so what runs may change from pod to pod"
    if not slash or not re.search(r"[.:]|^localhost$", host):
        return "names no registry, so nodes look for it among their own images and on Docker Hub"
    return ""


def _pods_with(pods: list[Object], names: list[str]) -> tuple[list[str], set[str]]:
    """What became of pods that want one of these images: refusals in words, and images that nodes have."""
    refused, seen = {}, set()
    for pod in pods:
        for status in _statuses(pod):
            image = status.get("image", "")
            waiting = status.get("state", {}).get("waiting") or {}
            if image in names and waiting.get("reason") in _NO_IMAGE:
                words = " ".join(str(waiting.get("message") or waiting["reason"]).split())[:200]
                refused[image] = f"{image} (pod {pod['metadata']['name']}: {words})"
            elif image in names and status.get("imageID"):
                seen.add(image)
    return list(refused.values()), seen


def _statuses(pod: Object) -> Iterator[Object]:
    for kind in ("initContainerStatuses", "containerStatuses"):
        yield from pod.get("status", {}).get(kind) or []


def _pull_secrets(accounts: Iterable[Object | None]) -> list[str]:
    return sorted({entry["name"] for each in accounts if each for entry in each.get(_PULL_SECRETS) or []})


def _absent(cluster: Cluster, resource: Resource, found: dict[str, Object | None]) -> Finding | None:
    if lost := [name for name, there in found.items() if there is None]:
        return failed(f"no {resource.kind} {listed(lost)} in namespace {cluster.namespace}", _apply(cluster))
    return None


def _apply(cluster: Cluster) -> str:
    now = cluster.namespace
    return f"kubectl apply -k manifests/overlays/..., or name the namespace: --namespace (now {now})"
