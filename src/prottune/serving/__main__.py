"""Serve one model folder: `python -m prottune.serving --model DIR [--port N] [--model-version V]`."""

from __future__ import annotations

import os
import signal
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path

from prottune.errors import ProttuneError
from prottune.flags import parse_flags
from prottune.serving.settings import ServeConfig


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """What is served, and how."""

    model: Path
    """A finished model folder."""
    model_version: str = ""
    """Version that answers carry; empty: the start of the folder's digest."""
    stop_at_end_of_input: bool = False
    """Stop when standard input ends, so that the server never outlives the program that started it."""
    config: ServeConfig = field(default_factory=ServeConfig)


def main(words: list[str]) -> int:
    """Run until INT or TERM; returns the exit code."""
    try:
        arguments = parse_flags(Arguments, words, "python -m prottune.serving", "Serve one model folder.")
        if arguments.stop_at_end_of_input:
            threading.Thread(target=_stop_at_end_of_input, daemon=True).start()
        from prottune.serving.server import serve

        serve(arguments.model, arguments.config, arguments.model_version)
    except ProttuneError as error:
        sys.stderr.write(f"prottune.serving: {error}\n")
        return error.exit_code
    return 0


def _stop_at_end_of_input() -> None:
    while os.read(sys.stdin.fileno(), 1024):  # not sys.stdin.read(): its lock would outlive the thread
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
