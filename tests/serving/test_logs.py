from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from prottune.serving.logs import ANNOUNCEMENT, set_up_logging


class Terminal(io.StringIO):
    """Where a person reads."""

    def isatty(self) -> bool:
        return True


@contextmanager
def logging_to(stream: io.StringIO) -> Iterator[logging.Logger]:
    """Only the server's own handler; those of pytest come back."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers[:] = []
    set_up_logging(stream)
    yield root
    root.handlers[:] = handlers
    root.setLevel(level)


def test_lines_are_json_but_for_the_one_that_programs_wait_for() -> None:
    stream = io.StringIO()
    with logging_to(stream) as root:
        root.warning("half of the %s is gone", "memory")
        root.info(f"{ANNOUNCEMENT}http://127.0.0.1:8080")
    first, second = stream.getvalue().splitlines()
    line = json.loads(first)
    assert (line["level"], line["logger"], line["message"]) == (
        "WARNING",
        "root",
        "half of the memory is gone",
    )
    assert second == "listening on http://127.0.0.1:8080"


def test_what_asyncio_says_below_its_first_line_is_left_out() -> None:
    stream = io.StringIO()
    with logging_to(stream) as root:
        root.error("Task exception was never retrieved\nfuture: <Task exception=ValueError('MKTAYIAKQR')>")
    (line,) = stream.getvalue().splitlines()
    assert json.loads(line)["message"] == "Task exception was never retrieved"


def test_on_a_terminal_lines_are_words_and_an_error_shows_its_place_only() -> None:
    stream = Terminal()
    with logging_to(stream) as root:
        try:
            int("MKTAYIAKQR")
        except ValueError:
            root.exception("a request failed")
    first, *places = stream.getvalue().splitlines()
    assert first.endswith(" ERROR a request failed (ValueError)")
    assert len(places) == 1
    assert places[0].endswith(" test_on_a_terminal_lines_are_words_and_an_error_shows_its_place_only")
