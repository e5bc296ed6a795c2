"""Tracking and registration against a real MLflow server over http."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from mlflow_template import new_store
from test_registration import model_folder, report_on

from prottune.artifacts import read_manifest
from prottune.mlflow_store import mlflow_client
from prottune.registration import champion_folder, promote, register
from prottune.tracking import MlflowTracker, close_run, open_tracker, step

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("mlflow")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--workers", "1", "--backend-store-uri", new_store(folder)]
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
    quiet["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
    command += ["--artifacts-destination", str(folder / "artifacts")]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, env=os.environ | quiet, stdout=log, stderr=log, start_new_session=True
        )
    try:
        _wait(f"http://127.0.0.1:{port}/health", process)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(url, trust_env=False).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.2)
    raise AssertionError("the MLflow server did not start")


@pytest.fixture(autouse=True)
def _environment(server: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    monkeypatch.setenv("PROTTUNE_PIPELINE_RUN", request.node.name)


def test_a_run_is_tracked_and_its_files_are_kept_by_the_server(server: str, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("<p>")
    with step("train") as tracker:
        tracker.point({"step": 3, "train/loss": 0.5})
        tracker.artifact(tmp_path / "page.html", "reports")
    close_run("FINISHED")
    client = mlflow_client(server)
    run = client.get_run(tracker.run_id)
    assert (run.info.status, run.data.metrics) == ("FINISHED", {"train/loss": 0.5})
    assert [file.path for file in client.list_artifacts(tracker.run_id, "reports")] == ["reports/page.html"]
    assert run.info.artifact_uri.startswith("mlflow-artifacts:/")


def test_a_model_on_this_disk_is_uploaded_and_comes_back_as_the_champion(tmp_path: Path) -> None:
    model = model_folder(tmp_path / "model")
    report = report_on(model)
    first = register(model, str(model), report, "run-1")
    assert (first.created, first.uploaded) == (True, True)
    assert first.uri.startswith("mlflow-artifacts:/")
    again = register(model, str(model), report, "run-1")
    assert (again.version, again.created) == (first.version, False)
    assert promote(first.version, "").promoted
    with champion_folder() as (folder, version):
        assert version == first.version
        assert folder is not None
        assert folder != model
        assert read_manifest(folder, "train").digest == read_manifest(model).digest


def test_a_model_in_a_store_is_registered_where_it_lies(tmp_path: Path) -> None:
    model = model_folder(tmp_path / "model", "other weights")
    entry = register(model, "s3://bucket/runs/1/model", report_on(model), "run-2")
    assert (entry.uri, entry.uploaded) == ("s3://bucket/runs/1/model", False)


def test_a_server_that_freezes_holds_training_up_for_half_a_minute_at_most(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tracker = open_tracker()
    assert isinstance(tracker, MlflowTracker)
    with socket.create_server(("127.0.0.1", 0)) as frozen:  # accepts and never answers
        address = f"http://127.0.0.1:{frozen.getsockname()[1]}"
        stuck = MlflowTracker(mlflow_client(address), tracker.run_id)
        begun = time.monotonic()
        for number in range(1000):
            stuck.numbers({"train/loss": number})
    assert time.monotonic() - begun < 30
    assert stuck.num_failed == 1
