"""One stage as MLflow sees it: which run is its own, its settings, how it ended and why."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

from prottune.errors import ProttuneError, TrackingError
from prottune.tracking.delivery import Parcel, RunWriter, now
from prottune.tracking.mlflow_store import (
    PIPELINE_RUN_TAG,
    STEP_TAG,
    RunAddress,
    find_run,
    masked,
    mlflow_client,
    one_line,
)
from prottune.tracking.tracker import MlflowTracker, SilentTracker, Tracker
from prottune.tracking.unsent import keep_and_tell, send_kept

_log = logging.getLogger(__name__)

FAILED_STAGE_TAG = "prottune.failed_stage"
ERROR_TAG = "prottune.error"


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
    ended = Parcel(ended=(status, now()))
    try:
        client = mlflow_client(address.uri)
        send_kept(client, address.uri)
        if run_id := find_run(client, address):
            RunWriter(client, run_id).write(ended)
    except Exception as error:  # whatever MLflow raises
        keep_and_tell(address, [ended])
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
    return RunAddress(uri, os.environ.get("MLFLOW_RUN_ID", ""), tag, begun=now())


def _close(tracker: Tracker, status: str) -> None:
    if isinstance(tracker, MlflowTracker):
        tracker.close(status)


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
