"""Text files line by line, under the rules that FASTA, CSV and TSV share: UTF-8, LF or CRLF, short lines."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import BinaryIO

from prottune.errors import DataError

MAX_LINE_BYTES = 1 << 20
"""A longer line is refused, so a file without line ends never fills the memory."""

Note = Callable[[str, str], object]
"""Told the kind and the name of what was tolerated: file or record."""

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def read_lines(stream: BinaryIO, name: str, note: Note) -> Iterator[tuple[int, str]]:
    """Read text lines with their number from 1, without their ends, under the rules of all our text files.

    `note` hears once of `byte_order_mark`, `crlf` and `no_final_newline`, with the file's name.

    Raises: DataError with `name:line` for a line above `MAX_LINE_BYTES`, bytes that are not UTF-8, control
        characters, and carriage returns that end no line.
    """
    lines = Lines(name, note)
    while raw := stream.readline(MAX_LINE_BYTES + 1):
        line = lines.judged(raw)
        yield lines.number, line


class Lines:
    """Judges the lines of one file in their order, however its bytes were read."""

    def __init__(self, name: str, note: Note) -> None:
        self.number = 0
        """Of the last line that was judged or passed."""
        self._name, self._note, self._is_crlf = name, note, False

    def judged(self, raw: bytes) -> str:
        """The text of the next line, without its end. Raises as `read_lines` does."""
        self.number += 1
        if self.number == 1 and raw.startswith(_BYTE_ORDER_MARK):
            raw = raw.removeprefix(_BYTE_ORDER_MARK)
            self._note("byte_order_mark", self._name)
        if len(raw) > MAX_LINE_BYTES:
            raise DataError(
                f"{self._name}:{self.number}: a line of more than {MAX_LINE_BYTES:,} bytes; wrap the sequence"
            )
        if raw.endswith(b"\r\n"):
            self._note_crlf()
            raw = raw[:-2]
        elif raw.endswith(b"\n"):
            raw = raw[:-1]
        else:
            self._note("no_final_newline", self._name)
        return _text(raw, self._name, self.number)

    def passed(self, lines: bytes, num_lines: int) -> None:
        """Go on behind lines in which nothing can be wrong, noting how they end as `judged` does."""
        self.number += num_lines
        if b"\r" in lines:
            self._note_crlf()
        if not lines.endswith(b"\n"):
            self._note("no_final_newline", self._name)

    def _note_crlf(self) -> None:
        if not self._is_crlf:
            self._note("crlf", self._name)
        self._is_crlf = True


def _text(raw: bytes, name: str, number: int) -> str:
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{name}:{number}: byte 0x{raw[error.start]:02x} is not UTF-8; convert the file (iconv)"
        ) from error
    if bad := _CONTROL.search(text):
        if bad.group() == "\r":
            raise DataError(
                f"{name}:{number}: a carriage return that ends no line; expected LF or CRLF line ends"
            )
        raise DataError(f"{name}:{number}: control character {bad.group()!r} at column {bad.start() + 1}")
    return text
