"""What a step could not send waits, on a disk or in a store, and arrives once when MLflow is back."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from mlflow.entities import Run
from mlflow_template import new_store
from small_store import Store

from prottune.tracking import tracker, unsent
from prottune.tracking.delivery import Parcel
from prottune.tracking.mlflow_store import PIPELINE_RUN_TAG, RunAddress, mlflow_client
from prottune.tracking.step import step
from prottune.tracking.unsent import keep, send_kept


@dataclass(frozen=True)
class TrainSettings:
    epochs: int = 3


@dataclass
class Server:
    """A database that is out of reach until `back`: a file lies where its folder should be."""

    folder: Path

    @property
    def uri(self) -> str:
        return f"sqlite:///{self.folder}/mlflow.db"

    def back(self) -> None:
        self.folder.unlink()
        self.folder.mkdir()
        new_store(self.folder)

    def run_of(self, pipeline_run: str) -> Run:
        client = mlflow_client(self.uri)
        experiment = client.get_experiment_by_name("prottune")
        query = f"tags.`{PIPELINE_RUN_TAG}` = '{pipeline_run}'"
        (run,) = client.search_runs([experiment.experiment_id], query)
        return run

    def losses_of(self, run: Run) -> list[tuple[int, float]]:
        history = mlflow_client(self.uri).get_metric_history(run.info.run_id, "train/loss")
        return sorted((metric.step, metric.value) for metric in history)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PROTTUNE_UNSENT", str(tmp_path / "unsent"))
    return tmp_path / "unsent"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: Path) -> Server:
    """A server that is away, and a pipeline run that would be tracked there."""
    folder = tmp_path / "server"
    folder.write_text("in the way")
    found = Server(folder)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", found.uri)
    monkeypatch.setenv("PROTTUNE_PIPELINE_RUN", "run-1")
    monkeypatch.setattr(tracker, "_FLUSH_SECONDS", 0.2)
    return found


@pytest.fixture
def back(server: Server, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """A function that brings the server back, and patience with it."""

    def back() -> None:
        server.back()
        monkeypatch.setattr(tracker, "_FLUSH_SECONDS", 20.0)

    return back


def train_in_vain(num_points: int = 700) -> None:
    """A step that notes settings, a curve and a tag while the server is away."""
    with step("train", TrainSettings()) as tracker:
        for number in range(num_points):
            tracker.point({"step": number, "train/loss": number / 7})
        tracker.tags({"prottune.note": "well"})


def test_the_next_step_of_the_run_sends_what_waits(
    server: Server, back: Callable[[], None], place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train_in_vain()
    (folder,) = place.iterdir()
    assert f"700 points wait in {folder}" in caplog.text
    back()
    with step("evaluate") as tracker:
        tracker.numbers({"evaluate/accuracy": 0.75})
    run = server.run_of("run-1")
    assert run.info.run_id == tracker.run_id
    assert server.losses_of(run) == [(number, number / 7) for number in range(700)]
    assert run.data.params == {"train.epochs": "3"}
    assert run.data.tags["prottune.note"] == "well"
    assert run.data.metrics["evaluate/accuracy"] == 0.75
    assert list(place.iterdir()) == []


def test_a_step_of_another_run_sends_it_to_the_run_that_it_belongs_to(
    server: Server, back: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    train_in_vain()
    back()
    monkeypatch.setenv("PROTTUNE_PIPELINE_RUN", "run-2")
    with step("ingest"):
        pass
    assert len(server.losses_of(server.run_of("run-1"))) == 700
    assert server.losses_of(server.run_of("run-2")) == []


def test_a_run_that_belongs_to_its_step_alone_gets_its_times_and_its_end(
    server: Server, back: Callable[[], None], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PROTTUNE_PIPELINE_RUN")
    train_in_vain()
    address = json.loads(next(place.rglob("parcels.jsonl")).read_text().splitlines()[0])
    back()
    with step("evaluate"):
        pass
    client = mlflow_client(server.uri)
    experiment = client.get_experiment_by_name("prottune")
    runs = {run.info.start_time: run for run in client.search_runs([experiment.experiment_id])}
    assert len(runs) == 2
    trained = runs[address["begun"]]
    assert trained.info.status == "FINISHED"
    assert trained.info.end_time - trained.info.start_time < 60_000
    assert len(server.losses_of(trained)) == 700


def test_sending_a_folder_twice_doubles_nothing(
    server: Server, back: Callable[[], None], place: Path, tmp_path: Path
) -> None:
    train_in_vain()
    shutil.copytree(place, tmp_path / "copy")
    back()
    client = mlflow_client(server.uri)
    assert send_kept(client, server.uri) == 700
    shutil.copytree(tmp_path / "copy", place, dirs_exist_ok=True)
    assert send_kept(client, server.uri) == 700
    assert send_kept(client, server.uri) == 0
    assert server.losses_of(server.run_of("run-1")) == [(number, number / 7) for number in range(700)]


def test_what_waits_for_another_server_stays(place: Path, tmp_path: Path) -> None:
    uri = new_store(tmp_path)
    folder = keep(RunAddress("http://other.example"), [Parcel(tags=[("a", "b")])])
    assert send_kept(mlflow_client(uri), uri) == 0
    assert Path(folder).is_dir()


def test_no_password_is_written(place: Path) -> None:
    folder = keep(RunAddress("https://ann:secret@mlflow.example"), [])
    assert "https://mlflow.example" in (Path(folder) / "parcels.jsonl").read_text()
    assert not any(b"secret" in path.read_bytes() for path in place.rglob("*") if path.is_file())


def test_a_damaged_folder_is_named_and_left_and_the_others_are_sent(
    server: Server, back: Callable[[], None], place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train_in_vain()
    (damaged,) = place.iterdir()
    with (damaged / "parcels.jsonl").open("r+b") as stream:
        stream.seek(300)
        stream.write(b"7")
    train_in_vain()
    back()
    assert send_kept(mlflow_client(server.uri), server.uri) == 700
    assert list(place.iterdir()) == [damaged]
    assert "damaged" in caplog.text


def test_what_mlflow_refuses_altogether_is_named_and_left(
    place: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    uri = new_store(tmp_path)
    folder = keep(RunAddress(uri, run_id="0" * 32), [Parcel(tags=[("a", "b")]), Parcel(tags=[("c", "d")])])
    assert send_kept(mlflow_client(uri), uri) == 0
    assert Path(folder).is_dir()
    (said,) = [record for record in caplog.records if record.name == "prottune.tracking.unsent"]
    assert folder in said.getMessage()


def test_a_place_that_cannot_be_written_costs_the_points_but_not_the_step(
    server: Server, place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place.write_text("a file")
    train_in_vain(5)
    assert f"5 points cannot wait in {place}" in caplog.text


def test_points_of_a_pod_wait_in_the_store(
    server: Server,
    back: Callable[[], None],
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PROTTUNE_UNSENT", "s3://bucket/unsent")
    train_in_vain()
    assert len(store.objects) == 2
    back()
    client = mlflow_client(server.uri)
    assert [send_kept(client, server.uri) for _ in range(2)] == [700, 0]
    assert store.objects == {}
    assert server.losses_of(server.run_of("run-1")) == [(number, number / 7) for number in range(700)]
    keep(RunAddress(server.uri, tag=(PIPELINE_RUN_TAG, "run-1")), [Parcel(tags=[("note", "late")])])
    with step("evaluate"):
        pass
    assert server.run_of("run-1").data.tags["note"] == "late"


def test_a_store_that_is_out_of_reach_is_told_and_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    uri = new_store(tmp_path)
    monkeypatch.setenv("PROTTUNE_UNSENT", "s3://bucket/unsent")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with step("evaluate") as tracker:
        tracker.tags({"note": "well"})
    assert "s3://bucket/unsent: s3:// needs S3_ENDPOINT" in caplog.text
    assert mlflow_client(uri).get_run(tracker.run_id).data.tags["note"] == "well"


def test_the_program_sends_what_waits_and_says_how_much(
    server: Server,
    back: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    train_in_vain()
    assert unsent.main() == 3
    assert len(capsys.readouterr().err.splitlines()) == 1
    back()
    assert unsent.main() == 0
    assert capsys.readouterr().out == f"700 points were sent from {unsent.place()} to {server.uri}\n"
    assert unsent.main(["--help"]) == 0
    assert "PROTTUNE_UNSENT    folder or s3:// prefix" in capsys.readouterr().out
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert unsent.main() == 2
    assert capsys.readouterr().err.startswith("error: MLFLOW_TRACKING_URI is not set")
