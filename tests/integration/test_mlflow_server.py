"""Tracking and registration against a real MLflow server over http, also while it dies and comes back."""

from __future__ import annotations

import gc
import itertools
import json
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from judged_models import model_folder, report_on
from mlflow_server import Server, mlflow_server
from toy_proteins import toy_flags, write_base, write_toy

from pipelines.checks import services
from pipelines.checks.surroundings import DoctorFlags, Surroundings
from prottune.artifacts import read_manifest
from prottune.errors import TrackingError
from prottune.ingestion.settings import IngestConfig
from prottune.ingestion.stage import ingest
from prottune.registration.champion import champion_folder, find_champion
from prottune.registration.promotion import promote
from prottune.registration.stage import register
from prottune.tokenization import TokenizeConfig, tokenize
from prottune.tracking import tracker as tracker_module
from prottune.tracking import unsent
from prottune.tracking.mlflow_store import mlflow_client
from prottune.tracking.step import close_run, step
from prottune.tracking.tracker import MlflowTracker

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(1800),
]  # many share some machines

NUM_POINTS = 10_000
MOST_SECONDS = 0.010
"""What a training step may lose to tracking, whatever MLflow does."""
PATIENCE_SECONDS = 1.0
"""Beyond this no machine is to blame: a point that waited for MLflow waited for its pauses and timeouts."""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with mlflow_server(tmp_path_factory.mktemp("mlflow")) as server:
        yield server


@pytest.fixture
def server(running: Server) -> str:
    """The server's address; if a test that failed has left it dead, it is started again."""
    if not running.is_alive:
        running.start()
        running.wait()
    return running.uri


@pytest.fixture(autouse=True)
def _environment(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    monkeypatch.setenv("PROTTUNE_PIPELINE_RUN", request.node.name)
    monkeypatch.setenv("PROTTUNE_UNSENT", str(tmp_path / "unsent"))


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


def test_the_doctor_finds_the_host_name_that_the_server_refuses(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    found = services.mlflow(Surroundings(DoctorFlags()))
    assert (found.state, found.found) == ("failed", f"{server} answers 403 to Host prottune-mlflow:5000")


def test_a_model_on_this_disk_is_uploaded_and_comes_back_as_the_champion(tmp_path: Path) -> None:
    model = model_folder(tmp_path / "model")
    report = report_on(model)
    first = register(model, str(model), report, "run-1")
    assert (first.created, first.uploaded) == (True, True)
    assert first.uri.startswith("mlflow-artifacts:/")
    again = register(model, str(model), report, "run-1")
    assert (again.version, again.created) == (first.version, False)
    before = find_champion()
    assert promote(first.version, before.version if before else "").promoted
    with champion_folder() as (folder, version):
        assert version == first.version
        assert folder is not None
        assert folder != model
        assert read_manifest(folder, "train").digest == read_manifest(model).digest


def test_a_model_in_a_store_is_registered_where_it_lies(tmp_path: Path) -> None:
    model = model_folder(tmp_path / "model", "other weights")
    entry = register(model, "s3://bucket/runs/1/model", report_on(model), "run-2")
    assert (entry.uri, entry.uploaded) == ("s3://bucket/runs/1/model", False)


@pytest.fixture
def _heap_of_a_step() -> Iterator[None]:
    """Collecting all that this suite keeps stops every thread for half a second; a step keeps less."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def losses(server: str, run_id: str, key: str = "train/loss") -> list[tuple[int, float]]:
    history = mlflow_client(server).get_metric_history(run_id, key)
    return sorted((metric.step, metric.value) for metric in history)


def note(tracker: MlflowTracker, number: int) -> float | None:
    """Note one point as a training does; returns its seconds, None if the machine had other work then."""
    stopped, begun = _times_stopped(), time.perf_counter()
    tracker.point({"step": number, "train/loss": number / 7})
    seconds = time.perf_counter() - begun
    return seconds if _times_stopped() == stopped else None


def _times_stopped() -> int:
    """How often a thread of ours gave its core to another program, though it waited for nothing.

    Of any thread: while one that holds the interpreter's lock is stopped, the others cannot go on either.
    """
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def assert_none_waited(taken: list[float | None]) -> None:
    """999 of 1,000 points kept the limit; the rest is for a machine that has no core free when one wakes.

    A call of 500 numbers that a point waits for would be two points of 1,000.
    """
    seconds = sorted(one for one in taken if one is not None)
    median, late, latest = (seconds[int(share * len(seconds))] for share in (0.5, 0.99, 0.999))
    print(
        f"{len(seconds)} points: median {median * 1e3:.3f} ms, 99 % {late * 1e3:.3f} ms, 99.9 % "
        f"{latest * 1e3:.3f} ms, longest {seconds[-1] * 1e3:.3f} ms; stopped by the machine: "
        f"{len(taken) - len(seconds)}"
    )
    assert len(seconds) > 0.9 * len(taken)
    assert latest < MOST_SECONDS
    assert seconds[-1] < PATIENCE_SECONDS


@pytest.mark.usefixtures("_heap_of_a_step")
def test_a_server_killed_and_restarted_costs_no_time_no_point_and_doubles_none(running: Server) -> None:
    seconds = []
    with step("train") as tracker:
        assert isinstance(tracker, MlflowTracker)
        for number in range(NUM_POINTS):
            if number == NUM_POINTS * 3 // 10:
                running.kill()
            elif number == NUM_POINTS * 6 // 10:
                running.start()
            seconds.append(note(tracker, number))
            time.sleep(0.003)
        running.wait()
    assert losses(running.uri, tracker.run_id) == [(number, number / 7) for number in range(NUM_POINTS)]
    assert_none_waited(seconds)


def test_a_server_killed_again_and_again_while_it_writes_loses_and_doubles_nothing(running: Server) -> None:
    number = 0
    with step("train") as tracker:
        assert isinstance(tracker, MlflowTracker)
        for _ in range(2):
            ends = time.monotonic() + 1.5
            while time.monotonic() < ends:  # as fast as it goes, so that a call is under way when it dies
                note(tracker, number)
                number += 1
                time.sleep(0.0005)
            running.kill()
            running.start()
            running.wait()
    assert losses(running.uri, tracker.run_id) == [(point, point / 7) for point in range(number)]


@contextmanager
def losing_answers(server: str, every: int) -> Iterator[tuple[str, list[str]]]:
    """A way to a server that loses each so many-th answer to a batch, after the server has written the batch.

    Yields its address, and the paths of the calls whose answers were lost.
    """
    num_batches = itertools.count(1)
    lost: list[str] = []

    class Way(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            kind = {"Content-Type": self.headers.get("Content-Type", "application/json")}
            answer = httpx.request(
                self.command, server + self.path, content=body, headers=kind, trust_env=False, timeout=60
            )
            if self.path.endswith("/log-batch") and next(num_batches) % every == 0:
                lost.append(self.path)
                return  # the connection closes without a word
            self.send_response(answer.status_code)
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        do_GET = do_POST

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Way) as way:
        threading.Thread(target=way.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{way.server_address[1]}", lost
        finally:
            way.shutdown()


def test_answers_lost_after_the_server_wrote_double_nothing(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with losing_answers(server, every=2) as (address, lost):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        with step("train") as tracker:
            assert isinstance(tracker, MlflowTracker)
            for number in range(5000):
                note(tracker, number)
        run_id = tracker.run_id
    assert len(lost) >= 5
    assert losses(server, run_id) == [(number, number / 7) for number in range(5000)]


@pytest.mark.usefixtures("_heap_of_a_step")
def test_a_server_that_freezes_costs_points_no_time_and_the_step_some_seconds(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as frozen:  # accepts and never answers
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{frozen.getsockname()[1]}")
        with step("train") as tracker:
            assert isinstance(tracker, MlflowTracker)
            seconds = [note(tracker, number) for number in range(NUM_POINTS)]
            begun = time.monotonic()
        assert time.monotonic() - begun < 15
    assert_none_waited(seconds)
    assert len(list((tmp_path / "unsent").iterdir())) == 1


def test_a_training_without_its_server_succeeds_and_its_curve_arrives_when_the_server_is_back(
    running: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest(str(write_toy(tmp_path / "toy.fasta")), tmp_path / "records", IngestConfig())
    tokenize(tmp_path / "records", tmp_path / "tokens", TokenizeConfig())
    monkeypatch.delenv("PROTTUNE_PIPELINE_RUN")
    command = [sys.executable, "-m", "prottune", "train", "--base-model", str(write_base(tmp_path / "base"))]
    command += ["--tokens", str(tmp_path / "tokens"), "--model", str(tmp_path / "model")]
    command += ["--tokens-per-batch", "512", "--epochs", "3"]
    running.kill()
    trained = subprocess.run(command, capture_output=True, text=True, check=False)
    assert trained.returncode == 0, trained.stderr
    assert "points wait in" in trained.stderr.splitlines()[-1]
    running.start()
    running.wait()
    assert unsent.main() == 0
    client = mlflow_client(running.uri)
    experiment = client.get_experiment_by_name("prottune")
    (run,) = client.search_runs([experiment.experiment_id], "params.`train.epochs` = '3'")
    assert run.info.status == "FINISHED"
    points = [json.loads(line) for line in (tmp_path / "model" / "history.jsonl").read_text().splitlines()]
    for key in {key for point in points for key in point} - {"step"}:
        written = sorted((point["step"], float(point[key])) for point in points if key in point)
        arrived = [(number, value) for number, value in losses(running.uri, run.info.run_id, key) if number]
        assert arrived == written  # step 0 is the place of a step's final numbers


def test_the_registry_does_not_do_without_its_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_folder(tmp_path / "model", "unregistered weights")
    (tmp_path / "mlflow").mkdir()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", Server(tmp_path / "mlflow").uri)
    monkeypatch.setattr(tracker_module, "_FLUSH_SECONDS", 1.0)
    with pytest.raises(TrackingError), step("register"):
        register(model, str(model), report_on(model), "run-3")
    with pytest.raises(TrackingError), step("promote"):
        promote("1", "")


def test_a_pipeline_whose_server_dies_before_the_last_step_ends_with_3_and_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mlflow").mkdir()
    own, runs = Server(tmp_path / "mlflow"), tmp_path / "runs"  # its registry is empty
    monkeypatch.setenv("MLFLOW_TRACKING_URI", own.uri)
    monkeypatch.delenv("PROTTUNE_PIPELINE_RUN")
    command = [sys.executable, "-m", "pipelines", "run", "--runs", str(runs), *toy_flags(tmp_path)]
    own.start()
    try:
        own.wait()
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as program:
            assert program.stdout is not None
            for line in program.stdout:
                if line.startswith("promote") and not line.strip().endswith("begins"):
                    own.kill()
            assert program.stderr is not None
            said = program.stderr.read()
        assert program.returncode == 3, said
        assert said.splitlines()[-1].startswith(f"error: MLflow at {own.uri}: ")
        summary = json.loads((runs / "latest" / "summary.json").read_text())
        assert (summary["failure"]["stage"], summary["failure"]["exit_code"]) == ("finish", 3)
        assert summary["promoted"] is True
        own.start()
        own.wait()
        assert unsent.main() == 0
        client = mlflow_client(own.uri)
        (run,) = client.search_runs([client.get_experiment_by_name("prottune").experiment_id])
        assert run.info.status == "FINISHED"
        assert run.data.tags["prottune.pipeline_run"] == summary["run"]
    finally:
        own.kill()
