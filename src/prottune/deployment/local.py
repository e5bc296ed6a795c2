"""A local endpoint: `python -m prottune.serving` as a child, on a free port of this machine only."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import httpx

from prottune.deployment.endpoint import Endpoint, is_answering
from prottune.deployment.settings import DeployConfig
from prottune.errors import ConfigError, DeploymentError

_POLL_SECONDS = 0.1
_STOP_SECONDS = 20.0
_LAST_WORDS = 5


class LocalDeployment:
    """Serves a model for the length of a `with` block; nothing is left when it ends."""

    @contextmanager
    def endpoint(
        self, folder: Path, model_uri: str, config: DeployConfig, model_version: str
    ) -> Iterator[Endpoint]:
        """Start a server, wait until its model is ready, stop it at the end of the block.

        Raises: ConfigError where torch is not installed; DeploymentError with the server's last words if it
            dies or is not ready in time.
        """
        if importlib.util.find_spec("torch") is None:
            raise ConfigError(
                "a local endpoint needs torch, which is not installed here; use the image prottune-torch, or "
                "a cluster (deploy_to=kserve)"
            )
        # It takes a free port itself, so no other program can race for it.
        command = [sys.executable, "-m", "prottune.serving", "--model", str(folder)]
        command += ["--host", "127.0.0.1", "--port", "0", "--settle-seconds", "0"]
        command += [f"--model-version={model_version}"]
        with running([*command, "--stop-at-end-of-input"], config.ready_timeout_seconds) as endpoint:
            yield endpoint


@contextmanager
def running(command: Sequence[str], ready_timeout_seconds: float) -> Iterator[Endpoint]:
    """Run a server that says where it listens; yield it once its model is ready, stop it at the end.

    Raises: DeploymentError with the server's last words if it dies or is not ready in time.
    """
    begun = time.monotonic()
    with tempfile.TemporaryFile() as log:
        child = _start(command, log)
        try:
            url = _wait_until_ready(child, log, begun + ready_timeout_seconds)
            yield Endpoint(url, time.monotonic() - begun, still_running=False)
        finally:
            _stop(child)


def _start(command: Sequence[str], log: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start the server in a session of its own. It can end when our end of its standard input closes, even
    if we are killed."""
    return subprocess.Popen(
        list(command),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=log,
        start_new_session=True,
    )


def _wait_until_ready(child: subprocess.Popen[bytes], log: IO[bytes], deadline: float) -> str:
    with httpx.Client(timeout=5.0, trust_env=False) as client:
        while time.monotonic() < deadline:
            if (code := child.poll()) is not None:
                raise DeploymentError(f"the server ended with exit code {code}: {_last_words(log)}")
            if (url := _announced_address(log)) and is_answering(client, url):
                return url
            time.sleep(_POLL_SECONDS)
    raise DeploymentError(f"the server was not ready in time; its last words: {_last_words(log)}")


def _announced_address(log: IO[bytes]) -> str:
    found = re.search(r"(?:listening|running) on (http://[\d.]+:\d+)\D", _text(log))
    return found.group(1) if found else ""


def _last_words(log: IO[bytes]) -> str:
    lines = [line.strip() for line in _text(log).splitlines() if line.strip()]
    return " | ".join(lines[-_LAST_WORDS:]) or "none"


def _text(log: IO[bytes]) -> str:
    size = os.fstat(log.fileno()).st_size
    return os.pread(log.fileno(), size, 0).decode("utf-8", "replace")


def _stop(child: subprocess.Popen[bytes]) -> None:
    """Ask the server to end, wait, then kill whatever is left of its process group."""
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
    with suppress(ProcessLookupError):  # the usual case: nothing is left
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    if child.stdin is not None:
        child.stdin.close()
