"""The TrainJob itself: what it asks for, what it takes over from the step's pod, that it fits the schema."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from crd_schemas import schema_of
from small_cluster import SmallCluster, serving
from small_trainer import JOBS, RUN, STEP_POD, SmallTrainer, connected, runtime, step_pod

from prottune.cluster.objects import TRAIN_JOBS
from prottune.cluster.own_pod import OwnPod, own_pod
from prottune.errors import ConfigError
from prottune.training.order import ORDER_VARIABLE, Order
from prottune.training.settings import TrainConfig
from prottune.training.trainjob import end_of, is_same_training, job_name, suspension_of, train_job

CONFIG = TrainConfig(base_model="tiny", num_nodes=2, num_processes=4, node_gpus=4)
ORDER = Order(CONFIG, "s3://bucket/run-1", "digest-of-the-tokens")


@pytest.fixture(scope="module")
def trainer() -> Iterator[SmallTrainer]:
    with serving(SmallCluster()) as cluster:
        yield SmallTrainer(cluster)


@pytest.fixture
def pod(trainer: SmallTrainer, monkeypatch: pytest.MonkeyPatch) -> OwnPod:
    """The step's pod, as the API server tells it to the step."""
    trainer.begin()
    monkeypatch.setenv("KFP_POD_NAME", STEP_POD)
    monkeypatch.setenv("PROTTUNE_PIPELINE_RUN", RUN)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "the-secret-itself")
    monkeypatch.setenv("HF_TOKEN", "another-secret")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:password@mlflow")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "prottune")
    monkeypatch.setenv("PROTTUNE_FAILURE_FILE", "/tmp/of-this-step")
    monkeypatch.setenv("AWS_CA_BUNDLE", "/tmp/of-this-pod")
    return own_pod(connected(trainer))


def job(pod: OwnPod, order: Order = ORDER) -> dict[str, Any]:
    return train_job("prottune-run-1", order, runtime(), pod)


def test_a_train_job_asks_for_nodes_processes_and_gpus(pod: OwnPod) -> None:
    spec = job(pod)["spec"]
    asked = spec["trainer"]
    assert spec["runtimeRef"] == {
        "apiGroup": "trainer.kubeflow.org",
        "kind": "TrainingRuntime",
        "name": "prottune",
    }
    assert (asked["numNodes"], asked["numProcPerNode"]) == (2, 4)
    assert asked["command"] == ["torchrun", "-m", "prottune.training.node"]
    assert asked["resourcesPerNode"] == {
        "requests": {"cpu": "2", "memory": "8Gi"},
        "limits": {"memory": "64Gi", "nvidia.com/gpu": "4"},
    }
    assert spec["activeDeadlineSeconds"] == 86400


def test_on_processors_the_number_of_processes_is_said_all_the_same(pod: OwnPod) -> None:
    asked = job(pod, replace(ORDER, config=replace(CONFIG, node_gpus=0)))["spec"]["trainer"]
    assert asked["numProcPerNode"] == 4, "Trainer would start one for each core"
    assert "nvidia.com/gpu" not in asked["resourcesPerNode"]["limits"]


def test_image_nodes_and_tolerations_are_those_of_the_steps_pod(pod: OwnPod) -> None:
    made = job(pod)
    assert made["spec"]["trainer"]["image"] == "registry/prottune-torch:7"
    (patch,) = made["spec"]["runtimePatches"]
    (replicated,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    assert replicated["template"]["spec"]["template"]["spec"] == {
        "nodeSelector": {"pool": "gpu"},
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
    }
    (owner,) = made["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"]) == ("Pod", STEP_POD)


def test_a_pull_secret_that_the_pod_names_twice_is_named_once(trainer: SmallTrainer, pod: OwnPod) -> None:
    """A pod may, but an entry of a TrainJob's list must be the only one of its name."""
    named = [{"name": "registry"}, {"name": "mirror"}, {"name": "registry"}]
    trainer.cluster.change("pods", STEP_POD, lambda found: found["spec"].update(imagePullSecrets=named))
    cluster = connected(trainer)
    trainer.cluster.schemas = {JOBS: schema_of(JOBS)}
    cluster.settle(TRAIN_JOBS, "prottune-run-1", lambda there: job(own_pod(cluster)))
    (patch,) = trainer.jobs[0]["spec"]["runtimePatches"]
    (replicated,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    spec = replicated["template"]["spec"]["template"]["spec"]
    assert spec["imagePullSecrets"] == [{"name": "registry"}, {"name": "mirror"}]


def test_secrets_go_over_by_reference_and_no_value_that_may_be_one(pod: OwnPod) -> None:
    made = job(pod)
    told = {entry["name"]: entry for entry in made["spec"]["trainer"]["env"]}
    assert told["AWS_ACCESS_KEY_ID"] == step_pod()["spec"]["containers"][1]["env"][0]
    assert told["AWS_SECRET_ACCESS_KEY"]["valueFrom"]["secretKeyRef"]["name"] == "prottune-s3"
    assert told["PROTTUNE_PIPELINE_RUN"]["value"] == RUN, "the nodes have no such label"
    assert told["MLFLOW_EXPERIMENT_NAME"]["value"] == "prottune"
    assert {"HF_TOKEN", "MLFLOW_TRACKING_URI", "PROTTUNE_FAILURE_FILE"}.isdisjoint(told)
    assert not {"the-secret-itself", "another-secret", "password"} & set(json.dumps(made).split('"'))
    assert not any(name.startswith("PET_") for name in told), "Trainer refuses those"


def test_whom_a_pod_is_taken_for_and_its_files_stay_with_it(
    trainer: SmallTrainer, pod: OwnPod, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "AWS_ROLE_ARN": "arn:aws:iam::1:role/of-the-steps-account",
        "AWS_WEB_IDENTITY_TOKEN_FILE": "/var/run/secrets/eks.amazonaws.com/serviceaccount/token",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://169.254.170.23/v1/credentials",
        "AWS_ENDPOINT_URL_STS": "https://sts.example",
    }.items():
        monkeypatch.setenv(name, value)
    told = {entry["name"]: entry for entry in job(own_pod(connected(trainer)))["spec"]["trainer"]["env"]}
    assert told["AWS_ENDPOINT_URL_STS"]["value"] == "https://sts.example"
    assert [name for name in told if name.startswith("AWS_")] == [
        "AWS_ACCESS_KEY_ID",
        "AWS_CA_BUNDLE",
        "AWS_ENDPOINT_URL_STS",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
    ]
    assert told["AWS_CA_BUNDLE"]["valueFrom"]["configMapKeyRef"]["name"] == "prottune"
    reference = told["AWS_SESSION_TOKEN"]["valueFrom"]["secretKeyRef"]
    assert reference == {"name": "prottune-s3", "key": "AWS_SESSION_TOKEN", "optional": True}


@pytest.mark.parametrize("inside", [True, False], ids=["in a pod", "outside"])
def test_a_train_job_fits_the_schema(pod: OwnPod, inside: bool) -> None:
    assert schema_of(JOBS).errors(job(pod if inside else OwnPod())) == []


OF_A_LAPTOP = {
    "S3_ENDPOINT": "http://localhost:8333",
    "MLFLOW_TRACKING_URI": "http://localhost:5000",
    "HF_HOME": "/home/me/.cache/huggingface",
    "AWS_PROFILE": "work",
}
"""Addresses and folders that hold on a laptop and mean something else, or nothing, in a pod."""


def test_outside_a_cluster_image_and_nodes_are_the_runtimes(
    trainer: SmallTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer.begin()
    monkeypatch.delenv("KFP_POD_NAME", raising=False)
    for name, value in OF_A_LAPTOP.items():
        monkeypatch.setenv(name, value)
    made = job(own_pod(connected(trainer)))
    assert "image" not in made["spec"]["trainer"]
    assert "runtimePatches" not in made["spec"]
    assert "ownerReferences" not in made["metadata"]
    told = {entry["name"]: entry for entry in made["spec"]["trainer"]["env"]}
    assert not OF_A_LAPTOP.keys() & told.keys(), "the nodes have these from the namespace's ConfigMap"
    assert {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", ORDER_VARIABLE} <= told.keys()
    assert "secretKeyRef" in told["AWS_ACCESS_KEY_ID"]["valueFrom"]


@pytest.mark.parametrize("run", ["", "run/1", "Run", "x" * 37, "-a"])
def test_a_run_that_makes_no_name_is_hashed(run: str) -> None:
    name = job_name(run, "s3://bucket/run-1")
    assert len(name) == 25
    assert name == job_name(run, "s3://bucket/run-1")
    assert name != job_name(run, "s3://bucket/run-2")


def test_the_name_is_that_of_the_run_and_leaves_room_for_the_names_of_its_pods() -> None:
    run = "0a1b2c3d-0a1b-0a1b-0a1b-0a1b2c3d4e5f"
    assert job_name(run, "s3://b/1") == f"prottune-{run}"
    assert len(f"prottune-{run}-node-0-99-abcde") <= 63


def test_another_manager_of_its_pods_makes_no_other_training_but_another_setting_does(pod: OwnPod) -> None:
    found = job(pod)
    found["spec"]["runtimePatches"].append({"manager": "kueue.x-k8s.io/manager"})
    assert is_same_training(found, job(pod))
    assert not is_same_training(found, job(pod, replace(ORDER, config=replace(CONFIG, epochs=3))))
    assert not is_same_training({"spec": {}}, job(pod))


def test_an_end_is_a_condition_that_holds() -> None:
    suspended = {"type": "Suspended", "status": "True", "reason": "Queued", "message": "no quota"}
    failed = {"type": "Failed", "status": "False", "reason": "x", "message": ""}
    waiting = {"status": {"conditions": [suspended, failed]}}
    assert (end_of(waiting), suspension_of(waiting)) == (("", ""), "suspended: Queued: no quota")
    over = {"status": {"conditions": [failed | {"status": "True", "reason": "DeadlineExceeded"}]}}
    assert (end_of(over), suspension_of(over)) == (("Failed", "DeadlineExceeded:"), "")
    assert end_of({}) == ("", "")


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"node_gpus": 2}, "node_gpus=2, num_processes=4: expected one GPU for each process of a node"),
        ({"node_gpus": -1}, "node_gpus=-1: expected at least 0"),
    ],
)
def test_gpus_that_no_process_would_use_are_refused(settings: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigError, match=line):
        replace(CONFIG, **settings)


def test_an_order_needs_places_that_all_nodes_reach(tmp_path: Any) -> None:
    with pytest.raises(ConfigError, match=r"checkpoints='runs/x', expected an s3:// prefix"):
        Order.of("digest", CONFIG, "runs/x")
    with pytest.raises(ConfigError, match="is a folder of this machine"):
        Order.of("digest", replace(CONFIG, base_model=str(tmp_path)), "s3://bucket/run")
    order = Order.of("digest", CONFIG, "minio://bucket/run/")
    assert order.at("model") == "s3://bucket/run/launch/model"
    assert Order.parse(order.text) == order
