"""A real endpoint for tests: `python -m prottune.serving` in a process of its own, gone with the block."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Queue

_HTTP, _GRPC = re.compile(r"listening on (http://[^\s\"]+)"), re.compile(r"gRPC on ([^\s\"]+)")
_START_SECONDS = 300


@dataclass(frozen=True)
class Served:
    """Where a running endpoint listens, and what it has said so far."""

    url: str
    grpc: str
    """host:port, empty without gRPC."""
    process: subprocess.Popen[str]
    log: list[str]

    @property
    def host_and_port(self) -> str:
        return self.url.removeprefix("http://")


@contextmanager
def served(model: Path, *flags: str) -> Iterator[Served]:
    """Start an endpoint on free ports and wait until it answers."""
    command = [sys.executable, "-m", "prottune.serving", "--model", str(model), "--port", "0", *flags]
    command += ["--grpc-port", "0", "--stop-at-end-of-input"]
    log: list[str] = []
    found: Queue[tuple[str, str]] = Queue()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        reader = threading.Thread(target=_read, args=(process, log, found, "--grpc" in flags), daemon=True)
        reader.start()
        try:
            url, grpc = found.get(timeout=_START_SECONDS)
            assert url, f"the endpoint ended before it listened: {log[-3:]}"
            yield Served(url, grpc, process, log)
        finally:
            process.kill()
            process.wait()
            reader.join()


def _read(
    process: subprocess.Popen[str], log: list[str], found: Queue[tuple[str, str]], speaks_grpc: bool
) -> None:
    """Keep every line, so that the pipe never fills, and tell the addresses once they are all known."""
    assert process.stderr is not None
    http, grpc = "", ""
    for line in process.stderr:
        log.append(line)
        match_http, match_grpc = _HTTP.search(line), _GRPC.search(line)
        http, grpc = match_http[1] if match_http else http, match_grpc[1] if match_grpc else grpc
        if (match_http or match_grpc) and http and bool(grpc) == speaks_grpc:
            found.put((http, grpc))
    found.put(("", ""))
