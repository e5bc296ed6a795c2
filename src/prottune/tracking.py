"""One MLflow run per pipeline run: settings, points and reports go in; nothing that fails here stops a stage.

Where runs are kept is decided by the environment alone, once, at the edge:

    MLFLOW_TRACKING_URI    `sqlite:///...` or an http(s) server; unset or empty: nothing is tracked
    MLFLOW_RUN_ID          the run to write to; wins over everything (the KFP plugin sets it)
    PROTTUNE_PIPELINE_RUN  name of the pipeline run; its MLflow run carries it as a tag and is found by it
    PROTTUNE_FAILURE_FILE  where a failing step leaves its one line for the program that started it

With sqlite, artifacts lie in `mlartifacts` beside the database; a server decides for itself.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, fields, is_dataclass
from numbers import Real
from pathlib import Path
from time import monotonic, time
from typing import TYPE_CHECKING, Any, Literal, Protocol

from prottune.errors import ProttuneError, TrackingError
from prottune.mlflow_store import EXPERIMENT, experiment_id, masked, mlflow_client, one_line

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

PIPELINE_RUN_TAG = "prottune.pipeline_run"
FAILED_STAGE_TAG = "prottune.failed_stage"
ERROR_TAG = "prottune.error"

_LONGEST_PARAM = 6000
_METRICS_PER_CALL, _MOST_WAITING = 500, 100_000
_PARAMS_PER_CALL = 100
_FLUSH_SECONDS = 5.0
_SLOW_SECONDS, _PAUSE_FACTOR = 1.0, 20
"""After a call that failed as slowly as this, MLflow is left alone for 20 times as long as the call took: a
server that is away costs a twentieth of the time at most. Points wait meanwhile."""

_log = logging.getLogger(__name__)


class Tracker(Protocol):
    """What a stage may say about itself while it runs."""

    @property
    def run_id(self) -> str:
        """The MLflow run's id; empty when nothing is tracked."""

    def settings(self, values: Mapping[str, object]) -> None:
        """Note settings, each once and for good."""

    def point(self, values: Mapping[str, float | int]) -> None:
        """Note one line of a history: numbers at `values["step"]`. Returns at once; sent in chunks."""

    def numbers(self, values: Mapping[str, float | int]) -> None:
        """Note final numbers, at step 0."""

    def artifact(self, path: Path, folder: str = "") -> None:
        """Keep a copy of a file, or of a folder's content, with the run."""

    def tags(self, values: Mapping[str, str]) -> None:
        """Set words by which the run is found; they may change."""

    def flush(self) -> None:
        """Send the points that wait; MLflow is asked once more even if it was away a moment ago."""


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
    """Writes to one MLflow run; a failure is counted, told once, and never raised."""

    def __init__(self, client: MlflowClient, run_id: str) -> None:
        self.run_id = run_id
        self.num_failed = 0
        """Calls that MLflow refused or that were skipped while it was not reachable."""
        self._client = client
        self._waiting: list[Any] = []
        self._last_sent = monotonic()
        self._paused_until = 0.0

    def settings(self, values: Mapping[str, object]) -> None:
        from mlflow.entities import Param

        params = [Param(_key(name), str(value)[:_LONGEST_PARAM]) for name, value in values.items()]
        for start in range(0, len(params), _PARAMS_PER_CALL):
            chunk = params[start : start + _PARAMS_PER_CALL]
            self._try(lambda chunk=chunk: self._client.log_batch(self.run_id, params=chunk))  # type: ignore[misc]

    def point(self, values: Mapping[str, float | int]) -> None:
        self._add(values, int(values.get("step", 0)))
        if len(self._waiting) >= _METRICS_PER_CALL or monotonic() - self._last_sent > _FLUSH_SECONDS:
            self._send()

    def numbers(self, values: Mapping[str, float | int]) -> None:
        self._add(values, 0)
        self._send()

    def artifact(self, path: Path, folder: str = "") -> None:
        send = self._client.log_artifacts if path.is_dir() else self._client.log_artifact
        self._try(lambda: send(self.run_id, str(path), folder or None))

    def tags(self, values: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        tags = [RunTag(name, value[:_LONGEST_PARAM]) for name, value in values.items()]
        self._try(lambda: self._client.log_batch(self.run_id, tags=tags))

    def flush(self) -> None:
        self._paused_until = 0.0
        self._send()

    def end(self, status: str) -> None:
        """Send what waits and end the run."""
        self.flush()
        self._try(lambda: self._client.set_terminated(self.run_id, status))

    def _add(self, values: Mapping[str, float | int], step: int) -> None:
        from mlflow.entities import Metric

        now = int(time() * 1000)
        found = numbers({name: value for name, value in values.items() if name != "step"})
        self._waiting += [Metric(_key(name), value, now, step) for name, value in found.items()]

    def _send(self) -> None:
        self._last_sent = monotonic()
        del self._waiting[:-_MOST_WAITING]
        while (chunk := self._waiting[:_METRICS_PER_CALL]) and not self._is_paused():
            self._try(lambda chunk=chunk: self._client.log_batch(self.run_id, metrics=chunk))  # type: ignore[misc]
            if not self._is_paused():  # sent, or refused for good
                del self._waiting[: len(chunk)]

    def _is_paused(self) -> bool:
        return monotonic() < self._paused_until

    def _try(self, call: Callable[[], object]) -> None:
        if self._is_paused():
            self.num_failed += 1
            return
        begun = monotonic()
        try:
            call()
        except Exception as error:  # whatever MLflow raises, the stage goes on
            self.num_failed += 1
            if (seconds := monotonic() - begun) > _SLOW_SECONDS:
                self._paused_until = monotonic() + _PAUSE_FACTOR * seconds
            if self.num_failed == 1:
                _log.warning("MLflow run %s: %s; the stage goes on untracked", self.run_id, one_line(error))


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
    """Find or create the run of this pipeline run; inside a `step`, the step's own tracker."""
    if (current := _current.get()) is not None:
        return current
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    if not uri:
        return SilentTracker()
    try:
        client = mlflow_client(uri)
        run_id = _find_run(client) or _create_run(client, uri)
        return MlflowTracker(client, run_id)
    except Exception as error:  # whatever MLflow raises, the stage goes on
        _log.warning("MLflow at %s: %s; the stage goes on untracked", masked(uri), one_line(error))
        return SilentTracker()


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
        _record_failure(stage, error, tracker)
        _end_own_run(tracker, "FAILED")
        raise
    except BaseException:
        _end_own_run(tracker, "KILLED")
        raise
    else:
        tracker.flush()
        _end_own_run(tracker, "FINISHED")
    finally:
        _current.reset(token)


def close_run(status: Literal["FINISHED", "FAILED", "KILLED"]) -> None:
    """End the pipeline's run. A run that has ended already, or was never begun, is left as it is.

    Raises: TrackingError if MLflow cannot be reached or refuses.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    if not uri:
        return
    from mlflow.exceptions import MlflowException

    try:
        client = mlflow_client(uri)
        run_id = _find_run(client)
        if run_id and client.get_run(run_id).info.status in ("RUNNING", "SCHEDULED"):
            client.set_terminated(run_id, status)
    except MlflowException as error:
        raise TrackingError(f"MLflow at {masked(uri)}: {one_line(error)}; the run is not closed") from error


_current: ContextVar[Tracker | None] = ContextVar("tracker of the running step", default=None)


def _find_run(client: MlflowClient) -> str:
    if run_id := os.environ.get("MLFLOW_RUN_ID"):
        return run_id
    pipeline_run = os.environ.get("PROTTUNE_PIPELINE_RUN", "")
    experiment = client.get_experiment_by_name(EXPERIMENT) if pipeline_run else None
    if experiment is None:
        return ""
    quoted = pipeline_run.replace("'", "")
    found = client.search_runs(
        [experiment.experiment_id], f"tags.`{PIPELINE_RUN_TAG}` = '{quoted}'", max_results=1
    )
    return str(found[0].info.run_id) if found else ""


def _create_run(client: MlflowClient, uri: str) -> str:
    pipeline_run = os.environ.get("PROTTUNE_PIPELINE_RUN", "").replace("'", "")
    tags = {PIPELINE_RUN_TAG: pipeline_run} if pipeline_run else {}
    run = client.create_run(experiment_id(client, uri), tags=tags, run_name=pipeline_run or None)
    return str(run.info.run_id)


def _end_own_run(tracker: Tracker, status: str) -> None:
    belongs_to_pipeline = os.environ.get("MLFLOW_RUN_ID") or os.environ.get("PROTTUNE_PIPELINE_RUN")
    if isinstance(tracker, MlflowTracker) and not belongs_to_pipeline:
        tracker.end(status)


def _record_failure(stage: str, error: Exception, tracker: Tracker) -> None:
    name = type(error).__name__
    exit_code = error.exit_code if isinstance(error, ProttuneError) else 1
    record = {"stage": stage, "error": name, "message": one_line(error), "exit_code": exit_code}
    if place := os.environ.get("PROTTUNE_FAILURE_FILE"):
        try:
            Path(place).write_text(json.dumps(record) + "\n", encoding="utf-8")
        except OSError as unwritable:  # the stage's own error matters more
            _log.warning("PROTTUNE_FAILURE_FILE %s: %s", place, unwritable)
    tracker.flush()
    tracker.tags({FAILED_STAGE_TAG: stage, ERROR_TAG: f"{name}: {record['message']}"})


def _key(name: str) -> str:
    """Spell a name with the characters that MLflow allows."""
    return re.sub(r"[^\w\-. /:]", "_", name, flags=re.ASCII)
