"""How a run ends whose MLflow server is away when the last step wants to close its run."""

import json
import socket
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from components.endings import finish
from pipelines.endings import failed
from pipelines.finetuned import ENDING
from pipelines.progress import Progress
from pipelines.running import _close
from pipelines.runs import Run, new_run
from prottune.errors import TrackingError

SUCCEEDED = SimpleNamespace(state="SUCCEEDED")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run in the environment of its steps, tracked by a server that is not there."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{probe.getsockname()[1]}")
    place = new_run(tmp_path / "runs", {"source": "x"})
    for name, value in place.environment.items():
        monkeypatch.setenv(name, value)
    return place


def test_the_run_ends_with_3_and_one_line(place: Run, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(TrackingError):
        finish.python_func(SUCCEEDED)
    assert failed(place, Progress(place.folder / "steps"), ENDING) == 3
    first, last = capsys.readouterr().err.splitlines()
    assert first.startswith("step finish failed")
    assert last.startswith("error: MLflow at http://127.0.0.1:")
    failure = json.loads(place.summary_file.read_text(encoding="utf-8"))["failure"]
    assert (failure["stage"], failure["error"], failure["exit_code"]) == ("finish", "TrackingError", 3)


def test_a_step_that_failed_before_it_gives_the_line_and_the_exit_code(place: Run) -> None:
    earlier = {"stage": "ingest", "error": "DataError", "message": "bad.fasta:3: odd", "exit_code": 2}
    place.failure_file.write_text(json.dumps(earlier), encoding="utf-8")
    with pytest.raises(TrackingError):
        finish.python_func(SUCCEEDED)
    assert failed(place, Progress(place.folder / "steps"), ENDING) == 2
    assert json.loads(place.summary_file.read_text(encoding="utf-8"))["failure"] == earlier


def test_an_interrupted_run_is_not_held_up(place: Run, capsys: pytest.CaptureFixture[str]) -> None:
    _close(place, "KILLED")
    assert "the run is not closed" in capsys.readouterr().err
    assert len(list((place.folder.parent / "unsent").iterdir())) == 1
