"""When a revision of the endpoint serves, and why it does not yet.

KServe's own word is not enough. In Standard mode `status.observedGeneration` is the Deployment's generation,
not the InferenceService's, and `Ready` may still speak of the old revision's pods while the new ones start
(kserve#6081, kserve#4626). So the pods are looked at: each carries the name of its revision.
"""

from __future__ import annotations

from prottune.cluster.connection import Cluster
from prottune.cluster.objects import INFERENCE_SERVICES, PODS, Object, annotations_of
from prottune.cluster.pods import ailment, is_hopeless, is_live, is_ready, warnings
from prottune.deployment.contract import MODEL_NAME
from prottune.deployment.revision import REVISION_ANNOTATION, Revision, check_mode
from prottune.errors import DeploymentError

_POLL_SECONDS = 2.0
_PODS = f"serving.kserve.io/inferenceservice={MODEL_NAME},component=predictor"


def wait_until_ready(cluster: Cluster, revision: Revision, seconds: float) -> str:
    """Wait until all pods of a revision serve, and no other pod does; returns the endpoint's address.

    Raises: DeploymentError with the reason if that is not so in time, if Kubernetes has given up on a pod, or
        if somebody else has put another revision there; ConfigError if KServe took it for another mode.
    """
    deadline = cluster.now() + seconds
    while True:
        service = cluster.get(INFERENCE_SERVICES, MODEL_NAME)
        if service is None:
            raise DeploymentError(f"{revision}: somebody has deleted the InferenceService meanwhile")
        if (there := Revision.on(service)).name != revision.name:
            raise DeploymentError(f"{revision}: {there} was put in its place meanwhile, by somebody else")
        check_mode(service)
        pods = [pod for pod in cluster.list(PODS, labels=_PODS) if is_live(pod)]
        own = [pod for pod in pods if annotations_of(pod).get(REVISION_ANNOTATION, "") == revision.name]
        num_ready = sum(map(is_ready, own))
        if num_ready >= revision.replicas and len(pods) == len(own) and _says_ready(service):
            return str(service["status"].get("address", {}).get("url", "")).rstrip("/")
        if hopeless := [pod for pod in own if is_hopeless(pod)]:
            raise DeploymentError(f"{revision} cannot start: {ailment(cluster, hopeless[0])}")
        if cluster.now() >= deadline:
            told = f"{num_ready} of {revision.replicas} pods ready; {_reasons(cluster, service, own)}"
            raise DeploymentError(f"{revision} was not ready after {seconds:.0f} s: {told}")
        cluster.sleep(_POLL_SECONDS)


def _says_ready(service: Object) -> bool:
    return any(
        condition["type"] == "Ready" and condition["status"] == "True" for condition in _conditions(service)
    )


def _reasons(cluster: Cluster, service: Object, pods: list[Object]) -> str:
    """What speaks against a revision: its first pod that is not ready, and what KServe says."""
    found = [ailment(cluster, pod) for pod in pods if not is_ready(pod)][:1]
    for condition in _conditions(service):
        if condition["status"] != "True" and condition.get("severity") != "Info":
            told = " ".join(str(condition.get(word, "")) for word in ("reason", "message")).strip()
            found.append(
                f"KServe says {condition['type']}={condition['status']}: {told or 'no reason given'}"
            )
    if failure := service.get("status", {}).get("modelStatus", {}).get("lastFailureInfo"):
        found.append(f"{failure.get('reason', '')} {failure.get('message', '')}".strip())
    if not pods:
        refused = warnings(cluster, INFERENCE_SERVICES.kind, MODEL_NAME)
        refused = refused or warnings(cluster, "ReplicaSet", f"{MODEL_NAME}-predictor-")
        found.append(refused or "no pod of it was made; is KServe's controller running?")
    return "; ".join(found) or "pods of the revision before are still there"


def _conditions(service: Object) -> list[Object]:
    found: list[Object] = service.get("status", {}).get("conditions") or []
    return found
