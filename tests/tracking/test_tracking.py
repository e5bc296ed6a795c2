from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow_template import new_store

from prottune.errors import ConfigError, DivergedError, TrackingError
from prottune.tracking import tracker as tracker_module
from prottune.tracking.delivery import is_refusal
from prottune.tracking.mlflow_store import EXPERIMENT, masked, mlflow_client
from prottune.tracking.step import close_run, failure_told, open_tracker, step
from prottune.tracking.tracker import MlflowTracker, SilentTracker, numbers
from prottune.tracking.unsent import place


@dataclass(frozen=True)
class BakeConfig:
    degrees: int = 180
    flour: str = "wheat"


@dataclass(frozen=True)
class BakeReport:
    minutes: int
    taste: dict[str, Any]
    baker: str = "Ann"
    notes: list[int] = field(default_factory=list)


@pytest.fixture(autouse=True)
def _unsent_points_stay_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROTTUNE_UNSENT", str(tmp_path / "unsent"))


@pytest.fixture
def uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty sqlite store that the environment names, and a pipeline run."""
    uri = new_store(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("PROTTUNE_PIPELINE_RUN", "run-1")
    return uri


def dead_server() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def test_numbers_are_flat_finite_and_leave_words_out() -> None:
    report = BakeReport(
        minutes=40,
        taste={"crust": np.float32(0.5), "burnt": False, "crumb": {"even": 1}, "lost": float("nan")},
    )
    assert numbers(report) == {"minutes": 40.0, "taste/crust": 0.5, "taste/crumb/even": 1.0}


def test_without_an_address_nothing_is_tracked() -> None:
    tracker = open_tracker()
    assert isinstance(tracker, SilentTracker)
    assert tracker.run_id == ""
    close_run("FINISHED")


def test_every_step_of_a_pipeline_run_writes_to_the_same_run(uri: str) -> None:
    with step("knead") as knead:
        knead.tags({"flour": "wheat"})
    with step("bake", BakeConfig()) as bake:
        bake.numbers({"minutes": 40})
    assert knead.run_id == bake.run_id
    run = mlflow_client(uri).get_run(bake.run_id)
    assert run.data.params == {"bake.degrees": "180", "bake.flour": "wheat"}
    assert run.data.metrics == {"minutes": 40.0}
    assert run.data.tags["flour"] == "wheat"
    assert run.data.tags["prottune.pipeline_run"] == "run-1"
    assert run.info.status == "RUNNING"


def test_another_pipeline_run_gets_another_run(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first = open_tracker().run_id
    monkeypatch.setenv("PROTTUNE_PIPELINE_RUN", "run-2")
    assert open_tracker().run_id != first


def test_mlflow_run_id_wins(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    client = mlflow_client(uri)
    run = client.create_run("0")
    monkeypatch.setenv("MLFLOW_RUN_ID", run.info.run_id)
    assert open_tracker().run_id == run.info.run_id


def test_inside_a_step_the_tracker_is_the_steps_own(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PROTTUNE_PIPELINE_RUN")
    with step("bake") as tracker:
        assert open_tracker() is tracker
    assert mlflow_client(uri).get_run(tracker.run_id).info.status == "FINISHED"


def test_a_step_of_its_own_that_fails_ends_its_run_as_failed(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PROTTUNE_PIPELINE_RUN")
    with pytest.raises(ZeroDivisionError), step("bake") as tracker:
        _ = 1 / 0
    assert mlflow_client(uri).get_run(tracker.run_id).info.status == "FAILED"


def test_points_keep_their_steps_and_arrive_by_the_end_of_the_step(uri: str) -> None:
    with step("train") as tracker:
        for number in range(700):
            tracker.point({"step": number, "train/loss": 1 / (number + 1), "train/rate": 0.5})
        tracker.point({"step": 700, "train/loss": float("nan")})
    history = mlflow_client(uri).get_metric_history(tracker.run_id, "train/loss")
    assert {point.step: point.value for point in history} == {n: 1 / (n + 1) for n in range(700)}


def test_settings_longer_than_mlflow_takes_are_cut_and_strange_names_are_spelled_out(uri: str) -> None:
    tracker = open_tracker()
    tracker.settings({"train.note": "x" * 7000, "train.empty": ""})
    tracker.numbers({"f1 of Golgi (%)": 0.5})
    tracker.flush()
    run = mlflow_client(uri).get_run(tracker.run_id)
    assert run.data.params == {"train.note": "x" * 6000, "train.empty": ""}
    assert run.data.metrics == {"f1 of Golgi ___": 0.5}


def test_a_refusal_is_counted_told_once_and_never_raised(uri: str, caplog: pytest.LogCaptureFixture) -> None:
    tracker = open_tracker()
    assert isinstance(tracker, MlflowTracker)
    for degrees in (180, 190, 200):
        tracker.settings({"bake.degrees": degrees})
    tracker.numbers({"minutes": 40})
    tracker.flush()
    assert tracker.num_refused == 2
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "goes on without it" in caplog.text
    assert mlflow_client(uri).get_run(tracker.run_id).data.metrics == {"minutes": 40.0}


def test_files_and_folders_are_kept_beside_the_database(uri: str, tmp_path: Path) -> None:
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages" / "report.html").write_text("<p>")
    (tmp_path / "note.txt").write_text("well done")
    tracker = open_tracker()
    tracker.artifact(tmp_path / "pages", "reports")
    tracker.artifact(tmp_path / "note.txt")
    tracker.flush()
    kept = tmp_path / "mlartifacts" / tracker.run_id / "artifacts"
    assert (kept / "reports" / "report.html").read_text() == "<p>"
    assert (kept / "note.txt").read_text() == "well done"
    experiment = mlflow_client(uri).get_experiment_by_name(EXPERIMENT)
    assert experiment.artifact_location == (tmp_path / "mlartifacts").as_uri()


def test_a_failing_step_leaves_its_one_line(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "failure.json"
    monkeypatch.setenv("PROTTUNE_FAILURE_FILE", str(place))
    with pytest.raises(DivergedError), step("train") as tracker:
        raise DivergedError("loss is nan at step 7,\n expected a finite one")
    message = "loss is nan at step 7, expected a finite one"
    assert json.loads(place.read_text()) == {
        "stage": "train",
        "error": "DivergedError",
        "message": message,
        "exit_code": 4,
    }
    tags = mlflow_client(uri).get_run(tracker.run_id).data.tags
    assert (tags["prottune.failed_stage"], tags["prottune.error"]) == ("train", f"DivergedError: {message}")


def test_a_bug_is_recorded_with_exit_code_1_even_untracked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "failure.json"
    monkeypatch.setenv("PROTTUNE_FAILURE_FILE", str(place))
    with pytest.raises(KeyError), step("ingest"):
        raise KeyError("accession")
    assert json.loads(place.read_text()) == {
        "stage": "ingest",
        "error": "KeyError",
        "message": "'accession'",
        "exit_code": 1,
    }


def test_a_failure_file_that_cannot_be_written_does_not_hide_the_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROTTUNE_FAILURE_FILE", str(tmp_path / "missing" / "failure.json"))
    with pytest.raises(KeyError), step("ingest"):
        raise KeyError("accession")


@pytest.mark.parametrize("status", ["FINISHED", "FAILED", "KILLED"])
def test_closing_ends_the_pipelines_run_once(uri: str, status: Any) -> None:
    run_id = open_tracker().run_id
    close_run(status)
    close_run("FINISHED" if status != "FINISHED" else "FAILED")
    assert mlflow_client(uri).get_run(run_id).info.status == status


def test_closing_a_run_that_was_never_begun_makes_none(uri: str) -> None:
    close_run("FAILED")
    assert mlflow_client(uri).get_experiment_by_name(EXPERIMENT) is None


def test_a_dead_server_is_told_once_and_stops_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", dead_server())
    monkeypatch.setattr(tracker_module, "_FLUSH_SECONDS", 0.5)
    with step("bake", BakeConfig()) as tracker:
        begun = time.monotonic()
        for number in range(50):
            tracker.point({"step": number, "train/loss": 0.5})
            tracker.settings({"degrees": number})
        assert time.monotonic() - begun < 2, "seconds; one call with its tries takes longer"
        assert tracker.run_id == ""
    away, kept = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "waits until it answers" in away
    assert f"does not answer: 50 points wait in {place()}" in kept


def test_closing_a_run_while_the_server_is_away_is_refused_and_made_up_for_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROTTUNE_PIPELINE_RUN", "run-1")
    blocked = tmp_path / "server"
    blocked.write_text("where the database's folder should be")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{blocked}/mlflow.db")
    with pytest.raises(TrackingError, match="the run is not closed"):
        close_run("FAILED")
    blocked.unlink()
    blocked.mkdir()
    client = mlflow_client(new_store(blocked))
    with step("bake") as tracker:
        pass
    assert client.get_run(tracker.run_id).info.status == "FAILED"


def test_a_failure_outside_of_tracking_is_left_and_the_first_one_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "failure.json"
    monkeypatch.setenv("PROTTUNE_FAILURE_FILE", str(place))
    monkeypatch.setenv("PROTTUNE_PIPELINE_RUN", "run-1")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", dead_server())
    with pytest.raises(TrackingError), failure_told("finish"):
        close_run("FINISHED")
    left = json.loads(place.read_text())
    assert (left["stage"], left["error"], left["exit_code"]) == ("finish", "TrackingError", 3)
    with pytest.raises(KeyError), failure_told("later"):
        raise KeyError("later")
    assert json.loads(place.read_text()) == left


def test_addresses_in_messages_carry_no_password() -> None:
    assert masked("https://ann:secret@mlflow.example/api") == "https://mlflow.example/api"


def test_importing_tracking_does_not_import_mlflow() -> None:
    modules = "prottune.tracking.unsent, prottune.tracking.step, prottune.registration.stage"
    code = f"import sys, {modules}; sys.exit('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_where_only_mlflows_client_is_installed_a_database_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "sqlalchemy", None)  # as if it were not installed
    with pytest.raises(ConfigError) as refused:
        mlflow_client(f"sqlite:///{tmp_path}/runs/mlflow.db")
    assert str(refused.value) == (
        f"got the database sqlite:///{tmp_path}/runs/mlflow.db, expected a server's address in "
        "MLFLOW_TRACKING_URI: only MLflow's client is installed here"
    )
    assert not (tmp_path / "runs").exists()


def test_a_database_without_its_driver_is_refused_and_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for driver in ("psycopg", "psycopg2"):
        monkeypatch.setitem(sys.modules, driver, None)
    with pytest.raises(ConfigError) as refused:
        mlflow_client("postgresql://ann:secret@db/mlflow")
    assert is_refusal(refused.value)
    assert str(refused.value).startswith(
        "got postgresql://db/mlflow, expected a server's address or sqlite:///FILE in MLFLOW_TRACKING_URI: "
    )
