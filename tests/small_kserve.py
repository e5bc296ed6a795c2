"""KServe as far as a deployment meets it: a controller of the small cluster, and the endpoint it makes.

Pods come and go as in a rolling update: the old one serves until the new one is ready. `fate` says how the
pods of each model version turn out.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from kubernetes import client
from small_cluster import Call, Object, SmallCluster
from small_endpoint import GOLDEN, right_answer

from prottune.cluster.connection import Cluster
from prottune.deployment.contract import check_endpoint
from prottune.deployment.kserve import KServeDeployment
from prottune.deployment.settings import DeployConfig

SERVICES = "inferenceservices.serving.kserve.io"
NAME = "prottune"
LEASES = "leases.coordination.k8s.io"
RIGHTS = {
    ("get", SERVICES),
    ("create", SERVICES),
    ("update", SERVICES),
    ("delete", SERVICES),
    ("list", "pods"),
    ("get", "pods/log"),
    ("list", "events"),
    ("get", LEASES),
    ("create", LEASES),
    ("update", LEASES),
}
"""All that a deployment may ask of the API server."""

CLUSTER_CONFIG = DeployConfig(to="kserve", max_probability_difference=0.02)
WAITING = {
    "no image": {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "prottune-torch:9"'},
    "crash": {"reason": "CrashLoopBackOff", "message": "back-off 40s restarting failed container"},
}


@dataclass
class SmallKServe:
    """Plays KServe's controller and the pods' kubelet."""

    cluster: SmallCluster
    fate: dict[str, str] = field(default_factory=dict)
    """Model version -> good (as all that are not named), wrong (answers), no image, crash, no node, never
    (ready), or no pod, no quota, no controller (nothing is there)."""
    delay: int = 0
    """So many times a client must wait before a pod that will be ready is ready."""
    url: str = ""
    serving: str = ""
    """Model version that the endpoint answers with; empty: it refuses connections as far as HTTP can."""
    served: list[str] = field(default_factory=list)
    """Every version that has served, in order."""
    mode: str = "Standard"
    seconds: float = 0.0

    def empty(self) -> None:
        """A cluster in which nothing was ever deployed."""
        self.cluster.clear()
        self.cluster.schemas = {}
        self.fate, self.delay, self.serving, self.served, self.mode = {}, 0, "", [], "Standard"

    def snapshot(self) -> tuple[Any, ...]:
        return self.cluster.snapshot(), deepcopy((self.fate, self.serving, self.served))

    def restore(self, taken: tuple[Any, ...]) -> None:
        objects, own = taken
        self.empty()
        self.cluster.restore(objects)
        self.fate, self.serving, self.served = deepcopy(own)

    def now(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        """A clock that needs no time: pods get on by it."""
        with self.cluster.lock:
            self.seconds += seconds
            if self.cluster.named("pods") and (due := self._due()) and self.seconds >= due[0]:
                self._make_ready(due[1])

    def reconcile(self, call: Call, written: Object) -> None:
        if call.resource != SERVICES:
            return
        if NAME not in self.cluster.named(SERVICES):
            for name in self.cluster.named("pods"):
                self.cluster.remove("pods", name)
            self._serve("")
            return
        revision = written["spec"]["predictor"].get("annotations", {})
        name = f"prottune-predictor-{revision.get('prottune.dev/revision', 'foreign')}"
        for other in self.cluster.named("pods"):  # the new one of a rollout before this one goes
            if other != name and not _is_ready(self.cluster.get("pods", other)):
                self.cluster.remove("pods", other)
        if name not in self.cluster.named("pods"):
            self._start(name, revision, _version(written))
        self._report()

    def _start(self, name: str, revision: dict[str, str], version: str) -> None:
        labels = {"serving.kserve.io/inferenceservice": NAME, "component": "predictor"}
        metadata = {"name": name, "labels": labels, "annotations": revision | {"test/version": version}}
        metadata["annotations"]["test/due"] = str(self.seconds + 2 * self.delay)
        fate, waiting = self.fate.get(version, "good"), {"reason": "ContainerCreating"}
        status: Object = {"phase": "Pending", "conditions": [{"type": "Ready", "status": "False"}]}
        container = {"name": "kserve-container", "state": {"waiting": WAITING.get(fate, waiting)}}
        if fate == "crash":
            container["lastState"] = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
            self.cluster.logs[name, "kserve-container (previous)"] = "loading\nMemoryError: model\n"
        if fate == "no node":
            message = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
            status["conditions"].append({"type": "PodScheduled", "status": "False", "message": message})
        else:
            status["containerStatuses"] = [container]
        if fate not in ("no pod", "no quota", "no controller"):
            self.cluster.put("pods", {"metadata": metadata, "status": status})
        if fate in ("good", "wrong") and not self.delay:
            self._make_ready(name)

    def _due(self) -> tuple[float, str] | None:
        for name in self.cluster.named("pods"):
            pod = self.cluster.get("pods", name)
            fate = self.fate.get(pod["metadata"]["annotations"]["test/version"], "good")
            if fate in ("good", "wrong") and not _is_ready(pod):
                return float(pod["metadata"]["annotations"]["test/due"]), name
        return None

    def _make_ready(self, name: str) -> None:
        def edit(pod: Object) -> None:
            pod["status"]["phase"] = "Running"
            pod["status"]["conditions"][0]["status"] = "True"

        self.cluster.change("pods", name, edit)
        for other in self.cluster.named("pods"):
            if other != name:
                self.cluster.remove("pods", other)
        self._serve(self.cluster.get("pods", name)["metadata"]["annotations"]["test/version"])
        self._report()

    def _serve(self, version: str) -> None:
        self.serving = version
        self.served.append(version)

    def _report(self) -> None:
        """Ready as KServe says it: of whatever serves, with a generation that is not the object's own."""
        if NAME not in self.cluster.named(SERVICES):
            return
        ready = "True" if self.serving else "False"
        status = {
            "observedGeneration": 99,
            "deploymentMode": self.mode,
            "address": {"url": self.url},
            "conditions": [{"type": "Ready", "status": ready, "reason": "MinimumReplicasUnavailable"}],
        }
        self.cluster.change(SERVICES, NAME, lambda found: found.update(status=status))


@contextmanager
def controlled(cluster: SmallCluster) -> Iterator[SmallKServe]:
    """A small cluster with KServe in it, and an endpoint that answers as its pods would."""
    kserve = SmallKServe(cluster)
    cluster.after_write = kserve.reconcile

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            self.reply(200 if kserve.serving else 503, {})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            answer = right_answer(self.path, body, kserve.serving)
            if kserve.fate.get(kserve.serving) == "wrong" and "predictions" in answer:
                answer["predictions"].reverse()
            self.reply(200, answer)

        def reply(self, status: int, answer: dict[str, Any]) -> None:
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    kserve.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield kserve
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _is_ready(pod: Object) -> bool:
    return bool(pod["status"]["conditions"][0]["status"] == "True")


def _version(service: Object) -> str:
    return str(service["metadata"].get("annotations", {}).get("prottune.dev/model-version", "foreign"))


def connected(kserve: SmallKServe, api: type[client.ApiClient] = client.ApiClient) -> Cluster:
    settings = client.Configuration(host=kserve.cluster.url)
    settings.retries = False
    seconds = 0.15 if "timeout" in kserve.cluster.faults.values() else 5.0
    return Cluster(api(settings), "lab", read_seconds=seconds, now=kserve.now, sleep=kserve.sleep)


def deployed(
    kserve: SmallKServe,
    folder: Path,
    version: str,
    config: DeployConfig = CLUSTER_CONFIG,
    cluster: Cluster | None = None,
) -> float:
    """Deploy a version and ask it its golden sequences, as `deploy` does."""
    place = KServeDeployment(cluster or connected(kserve))
    with place.endpoint(folder, f"minio://models/{version}", config, version) as endpoint:
        assert endpoint.still_running
        return check_endpoint(endpoint.url, GOLDEN, config, version)


def spec_of(kserve: SmallKServe) -> Any:
    return kserve.cluster.get(SERVICES, NAME)["spec"]


def free(kserve: SmallKServe) -> bool:
    """Whether no rollout goes on, and none died."""
    lease = kserve.cluster.get(LEASES, "prottune-rollout")
    return "holderIdentity" not in lease["spec"] and not lease["metadata"].get("annotations")
