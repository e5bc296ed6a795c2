"""FASTA by a written grammar: bytes come in, records with their line go out, anything else is refused.

    file   = record+                         UTF-8; a byte order mark is tolerated
    record = ">" id [ " " description ] EOL  line+
    line   = any text that does not begin with ">"; blank lines and blanks inside are dropped
    EOL    = LF or CRLF; the last one may be missing

Which letters are residues and what a description means is judged elsewhere.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from prottune.errors import DataError
from prottune.lines import MAX_LINE_BYTES, Lines, Note

MAX_RESIDUES = 100_000
"""A longer sequence is refused; the longest known human protein, titin, has about 35,000 residues."""

STOP = "*"
"""May end a sequence; it is no residue, and whoever answers about a sequence leaves it out."""

_ACCESSION = re.compile(r"(?:sp|tr)\|([^|\s]+)\|\S*|(\S+)")

_COLUMN_BLOCK_BYTES = 1 << 19
"""Read at a time for columns; what is made of a block stays in the processor's cache."""
_RECORD_BLOCK_BYTES = 1 << 13
"""Read at a time for single records."""


@dataclass(frozen=True, slots=True)
class FastaRecord:
    """One record: the header without its ">", the letters without white space, the header's line."""

    header: str
    sequence: str
    line: int


@dataclass(frozen=True, slots=True)
class FastaColumns:
    """Consecutive records, one column for each part of a `FastaRecord`."""

    headers: pa.LargeStringArray
    sequences: pa.LargeStringArray
    lines: npt.NDArray[np.int64]


def accession_of(header: str) -> str:
    """Name a protein by its FASTA header: the first word, and of `sp|P12345|NAME_HUMAN` the middle part."""
    found = _ACCESSION.match(header)
    return (found.group(1) or found.group(2)) if found else header


def _unnoted(_kind: str, _name: str) -> None:
    """For callers who do not ask what was tolerated."""


def read_fasta(stream: BinaryIO, name: str, note: Note = _unnoted) -> Iterator[FastaRecord]:
    """Read a FASTA file record by record, holding a few kilobytes of records at a time in memory.

    `name` stands for the file in messages. `note` hears of what was tolerated: `byte_order_mark`, `crlf`
    and `no_final_newline` with the file's name, `inner_blanks` with the record's first word.

    Raises: DataError with `name:line` for everything outside the grammar, for an empty file, and for a
        line or sequence above the limits of this module.
    """
    for some in read_fasta_columns(stream, name, note, _RECORD_BLOCK_BYTES):
        yield from map(FastaRecord, some.headers.to_pylist(), some.sequences.to_pylist(), some.lines.tolist())


def read_fasta_columns(
    stream: BinaryIO, name: str, note: Note = _unnoted, block_bytes: int = _COLUMN_BLOCK_BYTES
) -> Iterator[FastaColumns]:
    """Read a FASTA file many records at a time: all that `read_fasta` says holds, in a fraction of its time.

    A block on which the rules have nothing to say becomes columns as a whole; any other is read line by line.
    """
    reader = _Reader(name, note)
    for block, ends_record in _blocks(stream, block_bytes):
        yield from (ends_record and reader.read_whole(block)) or reader.read_lines(block)
    yield from reader.read_end()


def _blocks(stream: BinaryIO, block_bytes: int) -> Iterator[tuple[bytes, bool]]:
    """Cut a stream where a record ends (then True); within a long record where a line ends (then False)."""
    held = b""
    while piece := stream.read(block_bytes):
        held += piece
        if end := held.rfind(b"\n>") + 1:
            yield held[:end], True
        elif (end := held.rfind(b"\n") + 1) or len(held) > MAX_LINE_BYTES:
            end = end or len(held)
            yield held[:end], False
        held = held[end:]
    yield held, True


class _Reader:
    """Reads the blocks of one file in their order; a record may begin in one and end in a later one."""

    def __init__(self, name: str, note: Note) -> None:
        self._lines, self._name, self._note = Lines(name, note), name, note
        self._is_empty = True
        self._header, self._start, self._length = "", 0, 0
        self._pieces: list[str] = []

    def read_whole(self, block: bytes) -> list[FastaColumns]:
        """The records of a block that ends with a record's end; nothing if a rule might have a say in it."""
        if not block.startswith(b">") or len(block) > MAX_LINE_BYTES:
            return []
        text = block.replace(b"\r\n", b"\n") if b"\r" in block else block
        text = text if text.endswith(b"\n") else text + b"\n"
        columns, num_lines = _plain_columns(text, self._lines.number + 1)
        if columns is None:
            return []
        before = self._ended()
        self._is_empty = False
        self._lines.passed(block, num_lines)
        return [*_as_columns(before), columns]

    def read_lines(self, block: bytes) -> Iterator[FastaColumns]:
        """The same line by line; the last record stays open, and those before a fault come out before it."""
        records: list[FastaRecord] = []
        try:
            for raw in io.BytesIO(block):
                line = self._lines.judged(raw)
                if line.startswith(">"):
                    records += self._ended()
                    self._is_empty, self._start = False, self._lines.number
                    self._header = _header(line, self._name, self._start)
                elif self._start:
                    self._go_on(line)
                else:
                    _refuse_text_before(line, self._name, self._lines.number)
        finally:
            yield from _as_columns(records)

    def read_end(self) -> Iterator[FastaColumns]:
        """The last record, if it is still open.

        Raises: DataError if there was no record at all.
        """
        if self._is_empty:
            raise DataError(f"{self._name}: no record found; expected at least one line that begins with '>'")
        return _as_columns(self._ended())

    def _go_on(self, line: str) -> None:
        if piece := line.strip(" \t"):
            self._pieces.append(piece)
            self._length += len(piece)
            if self._length > 2 * MAX_RESIDUES:  # twice: a blank may stand between any two residues
                raise _too_long(f"{self._name}:{self._start}: {self._header.split()[0]}", self._length)

    def _ended(self) -> list[FastaRecord]:
        """The record that was open, if one was."""
        if not self._start:
            return []
        record = _record(self._header, self._pieces, self._start, self._name, self._note)
        self._start, self._length, self._pieces = 0, 0, []
        return [record]


def _plain_columns(text: bytes, first_line: int) -> tuple[FastaColumns | None, int]:
    """Cut whole records with LF line ends into columns, and count the lines; None if a rule might have a say.

    Without its line ends such a text is header, sequence, header, sequence ...: Arrow's layout of a column of
    strings, once it is known where each of them begins.
    """
    characters = np.frombuffer(text, np.uint8)
    line_ends = np.flatnonzero(characters == ord("\n"))
    line_starts = np.concatenate(([0], line_ends[:-1] + 1))
    header_lines = np.flatnonzero(characters[line_starts] == ord(">"))
    joined = text.replace(b"\n", b"")
    offsets = np.empty(2 * len(header_lines) + 1, np.int64)
    offsets[:-1:2] = line_starts[header_lines] - header_lines  # less one line end for each line before
    offsets[1::2] = line_ends[header_lines] - header_lines
    offsets[-1] = len(joined)
    if not _is_plain(np.frombuffer(joined, np.uint8), offsets):
        return None, 0
    parts = pa.LargeStringArray.from_buffers(len(offsets) - 1, pa.py_buffer(offsets), pa.py_buffer(joined))
    headers, sequences = _every_second(parts, 0), _every_second(parts, 1)
    if np.frombuffer(sequences.buffers()[2], np.uint8).min() == ord(" "):
        return None, 0
    headers = pc.ascii_rtrim_whitespace(pc.utf8_slice_codeunits(headers, len(">")))
    return FastaColumns(headers, sequences, header_lines + first_line), len(line_ends)


def _every_second(parts: pa.LargeStringArray, first: int) -> pa.LargeStringArray:
    places = np.arange(first, len(parts), 2)
    return parts.take(pa.Array.from_buffers(pa.int64(), len(places), [None, pa.py_buffer(places)]))


def _is_plain(letters: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]) -> bool:
    """True for printable ASCII whose headers begin with an id and whose sequences keep the limits."""
    ids, sequences = offsets[:-1:2] + len(">"), offsets[1::2]
    num_letters = offsets[2::2] - sequences
    return bool(
        letters.min() >= ord(" ")
        and letters.max() <= ord("~")
        and (sequences > ids).all()
        and (letters[ids] != ord(" ")).all()
        and num_letters.min() > 0
        and num_letters.max() <= MAX_RESIDUES
    )


def _as_columns(records: Sequence[FastaRecord]) -> Iterator[FastaColumns]:
    """These records as columns; nothing if there are none."""
    if records:
        lines = np.array([record.line for record in records], np.int64)
        headers = _column([record.header for record in records])
        yield FastaColumns(headers, _column([record.sequence for record in records]), lines)


def _column(texts: Sequence[str]) -> pa.LargeStringArray:
    """A column of these texts. (`pa.array` imports pandas, which takes longer than most files.)"""
    letters = [text.encode() for text in texts]
    offsets = np.cumsum([0, *map(len, letters)], dtype=np.int64)
    return pa.LargeStringArray.from_buffers(
        len(texts), pa.py_buffer(offsets), pa.py_buffer(b"".join(letters))
    )


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


def _refuse_text_before(line: str, name: str, number: int) -> None:
    where = f"{name}:{number}: text before the first '>'"
    if line.lstrip().startswith("<"):
        raise DataError(f"{where}; this looks like HTML, a web page instead of the file; download it again")
    if line.strip():
        raise DataError(f"{where}: {line.strip()[:40]!r}; expected FASTA, whose records begin with '>'")
