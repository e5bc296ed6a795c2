"""End every process of a run, also those that left its session (torchrun's ranks) or lost their parent."""

import os

import psutil

from prottune.training.stopping import GRACE_SECONDS

_GRACE_SECONDS = GRACE_SECONDS + 5.0
"""A training step may keep its last checkpoint first."""


def end_processes_of(run_name: str) -> None:
    """Ask all processes of a run to end; kill what is left after the grace.

    A process belongs to a run if its environment names it (PROTTUNE_PIPELINE_RUN) or if it was started by
    one that does.
    """
    for _ in range(3):  # a process may start another one while we look
        waiting = processes_of(run_name)
        if not waiting:
            return
        for process in waiting:
            _signal(process, kill=False)
        _, alive = psutil.wait_procs(waiting, timeout=_GRACE_SECONDS)
        for process in alive:
            _signal(process, kill=True)
        psutil.wait_procs(alive, timeout=_GRACE_SECONDS)


def processes_of(run_name: str) -> set[psutil.Process]:
    """Every living process of a run."""
    found: set[psutil.Process] = set()
    for process in psutil.process_iter():
        try:
            if process.environ().get("PROTTUNE_PIPELINE_RUN") == run_name:
                found |= {process, *process.children(recursive=True)}
        except (psutil.Error, OSError):
            continue  # ended meanwhile, or another user's
    return {process for process in found if process.pid != os.getpid()}


def _signal(process: psutil.Process, *, kill: bool) -> None:
    try:
        if kill:
            process.kill()
        else:
            process.terminate()
    except psutil.NoSuchProcess:
        return
