"""Start the ranks of a training run, watch them, and leave none of them behind, however the parent ends."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil

from prottune.machine import num_cores
from prottune.training.job import dead_rank, has_failed, read_failure
from prottune.training.stopping import Stop
from prottune.unwinding import sigterm_unwinds

_WORKER = "prottune.training.worker"
_GRACE_SECONDS = 2.0
"""What ranks get to end by themselves; none of them has anything to keep by then."""
_LAST_LINES = 15


def run_ranks(folder: Path, num_processes: int, meanwhile: Callable[[], None]) -> None:
    """Run the job that lies in `folder` in so many processes; call `meanwhile` often until they end.

    The first rank that fails or dies ends all: the others may hang. If this process is asked to end, rank 0
    may keep its last step first.

    Raises: the ProttuneError that ended a rank; RuntimeError with the last words of a rank that crashed.
    """
    dead = None
    with _launched(folder, num_processes) as launcher:
        try:
            while launcher.poll() is None and not has_failed(folder) and dead is None:
                meanwhile()
                time.sleep(0.2)
                dead = dead_rank(folder) if launcher.poll() is None else None
        except Exception:
            raise
        except BaseException:  # a signal
            Stop(folder).ask_and_wait(lambda: launcher.poll() is None and dead_rank(folder) != 0)
            raise
    meanwhile()
    if launcher.returncode != 0 or dead is not None or has_failed(folder):  # torchrun may end with 0
        how = f"ended with code {launcher.returncode}" if dead is None else f"was killed (rank {dead})"
        raise read_failure(folder) or RuntimeError(
            f"a training process {how}; last words:\n{_last_words(folder)}"
        )


def launched_by_torchrun(environment: Mapping[str, str]) -> bool:
    """Whether somebody has started several of us already, by torchrun or a launcher that does as it does."""
    return {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= set(environment)


def rank_environment(num_processes: int, environment: Mapping[str, str]) -> dict[str, str]:
    """The parent's environment, with cores shared out and gloo on the loopback, unless decided there.

    Threads that wait asleep instead of spinning: on a busy machine a run with 2 threads was 5 times faster.
    """
    chosen = {"OMP_NUM_THREADS": str(max(1, num_cores() // num_processes)), "OMP_WAIT_POLICY": "PASSIVE"}
    if "lo" in (name for _, name in socket.if_nameindex()):
        chosen["GLOO_SOCKET_IFNAME"] = "lo"
    return chosen | dict(environment)


def _command(folder: Path, num_processes: int) -> list[str]:
    if num_processes == 1:
        return [sys.executable, "-m", _WORKER, str(folder)]
    # Port 0 is a free one. --standalone would find one too, but by the name localhost, and wait minutes where
    # a container cannot resolve it.
    meet = ["--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0", "--local-addr=127.0.0.1"]
    logs = ["--log-dir", str(folder / "ranks"), "--redirects", "2"]  # each rank's stderr in a file of its own
    torchrun = ["-m", "torch.distributed.run", f"--nproc-per-node={num_processes}", *meet, *logs]
    return [sys.executable, *torchrun, "-m", _WORKER, str(folder)]


@contextmanager
def _launched(folder: Path, num_processes: int) -> Iterator[subprocess.Popen[bytes]]:
    """Start the ranks in a session of their own, so that no signal meets half of them; end all of them.

    Their stdin is a lifeline: it closes when this process dies, even by SIGKILL, and they end themselves.
    """
    with sigterm_unwinds(), (folder / "launcher.err").open("wb") as errors:
        launcher = subprocess.Popen(
            _command(folder, num_processes),
            stdin=subprocess.PIPE,
            stdout=errors,
            stderr=errors,
            env=rank_environment(num_processes, os.environ),
            start_new_session=True,
        )
        try:
            yield launcher
        finally:
            _end(launcher)


def _end(launcher: subprocess.Popen[bytes]) -> None:
    """End the launcher and every process below it: politely first, then by force."""
    assert launcher.stdin is not None
    try:
        top = psutil.Process(launcher.pid)
        tree = [top, *top.children(recursive=True)]
    except psutil.NoSuchProcess:
        tree = []
    launcher.stdin.close()
    for process in tree:
        _unless_gone(process.terminate)
    _, alive = psutil.wait_procs(tree, timeout=_GRACE_SECONDS)
    for process in alive:
        _unless_gone(process.kill)
    psutil.wait_procs(alive, timeout=_GRACE_SECONDS)
    launcher.wait()


def _unless_gone(send: Callable[[], None]) -> None:
    try:
        send()
    except psutil.NoSuchProcess:
        return


def _last_words(folder: Path) -> str:
    """The last lines that a rank (else the launcher) wrote to stderr."""
    logs = [path for path in sorted((folder / "ranks").rglob("stderr.log")) if path.stat().st_size]
    text = (logs or [folder / "launcher.err"])[0].read_text(encoding="utf-8", errors="replace")
    return "\n".join(text.strip().splitlines()[-_LAST_LINES:])
