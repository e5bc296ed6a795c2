"""How a training run is asked to end, and how long it may take to keep its last step.

The parent of the ranks leaves a file in their job's folder; ranks that somebody else started get a signal
of their own. Only rank 0 answers: it has all there is to keep, and the others wait for it in their next
exchange.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from prottune.errors import ProttuneError

GRACE_SECONDS = 25.0
"""Time for the last checkpoint: a little less than the 30 s that Kubernetes gives a pod before it kills it.

Source: https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-termination"""
STOPPED_EXIT_CODE = 128 + signal.SIGTERM

_TICK_SECONDS = 0.05


class Stopped(Exception):  # noqa: N818 - not an error: the run was asked to end, and its last step is kept
    """The run was asked to end and has kept its last step."""


class Stop:
    """A request to end, seen from both sides of a job's folder."""

    def __init__(self, folder: Path) -> None:
        self._asked = folder / "stop"
        self._listening = folder / "listening"

    def asked(self) -> bool:
        """Whether the run shall end at the next border between two steps."""
        return self._asked.exists()

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Say that there may be something to keep while the block runs."""
        self._listening.touch()
        try:
            yield
        finally:
            self._listening.unlink(missing_ok=True)

    @contextmanager
    def on_sigterm(self) -> Iterator[None]:
        """Inside, SIGTERM is such a request; outside it does what it did."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def ask(_number: int, _frame: FrameType | None) -> None:
            self._asked.touch()

        before = signal.signal(signal.SIGTERM, ask)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)

    def ask_and_wait(self, is_running: Callable[[], bool]) -> None:
        """Ask rank 0 to end and wait until it has kept its last step, has died, or the grace is over."""
        self._asked.touch()
        until = time.monotonic() + GRACE_SECONDS
        while self._listening.exists() and is_running() and time.monotonic() < until:
            time.sleep(_TICK_SECONDS)


@contextmanager
def ending_when_stopped(stop: Stop) -> Iterator[None]:
    """For a rank that somebody else started: at SIGTERM rank 0 keeps its last step and ends as shells expect.

    The others do not end before it: without them it could not finish its step.
    """
    with stop.on_sigterm():
        try:
            yield
        except Stopped:
            raise SystemExit(STOPPED_EXIT_CODE) from None
        except ProttuneError:
            raise
        except Exception as error:  # in an exchange with rank 0, which has gone
            if stop.asked():
                raise SystemExit(STOPPED_EXIT_CODE) from error
            raise
