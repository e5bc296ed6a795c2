"""A tracked step of a graph in which no task always comes last."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from prottune.errors import ProttuneError, ServiceError, TrackingError
from prottune.tracking.step import close_run, step
from prottune.tracking.tracker import Tracker

_log = logging.getLogger(__name__)


@contextmanager
def prediction_step(
    stage: str, settings: object | None = None, *, is_last: bool = False
) -> Iterator[Tracker]:
    """Track one step; after the last one the pipeline's MLflow run ends as FINISHED.

    It ends as FAILED with a step that would fail again. One that a retry may save leaves it open, since a
    run that has ended stays as it ended.

    Fine-tuning leaves that to a task that always comes last. Around a loop over shards such a task is not to
    be had: KFP's backend runs no loop inside an exit handler.
    Source: https://github.com/kubeflow/pipelines/issues/12390

    Raises: TrackingError if the last step cannot close the run.
    """
    try:
        with step(stage, settings) as tracker:
            yield tracker
    except ServiceError:
        raise
    except ProttuneError:
        try:
            close_run("FAILED")
        except TrackingError as unreachable:  # what the step said matters more
            _log.warning("%s", unreachable)
        raise
    if is_last:
        close_run("FINISHED")
