"""A real MLflow server, started as manifests/base/mlflow.yaml starts it, answers to its names there only."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest
from mlflow_template import new_store

from pipelines import manifests
from prottune.tracking.mlflow_store import mlflow_client

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


@dataclass(frozen=True)
class Server:
    """Where it listens, and its database."""

    url: str
    database: str


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("mlflow")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    (deployment,) = manifests.objects("Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    plain = {entry["name"]: entry["value"] for entry in container["env"] if "value" in entry}
    ours = {"MLFLOW_BACKEND_STORE_URI": new_store(folder), "HOME": str(folder)}
    changed = {
        "--host=0.0.0.0": "--host=127.0.0.1",
        "--port=5000": f"--port={port}",
        "--workers=2": "--workers=1",
    }
    destination = "--artifacts-destination=$(MLFLOW_ARTIFACTS)"
    changed[destination] = destination.replace("$(MLFLOW_ARTIFACTS)", str(folder / "artifacts"))
    args = [changed.get(word, word) for word in container["args"]]
    assert container["command"] == ["mlflow", "server"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *container["command"], *args],
            env=os.environ | plain | ours,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        while process.poll() is None:
            try:
                httpx.get(f"http://127.0.0.1:{port}/health", trust_env=False)
                break
            except httpx.TransportError:
                time.sleep(0.2)
        assert process.poll() is None, (folder / "log").read_text()
        yield Server(f"http://127.0.0.1:{port}", ours["MLFLOW_BACKEND_STORE_URI"])
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("prottune-mlflow:5000", 200),
        ("prottune-mlflow.kubeflow.svc.cluster.local:5000", 200),
        ("localhost:5000", 200),
        ("other.example", 403),
        ("10.1.2.3:5000", 403),
    ],
)
def test_it_answers_to_its_own_names_only(host: str, status: int, server: Server) -> None:
    address = f"{server.url}/api/2.0/mlflow/experiments/search"
    answer = httpx.post(address, json={"max_results": 1}, headers={"Host": host}, trust_env=False)
    assert answer.status_code == status, answer.text


def test_its_database_is_the_one_that_its_environment_names(server: Server) -> None:
    address = f"{server.url}/api/2.0/mlflow/registered-models/create"
    made = httpx.post(address, json={"name": "m"}, headers={"Host": "localhost"}, trust_env=False)
    assert made.status_code == 200, made.text
    assert mlflow_client(server.database).get_registered_model("m").name == "m"


def test_probes_are_answered_whatever_the_host_is(server: Server) -> None:
    answer = httpx.get(f"{server.url}/health", headers={"Host": "10.1.2.3:5000"}, trust_env=False)
    assert answer.status_code == 200
