import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from prottune.training.words import Listener, speak_into

LIBRARY = logging.getLogger("prottune")


@pytest.fixture
def rank(tmp_path: Path) -> Iterator[logging.Logger]:
    """A logger as a rank has it; this process is its own parent here, so nothing is passed further."""
    handlers, level = list(LIBRARY.handlers), LIBRARY.level
    speak_into(tmp_path)
    yield logging.getLogger("prottune.training.features")
    for handler in set(LIBRARY.handlers) - set(handlers):
        LIBRARY.removeHandler(handler)
        handler.close()
    LIBRARY.setLevel(level)


def test_words_with_line_breaks_stay_one_line(
    rank: logging.Logger, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rank.warning("%s", RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be late\n"))
    caplog.clear()
    Listener(tmp_path).catch_up()
    (said,) = [record for record in caplog.records if record.name == "prottune.training.words"]
    assert said.getMessage() == "CUDA error: out of memory CUDA kernel errors might be late"


def test_the_parent_says_each_line_once_and_with_its_level(
    rank: logging.Logger, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    listener = Listener(tmp_path)
    rank.info("%d GB in /tmp", 13)
    rank.debug("not for people")
    rank.warning("almost full: 99 %")
    LIBRARY.handlers[-1].close()
    LIBRARY.removeHandler(LIBRARY.handlers[-1])
    caplog.clear()
    listener.catch_up()
    listener.catch_up()
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("INFO", "13 GB in /tmp"),
        ("WARNING", "almost full: 99 %"),
    ]


def test_a_rank_that_said_nothing_is_heard_to_say_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Listener(tmp_path).catch_up()
    assert caplog.records == []
