"""No process of a run outlives it."""

import os
import subprocess
import sys
import uuid
from time import monotonic, sleep

import pytest

from pipelines.processes import end_processes_of, processes_of

SLEEP = "import time; time.sleep(300)"
IN_OWN_SESSION = (
    f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {SLEEP!r}], start_new_session=True)"
)


def start(program: str, run_name: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", program], env=os.environ | {"PROTTUNE_PIPELINE_RUN": run_name}
    )


def wait_for(num_processes: int, run_name: str) -> None:
    until = monotonic() + 30
    while len(processes_of(run_name)) != num_processes and monotonic() < until:
        sleep(0.05)
    assert len(processes_of(run_name)) == num_processes


def test_processes_that_left_the_session_or_lost_their_parent_end_too() -> None:
    name = f"run-{uuid.uuid4().hex}"
    child = start(f"{IN_OWN_SESSION}\n{SLEEP}", name)
    orphan_maker = start(IN_OWN_SESSION, name)
    orphan_maker.wait(timeout=30)
    wait_for(3, name)
    end_processes_of(name)
    assert processes_of(name) == set()
    child.wait(timeout=5)


def test_processes_of_another_run_go_on() -> None:
    name, other = f"run-{uuid.uuid4().hex}", f"run-{uuid.uuid4().hex}"
    child = start(SLEEP, other)
    try:
        wait_for(1, other)
        end_processes_of(name)
        assert child.poll() is None
    finally:
        child.kill()
        child.wait(timeout=5)


def test_a_process_that_ignores_the_request_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.processes._GRACE_SECONDS", 0.5)
    name = f"run-{uuid.uuid4().hex}"
    program = (
        f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); {SLEEP}"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        env=os.environ | {"PROTTUNE_PIPELINE_RUN": name},
    )
    assert child.stdout is not None
    with child.stdout:
        assert child.stdout.readline() == b"deaf\n"
        end_processes_of(name)
    assert processes_of(name) == set()
    child.wait(timeout=5)
