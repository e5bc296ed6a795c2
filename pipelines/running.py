"""Run a committed graph on this machine, follow it, and end it whole when asked to.

The graph runs in a child process with a session of its own; what it prints goes to `log.txt` in the run's
folder. This process shows the progress, passes on failures, and on INT, TERM or HUP ends every process of
the run and closes its MLflow run as KILLED.
"""

import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Literal

from pipelines import endings, finetuned, predicted
from pipelines.compiling import GRAPHS
from pipelines.executing import STEPS_FOLDER
from pipelines.parameters import check
from pipelines.processes import end_processes_of
from pipelines.progress import Progress
from pipelines.runs import Run, new_run
from prottune.errors import TrackingError
from prottune.tracking.step import close_run

ENDINGS = {"finetune": finetuned.ENDING, "predict": predicted.ENDING}
"""Graph -> what its steps leave behind, and how that is told."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_TICK_SECONDS = 0.5


class Interrupted(BaseException):
    """A signal asked the run to end. No Exception: nothing on the way may take it for a failure."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


def run(values: Mapping[str, Any], runs: Path, graph: str = GRAPHS[0]) -> int:
    """Run a graph with these parameters below `runs`; returns the exit code.

    Raises: ConfigError for settings that a stage would refuse; nothing has run then.
    """
    check(values, graph)
    place, ending = new_run(runs, values), ENDINGS[graph]
    print(f"run {place.name}: outputs and log.txt in {place.folder}")
    progress = Progress(place.folder / STEPS_FOLDER)
    try:
        with interruptions():
            try:
                exit_code = _follow(_start(place, graph), place.log, progress)
            finally:
                _ignore_signals()  # a second Ctrl-C must not stop the tidying-up
                _end(place)
    except Interrupted as interrupted:
        _ignore_signals()
        _close(place, "KILLED")
        return endings.interrupted(place, progress, interrupted.signum, ending)
    if not exit_code:
        return endings.done(place, progress, ending)
    if not ending.has_last_step:  # a step that was killed could not do it
        _close(place, "FAILED")
    return endings.failed(place, progress, ending)


@contextmanager
def interruptions() -> Iterator[None]:
    """Inside, INT, TERM and HUP raise `Interrupted`."""

    def interrupt(signum: int, _frame: FrameType | None) -> None:
        _ignore_signals()
        raise Interrupted(signum)

    before = {number: signal.signal(number, interrupt) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _ignore_signals() -> None:
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _start(place: Run, graph: str) -> subprocess.Popen[str]:
    binaries = str(Path(sys.executable).parent)
    environment = os.environ | place.environment
    environment["PATH"] = os.pathsep.join([binaries, environment.get("PATH", "")])
    return subprocess.Popen(
        [sys.executable, "-m", "pipelines.executing", str(place.folder), graph],
        env=environment,
        stdin=subprocess.PIPE,  # closed by our death, however sudden: then the child ends the run
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )


def _follow(child: subprocess.Popen[str], log: Path, progress: Progress) -> int:
    """Write all that the child prints to the log and show what matters, until the child has ended."""
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(child, lines), daemon=True).start()
    with log.open("w", encoding="utf-8") as stream:
        while True:
            try:
                line = lines.get(timeout=_TICK_SECONDS)
            except queue.Empty:
                progress.tick()
                if child.poll() is not None:  # a grandchild may hold the pipe open for ever
                    return child.returncode
                continue
            if line is None:
                return child.wait()
            stream.write(line)
            stream.flush()
            progress.line(line)


def _read(child: subprocess.Popen[str], lines: "queue.SimpleQueue[str | None]") -> None:
    assert child.stdout is not None
    for line in child.stdout:
        lines.put(line)
    lines.put(None)


def _end(place: Run) -> None:
    """Leave nothing of the run running, and none of its scratch files."""
    end_processes_of(place.name)
    shutil.rmtree(place.scratch, ignore_errors=True)


def _close(place: Run, status: Literal["FAILED", "KILLED"]) -> None:
    """End the MLflow run, if it has not ended."""
    os.environ.update(place.environment)
    try:
        close_run(status)
    except TrackingError as error:  # whoever next reaches MLflow closes it
        print(f"warning: {error}", file=sys.stderr)
