"""One run's folder below `runs/`: its name, its files, and the environment of its steps."""

import json
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from pipelines.executing import PARAMETERS_FILE
from prottune.addresses import local_path
from prottune.errors import ConfigError
from prottune.tracking.unsent import PLACE_VARIABLE

LATEST = "latest"
SUMMARY_FILE = "summary.json"


@dataclass(frozen=True)
class Run:
    """A run in the making or done."""

    folder: Path
    scratch: Path
    """Steps' temporary files. Not below `folder`: torchrun puts sockets there, whose paths must be short."""

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def log(self) -> Path:
        return self.folder / "log.txt"

    @property
    def failure_file(self) -> Path:
        return self.folder / "failure.json"

    @property
    def summary_file(self) -> Path:
        return self.folder / SUMMARY_FILE

    @property
    def tracking_uri(self) -> str:
        """MLflow's address: what the environment says, else a database that all runs here share."""
        return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{self.folder.parent / 'mlflow.db'}"

    @property
    def environment(self) -> dict[str, str]:
        """What every step of this run finds in its environment, beside what was there."""
        return {
            "MLFLOW_TRACKING_URI": self.tracking_uri,
            "PROTTUNE_PIPELINE_RUN": self.name,
            "PROTTUNE_FAILURE_FILE": str(self.failure_file),
            PLACE_VARIABLE: os.environ.get(PLACE_VARIABLE) or str(self.folder.parent / "unsent"),
            "PYTHONUNBUFFERED": "1",
            "PYTHONWARNINGS": "ignore",
            "TMPDIR": str(self.scratch),
        }


def new_run(runs: Path, values: Mapping[str, Any]) -> Run:
    """Make a run's folder, named after its source and the hour, and let `latest` point at it.

    Raises: ConfigError if nothing can be written below `runs`.
    """
    runs = runs.absolute()
    source = re.sub(r"[^a-z0-9]+", "-", Path(str(values["source"])).stem.lower()).strip("-") or "run"
    name = f"{source[:40]}-{datetime.now().astimezone():%Y%m%d-%H%M%S}"
    try:
        runs.mkdir(parents=True, exist_ok=True)
        run = Run(_fresh_folder(runs, name), Path(tempfile.mkdtemp(prefix="prottune-")))
        parameters = dict(values)
        if "checkpoints" in values:
            parameters["checkpoints"] = _checkpoints(run, str(values["checkpoints"]))
        (run.folder / PARAMETERS_FILE).write_text(json.dumps(parameters, indent=1) + "\n", encoding="utf-8")
        _point_latest_at(run.folder)
    except OSError as error:
        raise ConfigError(f"{runs}: cannot be written ({error.strerror}); see --runs") from error
    return run


def _checkpoints(run: Run, chosen: str) -> str:
    """The place named for checkpoints, else one in the run's folder; the train step adds the run's name."""
    here = local_path(chosen) if chosen else run.folder / "checkpoints"
    return str(here.absolute()) if here is not None else chosen


def _fresh_folder(runs: Path, name: str) -> Path:
    for attempt in range(1, 1000):
        folder = runs / (name if attempt == 1 else f"{name}-{attempt}")
        try:
            folder.mkdir()
        except FileExistsError:  # another run of this second
            continue
        return folder
    raise ConfigError(f"--runs {runs}: holds a thousand runs called {name}; name another folder")


def _point_latest_at(folder: Path) -> None:
    fresh = folder / LATEST
    fresh.symlink_to(folder.name)
    fresh.replace(folder.parent / LATEST)
