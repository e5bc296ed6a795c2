"""The FASTA grammar: records with their lines, tolerated oddities by name, and a ceiling on memory."""

import io
import tracemalloc
from collections.abc import Iterator

import pytest

from prottune.errors import DataError
from prottune.fasta import MAX_LINE_BYTES, FastaRecord, read_fasta, read_fasta_columns


def read(content: bytes) -> tuple[list[FastaRecord], list[tuple[str, str]]]:
    """Records, and what was tolerated."""
    notes: list[tuple[str, str]] = []
    records = list(read_fasta(io.BytesIO(content), "x.fa", lambda kind, name: notes.append((kind, name))))
    return records, notes


def read_columns(content: bytes, block_bytes: int) -> tuple[list[FastaRecord], list[tuple[str, str]]]:
    """The same, read in blocks of about so many bytes."""
    notes: list[tuple[str, str]] = []
    records: list[FastaRecord] = []
    stream = io.BytesIO(content)
    for some in read_fasta_columns(
        stream, "x.fa", lambda kind, name: notes.append((kind, name)), block_bytes
    ):
        records += map(FastaRecord, some.headers.to_pylist(), some.sequences.to_pylist(), some.lines.tolist())
    return records, notes


class Endless(io.RawIOBase):
    """A stream that repeats one piece until it has given a number of bytes, holding only the piece."""

    def __init__(self, first: bytes, piece: bytes, num_bytes: int) -> None:
        self._pieces = self._repeat(first, piece, num_bytes)
        self._rest = b""

    @staticmethod
    def _repeat(first: bytes, piece: bytes, num_bytes: int) -> Iterator[bytes]:
        yield first
        for _ in range(num_bytes // len(piece)):
            yield piece

    def readable(self) -> bool:
        return True

    def readinto(self, target: memoryview) -> int:  # type: ignore[override]
        rest = self._rest or next(self._pieces, b"")
        target[: len(rest)] = rest[: len(target)]
        self._rest = rest[len(target) :]
        return min(len(rest), len(target))


def test_records_carry_their_header_and_line_and_lose_all_white_space() -> None:
    records, notes = read(b">P1 Nucleus-S \nMK\n\n TA\t\n>P2\nM\n")
    assert records == [FastaRecord("P1 Nucleus-S", "MKTA", 1), FastaRecord("P2", "M", 5)]
    assert notes == []


def test_letters_are_not_judged_here() -> None:
    records, _ = read(b">P1\nmk-1*>\n")
    assert records == [FastaRecord("P1", "mk-1*>", 1)]


def test_what_is_tolerated_is_named_once_a_file_or_once_a_record() -> None:
    records, notes = read(b"\xef\xbb\xbf>P1\r\nM K\r\n>P2\r\nK\tT")
    assert [record.sequence for record in records] == ["MK", "KT"]
    assert notes == [
        ("byte_order_mark", "x.fa"),
        ("crlf", "x.fa"),
        ("inner_blanks", "P1"),
        ("no_final_newline", "x.fa"),
        ("inner_blanks", "P2"),
    ]


def test_records_before_a_fault_come_out_and_the_fault_names_its_line() -> None:
    reader = read_fasta(io.BytesIO(b">P1\nMK\n>P2\nM\x00K\n"), "x.fa")
    with pytest.raises(DataError, match=r"^x\.fa:4: control character '\\x00' at column 2$"):
        list(reader)


@pytest.mark.parametrize("piece", [b"M" * 60, b"M" * 59 + b"\n", b"\n" * 60], ids=["line", "lines", "blank"])
def test_an_endless_record_is_refused_in_little_memory(piece: bytes) -> None:
    num_bytes = 1_000_000_000 if piece.strip() else 60_000
    stream = io.BufferedReader(Endless(b">P1\n", piece, num_bytes))
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=r"^x\.fa:"):
            list(read_fasta(stream, "x.fa"))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 5 * MAX_LINE_BYTES


def test_many_records_are_held_one_at_a_time() -> None:
    stream = io.BufferedReader(Endless(b"\n", b">P1 Nucleus-U\n" + b"MKTAY" * 10 + b"\n", 1_300_000))
    tracemalloc.start()
    try:
        count = sum(1 for _ in read_fasta(stream, "x.fa"))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == 20_000
    assert peak < 100_000


PLAIN = b">P1 Nucleus-S\nMK\n\nTA\n>P2\nM\n>P3 a  b \nMKTAYIAKQR\nMK\n"
ODD = b">P4 \xc3\xa9\n\n M K\tT \n>P5\tx\nmk*>\n"
"""A letter beyond ASCII, blanks in and around a sequence, a tab in a header."""


@pytest.mark.parametrize("block_bytes", [1, 7, 30, 1 << 19])
@pytest.mark.parametrize(
    "content",
    [
        PLAIN,
        PLAIN.replace(b"\n", b"\r\n"),
        PLAIN.rstrip(b"\n"),
        b"\xef\xbb\xbf" + PLAIN,
        b"\n \n\xc2\xa0\n" + PLAIN,
        PLAIN + ODD + PLAIN,
        ODD + PLAIN + ODD.rstrip(b"\n"),
        PLAIN + ODD.replace(b"\n", b"\r\n") + PLAIN,
    ],
    ids=["plain", "crlf", "no final end", "mark", "blank lines first", "odd inside", "odd outside", "mixed"],
)
def test_blocks_of_any_size_give_what_single_lines_give(content: bytes, block_bytes: int) -> None:
    by_lines = read_columns(content, 1)
    assert by_lines[0] == read(content)[0]
    assert read_columns(content, block_bytes)[0] == by_lines[0]
    assert sorted(read_columns(content, block_bytes)[1]) == sorted(by_lines[1])


def test_records_of_a_plain_block_are_those_that_stand_there() -> None:
    assert read_columns(PLAIN, 1 << 19) == (
        [
            FastaRecord("P1 Nucleus-S", "MKTA", 1),
            FastaRecord("P2", "M", 5),
            FastaRecord("P3 a  b", "MKTAYIAKQRMK", 7),
        ],
        [],
    )


@pytest.mark.parametrize("block_bytes", [1, 30, 1 << 19])
@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (b">P6\nM\rK\n", "x.fa:11: a carriage return that ends no line; expected LF or CRLF line ends"),
        (b">P6\nM\x7fK\n", "x.fa:11: control character '\\x7f' at column 2"),
        (b">P6\nM\xffK\n", "x.fa:11: byte 0xff is not UTF-8; convert the file (iconv)"),
        (b"> P6\nMK\n", "x.fa:10: header without an id; expected the id right after '>'"),
        (b">\nMK\n", "x.fa:10: header without an id; expected the id right after '>'"),
        (b">P6\n", "x.fa:10: P6 has no sequence; expected at least one line of residues after its header"),
        (
            b">P6\n" + b"M" * 100_001 + b"\n",
            "x.fa:10: P6 has 100,001 letters or more; expected at most 100,000 residues",
        ),
    ],
    ids=["return", "control", "not UTF-8", "blank id", "no id", "no sequence", "too long"],
)
def test_a_fault_is_named_alike_in_blocks_of_any_size(fault: bytes, message: str, block_bytes: int) -> None:
    with pytest.raises(DataError) as refused:
        read_columns(PLAIN + fault + PLAIN, block_bytes)
    assert str(refused.value) == message
