"""One MLflow run per pipeline run: settings, points and reports go in; nothing that fails here stops a stage.

Where runs are kept is decided by the environment alone, once, at the edge:

    MLFLOW_TRACKING_URI    `sqlite:///...` or an http(s) server; unset or empty: nothing is tracked
    MLFLOW_RUN_ID          the run to write to; wins over everything (the KFP plugin sets it)
    PROTTUNE_PIPELINE_RUN  name of the pipeline run; its MLflow run carries it as a tag and is found by it
    PROTTUNE_UNSENT        where points wait that MLflow could not take before a step ended (unsent.py)
    PROTTUNE_FAILURE_FILE  where a failing step leaves its one line for the program that started it

With sqlite, artifacts lie in `mlartifacts` beside the database; a server decides for itself.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, fields, is_dataclass, replace
from numbers import Real
from pathlib import Path
from time import time
from typing import Any, Literal, Protocol
from uuid import uuid4

from prottune.delivery import Delivery, Measurement, Parcel, RunWriter, parcels_of_numbers, parcels_of_params
from prottune.errors import ProttuneError, TrackingError
from prottune.mlflow_store import (
    PIPELINE_RUN_TAG,
    STEP_TAG,
    RunAddress,
    find_run,
    masked,
    mlflow_client,
    one_line,
)
from prottune.unsent import keep, place, send_kept

FAILED_STAGE_TAG = "prottune.failed_stage"
ERROR_TAG = "prottune.error"

_LONGEST_WORD = 6000
_FLUSH_SECONDS = 10.0
"""How long a step that ends waits for MLflow to take anything."""
_FLUSH_SECONDS_WHEN_KILLED = 3.0
"""The same when a signal ends the step: Kubernetes grants 30 seconds, of which the ranks take some."""

_log = logging.getLogger(__name__)


class Tracker(Protocol):
    """What a stage may say about itself while it runs; nobody waits for MLflow to hear it."""

    @property
    def run_id(self) -> str:
        """The MLflow run's id; empty when nothing is tracked or MLflow is away."""

    def settings(self, values: Mapping[str, object]) -> None:
        """Note settings, each once and for good."""

    def point(self, values: Mapping[str, float | int]) -> None:
        """Note one line of a history: numbers at `values["step"]`."""

    def numbers(self, values: Mapping[str, float | int]) -> None:
        """Note final numbers, at step 0."""

    def artifact(self, path: Path, folder: str = "") -> None:
        """Keep a copy of a file or of a folder's content, which must lie there until the step ends."""

    def tags(self, values: Mapping[str, str]) -> None:
        """Set words by which the run is found; they may change."""

    def flush(self) -> None:
        """Wait until all that was noted is sent, or until MLflow has taken nothing for some seconds."""


class SilentTracker:
    """The twin that keeps nothing."""

    run_id = ""

    def settings(self, values: Mapping[str, object]) -> None: ...

    def point(self, values: Mapping[str, float | int]) -> None: ...

    def numbers(self, values: Mapping[str, float | int]) -> None: ...

    def artifact(self, path: Path, folder: str = "") -> None: ...

    def tags(self, values: Mapping[str, str]) -> None: ...

    def flush(self) -> None: ...


class MlflowTracker:
    """Writes to one MLflow run from a thread of its own; a failure is told once and never raised."""

    def __init__(self, address: RunAddress) -> None:
        self._address = address
        self._delivery = Delivery(address, afterwards=lambda client: send_kept(client, address.uri))

    @property
    def run_id(self) -> str:
        return self._delivery.run_id

    @property
    def num_refused(self) -> int:
        """Calls that MLflow understood and refused."""
        return self._delivery.num_refused

    def settings(self, values: Mapping[str, object]) -> None:
        params = [(_key(name), str(value)[:_LONGEST_WORD]) for name, value in values.items()]
        self._delivery.put(parcels_of_params(params))

    def point(self, values: Mapping[str, float | int]) -> None:
        self._put_numbers(values, int(values.get("step", 0)))

    def numbers(self, values: Mapping[str, float | int]) -> None:
        self._put_numbers(values, 0)

    def artifact(self, path: Path, folder: str = "") -> None:
        self._delivery.put([Parcel(file=(str(path.absolute()), folder))])

    def tags(self, values: Mapping[str, str]) -> None:
        self._delivery.put([Parcel(tags=[(name, value[:_LONGEST_WORD]) for name, value in values.items()])])

    def flush(self) -> None:
        self._delivery.flush(_FLUSH_SECONDS)

    def close(self, status: str) -> None:
        """End the step: send what waits, keep what cannot be sent, end a run that is the step's own."""
        if self._address.ends_with_its_step:
            self._delivery.put([Parcel(ended=(status, _now()))])
        seconds = _FLUSH_SECONDS_WHEN_KILLED if status == "KILLED" else _FLUSH_SECONDS
        if unsent := self._delivery.close(seconds):
            _keep(replace(self._address, run_id=self.run_id), unsent)

    def _put_numbers(self, values: Mapping[str, float | int], step: int) -> None:
        now = _now()
        found = numbers({name: value for name, value in values.items() if name != "step"})
        measured: list[Measurement] = [(_key(name), value, now, step) for name, value in found.items()]
        self._delivery.put(parcels_of_numbers(measured))


def numbers(report: object, prefix: str = "") -> dict[str, float]:
    """Flatten a report's finite numbers into names like `test/accuracy`; words, lists and NaN stay out."""
    if is_dataclass(report) and not isinstance(report, type):
        report = asdict(report)
    if isinstance(report, Mapping):
        parts = [
            numbers(value, f"{prefix}/{name}" if prefix else str(name)) for name, value in report.items()
        ]
        return {name: value for part in parts for name, value in part.items()}
    if isinstance(report, bool) or not isinstance(report, Real) or not math.isfinite(report):
        return {}
    return {prefix: float(report)}


def open_tracker() -> Tracker:
    """The tracker of this pipeline run, which need not exist yet; inside a `step`, the step's own tracker."""
    if (current := _current.get()) is not None:
        return current
    address = _address_in_environment()
    return MlflowTracker(address) if address else SilentTracker()


@contextmanager
def step(stage: str, settings: object | None = None) -> Iterator[Tracker]:
    """Track one stage: its settings as `stage.field`; if it fails, who failed and why, in one line.

    `settings` is the stage's dataclass. A run that belongs to this step alone (no pipeline run is named in
    the environment) ends with the step.
    """
    tracker = open_tracker()
    token = _current.set(tracker)
    try:
        if is_dataclass(settings) and not isinstance(settings, type):
            tracker.settings({f"{stage}.{f.name}": getattr(settings, f.name) for f in fields(settings)})
        yield tracker
    except Exception as error:
        failure = _leave_word(stage, error)
        tracker.tags({FAILED_STAGE_TAG: stage, ERROR_TAG: f"{failure['error']}: {failure['message']}"})
        _close(tracker, "FAILED")
        raise
    except BaseException:
        _close(tracker, "KILLED")
        raise
    else:
        _close(tracker, "FINISHED")
    finally:
        _current.reset(token)


@contextmanager
def failure_told(stage: str) -> Iterator[None]:
    """If the block fails, leave its one line for the program that started this one, and nothing in MLflow."""
    try:
        yield
    except Exception as error:
        _leave_word(stage, error)
        raise


def close_run(status: Literal["FINISHED", "FAILED", "KILLED"]) -> None:
    """Send what waits for MLflow, then end the pipeline's run, unless it has ended or was never begun.

    Raises: TrackingError if MLflow cannot be reached or refuses; whoever next sends what waits ends the run.
    """
    address = _address_in_environment()
    if address is None or address.ends_with_its_step:
        return
    ended = Parcel(ended=(status, _now()))
    try:
        client = mlflow_client(address.uri)
        send_kept(client, address.uri)
        if run_id := find_run(client, address):
            RunWriter(client, run_id).write(ended)
    except Exception as error:  # whatever MLflow raises
        _keep(address, [ended])
        raise TrackingError(
            f"MLflow at {masked(address.uri)}: {one_line(error)}; the run is not closed"
        ) from error


def pipeline_run() -> str:
    """Name of the pipeline run that this step belongs to, the same in every retry; empty if by hand."""
    name = os.environ.get("PROTTUNE_PIPELINE_RUN", "").replace("'", "")
    return name or os.environ.get("MLFLOW_RUN_ID", "")


_current: ContextVar[Tracker | None] = ContextVar("tracker of the running step", default=None)


def _address_in_environment() -> RunAddress | None:
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    if not uri:
        return None
    pipeline_run = os.environ.get("PROTTUNE_PIPELINE_RUN", "").replace("'", "")
    tag = (PIPELINE_RUN_TAG, pipeline_run) if pipeline_run else (STEP_TAG, uuid4().hex)
    return RunAddress(uri, os.environ.get("MLFLOW_RUN_ID", ""), tag, begun=_now())


def _close(tracker: Tracker, status: str) -> None:
    if isinstance(tracker, MlflowTracker):
        tracker.close(status)


def _keep(address: RunAddress, parcels: list[Parcel]) -> None:
    """Keep what MLflow could not take, and say in one line how much that is and where it waits."""
    points = f"{sum(len(parcel.numbers) for parcel in parcels):,} points"
    server = masked(address.uri)
    try:
        where = keep(address, parcels)
    except (ProttuneError, OSError) as error:
        _log.warning(
            "MLflow at %s does not answer, and %s cannot wait in %s (%s): it never gets them",
            *(server, points, place(), one_line(error)),
        )
    else:
        _log.warning(
            "MLflow at %s does not answer: %s wait in %s; the next step that reaches it sends them, or "
            "`python -m prottune.unsent`",
            *(server, points, where),
        )


def _leave_word(stage: str, error: Exception) -> dict[str, Any]:
    """Write what failed where PROTTUNE_FAILURE_FILE says; the first failure of a run is the one that counts.

    Returns what it wrote.
    """
    exit_code = error.exit_code if isinstance(error, ProttuneError) else 1
    failure = {
        "stage": stage, "error": type(error).__name__, "message": one_line(error), "exit_code": exit_code
    }  # fmt: skip
    if file := os.environ.get("PROTTUNE_FAILURE_FILE"):
        try:
            with Path(file).open("x", encoding="utf-8") as stream:
                stream.write(json.dumps(failure) + "\n")
        except FileExistsError:
            pass
        except OSError as unwritable:  # the stage's own error matters more
            _log.warning("PROTTUNE_FAILURE_FILE %s: %s", file, unwritable)
    return failure


def _now() -> int:
    """Milliseconds since 1970, as MLflow counts."""
    return int(time() * 1000)


def _key(name: str) -> str:
    """Spell a name with the characters that MLflow allows."""
    return re.sub(r"[^\w\-. /:]", "_", name, flags=re.ASCII)
