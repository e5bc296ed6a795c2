"""Custom resources in a real Kubernetes API server: what it takes, refuses, fills in, and how it answers.

The whole of a deployment and of a training on nodes is run against it by tests/deployment/ and
tests/training/test_launching.py, whose tests take the parameter `real`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from api_server import ApiServer
from crd_schemas import FILES, schema_of
from half_real_cluster import HalfRealCluster
from small_cluster import SmallCluster, serving
from small_trainer import runtime

from pipelines import manifests
from pipelines.checks import kubeflow
from pipelines.checks.surroundings import DoctorFlags, Surroundings
from prottune.cluster.objects import covers
from prottune.cluster.own_pod import OwnPod
from prottune.deployment.revision import Revision, predictor
from prottune.deployment.settings import DeployConfig
from prottune.training.order import Order
from prottune.training.settings import TrainConfig
from prottune.training.trainjob import is_same_training, train_job

pytestmark = pytest.mark.integration

Document = dict[str, Any]
SERVICES, RUNTIMES, JOBS, TRAINING_RUNTIMES = FILES
RESOURCES = {"InferenceService": SERVICES, "ServingRuntime": RUNTIMES, "TrainJob": JOBS}
RESOURCES["TrainingRuntime"] = TRAINING_RUNTIMES
NAMED_FREELY = ("annotations", "labels", "matchLabels", "limits", "requests", "nodeSelector")
"""Fields whose own fields anybody may name."""


@pytest.fixture
def client(api_server: ApiServer) -> Iterator[httpx.Client]:
    with HalfRealCluster(api_server), api_server.client() as client:  # which leaves nothing behind
        yield client


def path_of(resource: str, name: str = "") -> str:
    plural, _, _ = resource.partition(".")
    return f"/apis/{schema_of(resource).version}/namespaces/lab/{plural}/{name}".rstrip("/")


def tried(client: httpx.Client, document: Document, kind: str = "") -> httpx.Response:
    """What the server answers to an object that it then does not keep."""
    strictly = {"fieldValidation": "Strict", "dryRun": "All"}
    return client.post(path_of(RESOURCES[kind or document["kind"]]), json=document, params=strictly)


def shipped(scratch: Path) -> Iterator[tuple[str, Document]]:
    """Every custom object of an overlay that KServe or Trainer defines."""
    command = manifests.kustomize_command()
    if command is None:
        pytest.skip("not run here: neither kustomize nor kubectl is here")
    for overlay in manifests.OVERLAYS:
        for document in manifests.rendered(overlay, command, scratch):
            if document["kind"] in RESOURCES:
                document["metadata"].pop("namespace")
                yield f"{overlay} {document['kind']}", document


def service() -> Document:
    config = DeployConfig(to="kserve", serving_gpus=1, cpu="2", memory="8Gi", replicas=2)
    spec = {"predictor": predictor("s3://models/1", config, "1")}
    return Revision(spec, {"prottune.dev/model-version": "1"}).put_on(None)


def job() -> Document:
    config = TrainConfig(base_model="tiny", num_nodes=2, num_processes=2, node_gpus=2)
    reference = {"secretKeyRef": {"name": "prottune-s3", "key": "AWS_ACCESS_KEY_ID"}}
    pod = OwnPod(
        owner={"apiVersion": "v1", "kind": "Pod", "name": "train-step-1", "uid": "uid-1"},
        image="registry/prottune-torch:7",
        node_selector={"pool": "gpu"},
        tolerations=({"key": "nvidia.com/gpu", "operator": "Exists", "tolerationSeconds": 300},),
        pull_secrets=({"name": "registry"},),
        environment=({"name": "AWS_ACCESS_KEY_ID", "valueFrom": reference}, {"name": "EMPTY", "value": ""}),
    )
    return train_job("prottune-run-1", Order(config, "s3://bucket/run-1", "0" * 64), runtime(), pod)


def test_all_that_the_manifests_ship_is_taken(client: httpx.Client, tmp_path: Path) -> None:
    answers = {name: tried(client, document) for name, document in shipped(tmp_path)}
    assert len(answers) == 2 * len(manifests.OVERLAYS)
    assert {name: reply.text for name, reply in answers.items() if reply.status_code != 201} == {}


@pytest.mark.parametrize("made", [service, job])
def test_what_a_deployment_and_a_training_make_is_taken(
    client: httpx.Client, made: Callable[[], Document]
) -> None:
    reply = tried(client, made())
    assert reply.status_code == 201, reply.text


def misspelt(document: Document) -> Iterator[tuple[str, Document]]:
    """The document again and again, each time with another name of a field wrong; and where that is."""
    for path in paths_of(document):
        changed = copy.deepcopy(document)
        inner: Any = changed
        for step in path[:-1]:
            inner = inner[step]
        inner[f"{path[-1]}x"] = inner.pop(path[-1])
        yield ".".join(map(str, path)), changed


def paths_of(content: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(content, list):
        for index, inner in enumerate(content):
            yield from paths_of(inner, (*path, index))
    if isinstance(content, dict):
        for name, inner in content.items():
            if not (path and path[-1] in NAMED_FREELY):
                yield (*path, name)
            yield from paths_of(inner, (*path, name))


def test_each_name_of_a_field_that_is_misspelt_is_refused(client: httpx.Client, tmp_path: Path) -> None:
    documents = [service(), job(), *dict(shipped(tmp_path)).values()]
    num_names, taken = 0, []
    for document in documents:
        for where, changed in misspelt(document):
            num_names += 1
            if tried(client, changed, document["kind"]).status_code not in (400, 422):
                taken.append(f"{document['kind']} {where}")
    assert taken == []
    assert num_names > 300


@pytest.mark.parametrize("made", [service, job])
def test_what_the_server_fills_in_is_no_difference(
    client: httpx.Client, made: Callable[[], Document]
) -> None:
    wanted = made()
    kept = tried(client, wanted).json()
    assert covers(kept["spec"], wanted["spec"])
    if made is job:
        assert kept["spec"] != wanted["spec"], "the schema has defaults"
        assert is_same_training(kept, wanted)
    else:
        assert Revision.on(wanted).is_on(kept)


@pytest.mark.parametrize("check", [kubeflow.kserve, kubeflow.trainer])
def test_the_doctor_reads_the_schemas_that_are_served(
    api_server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, check: Callable[..., Any]
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(api_server.kubeconfig(tmp_path / "config", "lab")))
    found = check(Surroundings(DoctorFlags()))
    assert (found.state, found.advice) == ("ok", ""), found.found
    assert "served with all fields that are written" in found.found


def test_the_doctor_tells_a_field_that_the_served_schema_does_not_know(
    api_server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(api_server.kubeconfig(tmp_path / "config", "lab")))
    monkeypatch.setitem(kubeflow.TRAIN_JOB, "speck", 1)
    found = kubeflow.trainer(Surroundings(DoctorFlags()))
    assert (found.state, "TrainJob spec.speck" in found.found) == ("warning", True)
    assert "only" in found.advice, "one node trains without a Trainer"


@dataclass
class Talk:
    """Requests to one server, and what was said there, without what differs from server to server."""

    client: httpx.Client
    said: list[tuple[str, int, Any]] = field(default_factory=list)

    def ask(self, method: str, path: str, body: Any = None, **query: str) -> Any:
        reply = self.client.request(method, path, json=body, params=query)
        answer = reply.json()
        self.said.append((f"{method} {path}", reply.status_code, essence(answer)))
        return answer


def essence(answer: Document) -> Any:
    """Of a refusal the reason; of an object all but its marks of time and place."""
    if answer.get("kind") == "Status":
        return answer["status"], answer.get("reason", "")
    if "items" in answer:
        return [essence(item) for item in answer["items"]]
    marks = ("uid", "resourceVersion", "creationTimestamp", "managedFields")
    metadata = {name: value for name, value in answer["metadata"].items() if name not in marks}
    metadata |= {"deletionTimestamp": "some time"} if "deletionTimestamp" in metadata else {}
    return answer | {"metadata": metadata}


def a_life(talk: Talk) -> None:
    """Made, changed, changed with an old version, deleted."""
    name = path_of(SERVICES, "prottune")
    talk.ask("GET", name)
    made = talk.ask("POST", path_of(SERVICES), service() | {"status": {"url": "http://forged"}})
    talk.ask("POST", path_of(SERVICES), service())
    same = talk.ask("PUT", name, made)
    talk.said.append(
        ("no change", same["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"], 0)
    )
    labelled = talk.ask("PUT", name, made | {"metadata": made["metadata"] | {"labels": {"cost": "7"}}})
    talk.ask("PUT", name, made)
    labelled["spec"]["predictor"]["minReplicas"] = 3
    changed = talk.ask("PUT", name, labelled)
    talk.ask("PUT", name, service())
    talk.ask("DELETE", name, {"preconditions": {"uid": "another"}})
    talk.ask("DELETE", name, {"preconditions": {"resourceVersion": made["metadata"]["resourceVersion"]}})
    talk.ask("GET", path_of(SERVICES))
    talk.ask("DELETE", name, {"preconditions": {"uid": changed["metadata"]["uid"]}})
    talk.ask("GET", name)
    talk.ask("PUT", name, changed)
    talk.ask("DELETE", name)


def a_status(talk: Talk) -> None:
    """Written by its own path, which writes nothing else."""
    name = path_of(SERVICES, "prottune")
    made = talk.ask("POST", path_of(SERVICES), service())
    status = {"deploymentMode": "Standard", "conditions": [{"type": "Ready", "status": "True"}]}
    told = talk.ask("PUT", f"{name}/status", made | {"status": status, "spec": {"predictor": {}}})
    talk.ask("PUT", f"{name}/status", made | {"status": status})
    forged = talk.ask("PUT", name, told | {"status": {"deploymentMode": "Knative"}})
    talk.ask("PUT", f"{name}/status", forged | {"status": {"conditions": "none"}})


def unknown_fields(talk: Talk) -> None:
    """Dropped without a word, or refused if that is asked for."""
    misspelt = service()
    misspelt["spec"]["predictor"]["minReplica"] = misspelt["spec"]["predictor"].pop("minReplicas")
    talk.ask("POST", path_of(SERVICES), misspelt, fieldValidation="Strict")
    made = talk.ask("POST", path_of(SERVICES), misspelt)
    made["spec"]["predictor"]["model"]["storageUrl"] = "s3://models/2"
    talk.ask("PUT", path_of(SERVICES, "prottune"), made)
    talk.ask("PUT", path_of(SERVICES, "prottune"), made, fieldValidation="Strict")


def wrong_values(talk: Talk) -> None:
    """Refused by type, by range, by kind, by name."""
    wrong = service()
    wrong["spec"]["predictor"]["minReplicas"] = "one"
    talk.ask("POST", path_of(SERVICES), wrong)
    talk.ask("POST", path_of(SERVICES), service() | {"kind": "TrainJob"})
    talk.ask("POST", path_of(SERVICES), service() | {"spec": {}})
    talk.ask("POST", path_of(SERVICES), service() | {"metadata": {}})
    elsewhere = {"name": "prottune", "namespace": "other"}
    talk.ask("POST", path_of(SERVICES), service() | {"metadata": elsewhere})
    twice = job()
    twice["spec"]["trainer"]["env"].append({"name": "EMPTY", "value": "again"})
    talk.ask("POST", path_of(JOBS), twice)


def defaults(talk: Talk) -> None:
    """Filled in where the schema says so; what may not change does not."""
    name = path_of(JOBS, "prottune-run-1")
    made = talk.ask("POST", path_of(JOBS), job())
    talk.ask("PUT", name, made)
    without = copy.deepcopy(made)
    without["spec"].pop("suspend")
    without["spec"].pop("managedBy")
    talk.ask("PUT", name, without)
    other = copy.deepcopy(made)
    other["spec"]["trainer"]["numNodes"] = 3
    talk.ask("PUT", name, other)
    made["metadata"]["ownerReferences"][0] |= {"name": "train-step-2", "uid": "uid-2"}
    talk.ask("PUT", name, made)


def no_status_of_its_own(talk: Talk) -> None:
    """A runtime is changed as a whole."""
    spec = {"containers": [{"name": "kserve-container", "image": "x", "ports": [{"containerPort": 8080}]}]}
    (group,) = (document for document in manifests.objects("ServingRuntime"))
    made = talk.ask("POST", path_of(RUNTIMES), group | {"spec": spec})
    made["spec"]["containers"][0]["image"] = "y"
    talk.ask("PUT", path_of(RUNTIMES, "prottune"), made)
    talk.ask("PUT", path_of(RUNTIMES, "prottune") + "/status", made)


def finalizers(talk: Talk) -> None:
    """Who has one stays until it is taken away."""
    name = path_of(SERVICES, "prottune")
    held = service()
    held["metadata"]["finalizers"] = ["kserve.io/finalizer"]
    talk.ask("POST", path_of(SERVICES), held)
    going = talk.ask("DELETE", name)
    going = talk.ask("DELETE", name)
    talk.ask("POST", path_of(SERVICES), service())
    going["spec"]["predictor"]["minReplicas"] = 4
    going = talk.ask("PUT", name, going)
    going["metadata"].pop("finalizers")
    talk.ask("PUT", name, going)
    talk.ask("GET", name)


@pytest.mark.parametrize(
    "conversation",
    [a_life, a_status, unknown_fields, wrong_values, defaults, no_status_of_its_own, finalizers],
)
def test_the_small_cluster_answers_as_the_real_server_does(
    client: httpx.Client, conversation: Callable[[Talk], None]
) -> None:
    real = Talk(client)
    conversation(real)
    with serving(SmallCluster()) as cluster, httpx.Client(base_url=cluster.url, trust_env=False) as other:
        cluster.schemas = {resource: schema_of(resource) for resource in FILES}
        small = Talk(other)
        conversation(small)
    assert small.said == real.said
