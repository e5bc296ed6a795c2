"""What a program prints: who stops reading it (`| head`) changes neither its work nor its exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any, TextIO

from prottune.errors import ServiceError


class _Screen:
    """Standard output, and from the moment that it takes nothing any more, nowhere."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.error: OSError | None = None
        """Why it takes nothing any more, unless its reader just left."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as error:
            self._let_go(error)
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._let_go(error)

    def _let_go(self, error: OSError) -> None:
        """Throw away what will be written, and what the stream could not get rid of."""
        self.error = None if isinstance(error, BrokenPipeError) else error
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)


@contextmanager
def patient_screen() -> Iterator[None]:
    """While the block runs, a screen that takes no more words is no error.

    Raises: ServiceError afterwards if it is a file or device that could not be written.
    """
    if sys.stdout is None:  # closed by whoever started the program
        yield
        return
    screen = _Screen(sys.stdout)
    with redirect_stdout(screen):
        yield
    screen.flush()
    if screen.error is not None:
        raise ServiceError(f"standard output: cannot be written ({screen.error.strerror})")
