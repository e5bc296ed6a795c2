"""A real MLflow server for tests, in a process of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from mlflow_template import new_store


class Server:
    """A real MLflow server on a port of its own, with a database that survives it."""

    def __init__(self, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self._folder, self._database = folder, new_store(folder)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def is_alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Begin to start; `wait` for the end of it."""
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--workers", "1", "--backend-store-uri", self._database]
        command += ["--artifacts-destination", str(self._folder / "artifacts")]
        quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
        quiet["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command, env=os.environ | quiet, stdout=log, stderr=log, start_new_session=True
            )

    def wait(self) -> None:
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline and self.is_alive:
            try:
                if httpx.get(f"{self.uri}/health", trust_env=False).status_code == 200:
                    return
            except httpx.TransportError:
                time.sleep(0.2)
        raise AssertionError("the MLflow server did not start")

    def kill(self) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


@contextmanager
def mlflow_server(folder: Path) -> Iterator[Server]:
    """A server that answers; gone when the block ends."""
    server = Server(folder)
    server.start()
    try:
        server.wait()
        yield server
    finally:
        server.kill()
