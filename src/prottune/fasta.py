"""FASTA by a written grammar: bytes come in, records with their line go out, anything else is refused.

    file   = record+                         UTF-8; a byte order mark is tolerated
    record = ">" id [ " " description ] EOL  line+
    line   = any text that does not begin with ">"; blank lines and blanks inside are dropped
    EOL    = LF or CRLF; the last one may be missing

Which letters are residues and what a description means is judged elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from prottune.errors import DataError

MAX_LINE_BYTES = 1 << 20
"""A longer line is refused, so a file without line ends never fills the memory."""
MAX_RESIDUES = 100_000
"""A longer sequence is refused; the longest known human protein, titin, has about 35,000 residues."""

Note = Callable[[str, str], object]
"""Told the kind and the name of what was tolerated: file or record."""

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class FastaRecord:
    """One record: the header without its ">", the letters without white space, the header's line."""

    header: str
    sequence: str
    line: int


def _unnoted(_kind: str, _name: str) -> None:
    """For callers who do not ask what was tolerated."""


def read_fasta(stream: BinaryIO, name: str, note: Note = _unnoted) -> Iterator[FastaRecord]:
    """Read a FASTA file record by record, holding one record at a time in memory.

    `name` stands for the file in messages. `note` hears of what was tolerated: `byte_order_mark`, `crlf`
    and `no_final_newline` with the file's name, `inner_blanks` with the record's first word.

    Raises: DataError with `name:line` for everything outside the grammar, for an empty file, and for a
        line or sequence above the limits of this module.
    """
    header, start, length = "", 0, 0
    pieces: list[str] = []
    for number, line in read_lines(stream, name, note):
        if line.startswith(">"):
            if start:
                yield _record(header, pieces, start, name, note)
            header, start, length, pieces = _header(line, name, number), number, 0, []
        elif start and (piece := line.strip(" \t")):
            pieces.append(piece)
            length += len(piece)
            if length > 2 * MAX_RESIDUES:  # twice: a blank may stand between any two residues
                raise _too_long(f"{name}:{start}: {header.split()[0]}", length)
        elif line.strip():
            raise DataError(_text_before(line, name, number))
    if not start:
        raise DataError(f"{name}: no record found; expected at least one line that begins with '>'")
    yield _record(header, pieces, start, name, note)


def read_lines(stream: BinaryIO, name: str, note: Note) -> Iterator[tuple[int, str]]:
    """Read text lines with their number from 1, without their ends, under the rules of all our text files.

    Raises: DataError with `name:line` for a line above `MAX_LINE_BYTES`, bytes that are not UTF-8, control
        characters, and carriage returns that end no line.
    """
    number, is_crlf = 0, False
    while raw := stream.readline(MAX_LINE_BYTES + 1):
        number += 1
        if number == 1 and raw.startswith(_BYTE_ORDER_MARK):
            raw = raw.removeprefix(_BYTE_ORDER_MARK)
            note("byte_order_mark", name)
        if len(raw) > MAX_LINE_BYTES:
            raise DataError(
                f"{name}:{number}: a line of more than {MAX_LINE_BYTES:,} bytes; wrap the sequence"
            )
        if raw.endswith(b"\r\n"):
            if not is_crlf:
                note("crlf", name)
            is_crlf = True
            raw = raw[:-2]
        elif raw.endswith(b"\n"):
            raw = raw[:-1]
        else:
            note("no_final_newline", name)
        yield number, _text(raw, name, number)


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


def _header(line: str, name: str, number: int) -> str:
    header = line[1:].rstrip()
    if not header or header[0].isspace():
        raise DataError(f"{name}:{number}: header without an id; expected the id right after '>'")
    return header


def _record(header: str, pieces: list[str], start: int, name: str, note: Note) -> FastaRecord:
    joined = "".join(pieces)
    sequence = joined.replace(" ", "").replace("\t", "")
    identifier = header.split(maxsplit=1)[0]
    if len(sequence) != len(joined):
        note("inner_blanks", identifier)
    where = f"{name}:{start}: {identifier}"
    if not sequence:
        raise DataError(f"{where} has no sequence; expected at least one line of residues after its header")
    if len(sequence) > MAX_RESIDUES:
        raise _too_long(where, len(sequence))
    return FastaRecord(header, sequence, start)


def _too_long(where: str, length: int) -> DataError:
    return DataError(f"{where} has {length:,} letters or more; expected at most {MAX_RESIDUES:,} residues")


def _text_before(line: str, name: str, number: int) -> str:
    where = f"{name}:{number}: text before the first '>'"
    if line.lstrip().startswith("<"):
        return f"{where}; this looks like HTML, a web page instead of the file; download it again"
    return f"{where}: {line.strip()[:40]!r}; expected FASTA, whose records begin with '>'"
