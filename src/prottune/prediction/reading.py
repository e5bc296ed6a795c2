"""Proteins out of a FASTA file, plain or gzip: looked through once before the model is asked, then read.

So a file with a mistake is refused in seconds and not after hours, and it is known how much there is to do.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import logging
import tempfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from prottune.addresses import s3_uri
from prottune.alphabet import clean
from prottune.errors import DataError
from prottune.fasta import STOP, accession_of, read_fasta
from prottune.prediction.settings import ReadConfig
from prottune.storage import fetch_file

MAX_WINDOW_RESIDUES = 1 << 22
"""A window closes with the protein that reaches this many, so that long proteins do not fill the memory."""

_SHOWN = 5

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Question:
    """One protein that is to be answered."""

    accession: str
    sequence: str
    """As the model reads it: no white space, upper case, no final stop."""


@dataclass(frozen=True)
class Survey:
    """What a look through the whole file found."""

    num_proteins: int
    """That can be answered."""
    num_residues: int
    num_skipped: int
    """With a character that is no residue, under on_bad=skip."""
    num_stops_removed: int
    sha256: str
    """Of the file's bytes as they lie there, packed or not."""


class Source:
    """A file of proteins that lies on this machine and is read as often as need be."""

    def __init__(self, path: Path, name: str, on_bad: str) -> None:
        self._path, self._name, self._on_bad = path, name, on_bad

    def survey(self) -> Survey:
        """Look through the whole file.

        Raises: DataError with `name:line` for what is outside the grammar and, under on_bad=refuse, for the
            first character that is no residue; DataError for a damaged gzip file, and if no protein is left.
        """
        counts: Counter[str] = Counter()
        num_residues = 0
        with self._opened() as (stream, sha256):
            for question in self._questions(stream, counts, _log.warning):
                counts["proteins"] += 1
                num_residues += len(question.sequence)
            digest = sha256()
        if not counts["proteins"]:
            raise DataError(f"{self._name}: none of its {counts['skipped']:,} proteins can be answered")
        return Survey(
            num_proteins=counts["proteins"],
            num_residues=num_residues,
            num_skipped=counts["skipped"],
            num_stops_removed=counts["stops_removed"],
            sha256=digest,
        )

    def questions(self, survey: Survey) -> Iterator[Question]:
        """The proteins that can be answered, in the order of the file.

        Raises: DataError behind the last one if the file is no longer the one that was surveyed.
        """
        with self._opened() as (stream, sha256):
            yield from self._questions(stream, Counter(), _unsaid)
            if sha256() != survey.sha256:
                raise DataError(
                    f"{self._name}: changed while it was read; repeat the command when it is at rest"
                )

    def _questions(
        self, stream: BinaryIO, counts: Counter[str], warn: Callable[[str, str], object]
    ) -> Iterator[Question]:
        for record in read_fasta(stream, self._name):
            try:
                sequence = clean(record.sequence.removesuffix(STOP))
            except DataError as error:
                words = f"{self._name}:{record.line}: {accession_of(record.header)}: {error}"
                if self._on_bad == "refuse":
                    raise DataError(
                        f"{words}; mend it, or leave such proteins out with on_bad=skip"
                    ) from None
                counts["skipped"] += 1
                if counts["skipped"] <= _SHOWN:
                    warn("left out: %s", words)
                continue
            counts["stops_removed"] += record.sequence.endswith(STOP)
            yield Question(accession_of(record.header), sequence)

    @contextmanager
    def _opened(self) -> Iterator[tuple[BinaryIO, Callable[[], str]]]:
        """The file's bytes, unpacked while they are read, and the hash of what was read."""
        with self._path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            hashed = _Hashed(file)
            try:
                stream = gzip.GzipFile(fileobj=hashed) if packed else hashed
                yield cast(BinaryIO, stream), hashed.sha256
            except (gzip.BadGzipFile, zlib.error, EOFError) as error:
                raise DataError(f"{self._name}: damaged gzip file ({error})") from error


class _Hashed(io.RawIOBase):
    """Passes a file's bytes on and hashes them; the last ones are read when the hash is asked for."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._hash = file, hashlib.sha256()

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1) -> bytes:
        data = self._file.read(-1 if size is None else size)
        self._hash.update(data)
        return data

    def sha256(self) -> str:
        while self.read(1 << 16):
            pass
        return self._hash.hexdigest()


@contextmanager
def opened(source: str, config: ReadConfig) -> Iterator[Source]:
    """Bring a file of proteins here, if it is not, for as long as the block lasts.

    Raises: ConfigError for a missing file; DataError if it is too large; StorageError when its place refuses.
    """
    with tempfile.TemporaryDirectory(prefix="prottune-predict-") as scratch:
        path = fetch_file(s3_uri(source), Path(scratch) / "source", config.max_megabytes << 20)
        yield Source(path, source, config.on_bad)


def windows(questions: Iterator[Question], num_proteins: int) -> Iterator[list[Question]]:
    """Cut a stream of proteins into pieces that fit into the memory."""
    window: list[Question] = []
    num_residues = 0
    for question in questions:
        window.append(question)
        num_residues += len(question.sequence)
        if len(window) == num_proteins or num_residues >= MAX_WINDOW_RESIDUES:
            yield window
            window, num_residues = [], 0
    if window:
        yield window


def _unsaid(_line: str, _words: str) -> None:
    """The survey said it."""
