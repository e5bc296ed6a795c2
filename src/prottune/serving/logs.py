"""What the server says while it runs: one line for each event and each request, never what was asked.

A line is JSON, or plain words on a terminal. It names no sequence, no accession and no path: a request is
known by its route as it is written in the program. The message of an unexpected error may hold what a caller
sent, so only the error's type and the places it went through are written.

`listening on http://...` alone is always plain: programs that start the server wait for it.
"""

from __future__ import annotations

import logging
import sys
import traceback
from contextvars import ContextVar
from datetime import UTC, datetime
from types import TracebackType
from typing import TextIO

import orjson

ANNOUNCEMENT = "listening on "
"""How the line begins that names an address; its end is the end of the address."""

_MOST_FRAMES = 8

_requests = logging.getLogger("prottune.serving.requests")
_notes: ContextVar[dict[str, int] | None] = ContextVar("notes of one request", default=None)


def set_up_logging(stream: TextIO | None = None) -> None:
    """Send every log line to stderr: plain words on a terminal, JSON elsewhere."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(_PlainLines() if handler.stream.isatty() else _JsonLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler])


def begin_notes() -> dict[str, int]:
    """Start the notes of one request; what `note` adds while it is answered is found in them."""
    notes: dict[str, int] = {}
    _notes.set(notes)
    return notes


def note(**numbers: int) -> None:
    """Add numbers to the log line of the request that is being answered, as in `note(num_sequences=3)`."""
    if (notes := _notes.get()) is not None:
        notes.update(numbers)


def log_request(level: int, fields: dict[str, object]) -> None:
    """Write the one line of a request."""
    _requests.log(level, "%s", _Words(fields), extra={"fields": fields})


class _Words:
    """What a line says for people, put together only if it is written for them."""

    def __init__(self, fields: dict[str, object]) -> None:
        self._fields = fields

    def __str__(self) -> str:
        return " ".join(f"{name}={value}" for name, value in self._fields.items())


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
        }
        if fields := getattr(record, "fields", None):
            line |= fields
        elif (message := _first_line(record)).startswith(ANNOUNCEMENT):
            return message
        else:
            line |= {"logger": record.name, "message": message}
        if record.exc_info and record.exc_info[0]:
            line |= {"error": record.exc_info[0].__name__, "at": _places(record.exc_info[2])}
        return orjson.dumps(line).decode()


class _PlainLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        message = _first_line(record)
        if message.startswith(ANNOUNCEMENT):
            return message
        line = f"{self.formatTime(record, '%H:%M:%S')} {record.levelname} {message}"
        if record.exc_info and record.exc_info[0]:
            places = "".join(f"\n    {place}" for place in _places(record.exc_info[2]))
            line += f" ({record.exc_info[0].__name__}){places}"
        return line


def _first_line(record: logging.LogRecord) -> str:
    """What asyncio adds below the first line is the text of an error, which may hold a sequence."""
    return record.getMessage().partition("\n")[0]


def _places(trace: TracebackType | None) -> list[str]:
    frames = traceback.extract_tb(trace)[-_MOST_FRAMES:]
    return [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
