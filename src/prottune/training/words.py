"""What rank 0 logs in its own process, passed on by the parent: line by line, through the job's folder."""

from __future__ import annotations

import logging
from pathlib import Path

from prottune.training.history import NewLines

_WORDS_FILE = "words.log"
_LIBRARY = __name__.partition(".")[0]

_log = logging.getLogger(__name__)


def speak_into(folder: Path) -> None:
    """From now on, leave what prottune logs in this process for the parent."""
    words = logging.FileHandler(folder / _WORDS_FILE, encoding="utf-8")
    words.setFormatter(_OneLine("%(levelname)s %(message)s"))
    logger = logging.getLogger(_LIBRARY)
    logger.addHandler(words)
    logger.setLevel(logging.INFO)


class _OneLine(logging.Formatter):
    """Makes one line of several, as the listener reads lines."""

    def format(self, record: logging.LogRecord) -> str:
        return " ".join(super().format(record).split())


class Listener:
    """The parent's side: each line once, at the level that it was said with."""

    def __init__(self, folder: Path) -> None:
        self._lines = NewLines(folder / _WORDS_FILE)

    def catch_up(self) -> None:
        for line in self._lines.read():
            level, _, words = line.decode().partition(" ")
            _log.log(logging.getLevelNamesMapping()[level], "%s", words)
