"""Answered windows, kept beside the table that they become: who is killed goes on after the last whole one.

    locations.csv.partial/
        begun.json              what they are answers to: model, source, settings, version of prottune
        000000-5d41...parquet   one window each, whole or absent, its hash in its name
        table.csv               while the windows are joined

A window is used again only if model, source and settings are those that it was answered with.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet

from prottune.errors import ArtifactError, ConfigError
from prottune.prediction.tables import said_of

_BEGUN_FILE = "begun.json"
_SUFFIX = ".partial"
_NEW = ".new"
_SEQUENCES = b"sequences"
_WINDOW_NAME = re.compile(r"(\d{6,})-[0-9a-f]{16}\.parquet")


class KeptWindows:
    """The windows of one table that are answered already."""

    def __init__(self, folder: Path, output: Path, *, for_later: bool) -> None:
        self.folder, self.for_later = folder, for_later
        self.is_joined = False
        """Whether the table is there, made of these."""
        self.scratch = folder / f"table{output.suffix}"
        """Where the whole table is written before it takes its name."""
        self._kept = {
            int(name[1]): path for path in folder.iterdir() if (name := _WINDOW_NAME.fullmatch(path.name))
        }

    def __len__(self) -> int:
        return len(self._kept)

    def __contains__(self, number: object) -> bool:
        return number in self._kept

    @property
    def num_proteins(self) -> int:
        """How many proteins are answered."""
        return sum(pa.parquet.read_metadata(path).num_rows for path in self._kept.values())

    def keep(self, number: int, rows: pa.Table, sequences: Sequence[str]) -> None:
        """Write the rows of one window; they are there whole or not at all, also after a power cut.

        With them goes a hash of the sequences that they answer.

        Raises: StorageError if the disk refuses.
        """
        sink = pa.BufferOutputStream()
        rows = rows.replace_schema_metadata({_SEQUENCES: _hash_of(sequences)})
        pa.parquet.write_table(rows, sink, compression="zstd")
        data = sink.getvalue().to_pybytes()
        path = self.folder / f"{number:06d}-{_short_hash(data)}.parquet"
        with said_of(path):
            _write_whole(path, data)
        self._kept[number] = path

    def check(self, number: int, accessions: Sequence[str], sequences: Sequence[str]) -> None:
        """A window that is kept must answer these very proteins: the file may have changed while it was read,
        and have been put back.

        Raises: ArtifactError.
        """
        rows = self.read(number)
        asked = (rows.schema.metadata or {}).get(_SEQUENCES)
        if asked != _hash_of(sequences) or rows["accession"].to_pylist() != list(accessions):
            raise ArtifactError(
                f"{self.folder}: holds other proteins than the source; begin anew with --restart"
            )

    def read(self, number: int) -> pa.Table:
        """The rows of one window that is kept.

        Raises: ArtifactError if they are damaged.
        """
        path = self._kept[number]
        data = path.read_bytes()
        if f"-{_short_hash(data)}." not in path.name:
            raise ArtifactError(f"{path}: damaged, its bytes do not have the hash it names; see --restart")
        return pa.parquet.read_table(pa.BufferReader(data))


@contextmanager
def kept_windows(
    output: Path, answers_to: Mapping[str, str], *, restart: bool, for_later: bool = True
) -> Iterator[KeptWindows]:
    """Open the windows of a table, for this program alone; they are removed when the table is there.

    `answers_to` names all that decides the answers. With `restart` earlier windows are thrown away; without
    `for_later` these are, too, however the block ends.

    Raises: ConfigError if the place cannot be written, if another program is at it, or if windows lie there
        that answer something else.
    """
    folder = output.with_name(f"{output.name}{_SUFFIX}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise ConfigError(
            f"{folder}: cannot be made ({error.strerror}); name an output whose folder can be written"
        ) from error
    try:
        _lock(handle, folder)
        _begin(folder, answers_to, restart=restart)
        kept = KeptWindows(folder, output, for_later=for_later)
        try:
            yield kept
        finally:
            kept.scratch.unlink(missing_ok=True)
            if kept.is_joined or not len(kept) or not for_later:
                _empty(folder)
                folder.rmdir()
    finally:
        os.close(handle)


def _lock(handle: int, folder: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ConfigError(
            f"{folder}: another prottune predict is writing this table; wait for it, or name another output"
        ) from None


def _begin(folder: Path, answers_to: Mapping[str, str], *, restart: bool) -> None:
    """Note what the windows answer, or check that the note which is there says the same."""
    path = folder / _BEGUN_FILE
    for leftover in folder.glob(f"*{_NEW}"):
        leftover.unlink()
    if not path.exists():
        if any(folder.iterdir()):
            raise ConfigError(f"{folder}: in the way, and not made by prottune predict; move it elsewhere")
    elif restart:
        _empty(folder)
    else:
        _compare(path, answers_to)
        return
    with said_of(path):
        _write_whole(path, (json.dumps(answers_to, indent=1) + "\n").encode())


def _compare(path: Path, answers_to: Mapping[str, str]) -> None:
    try:
        begun = dict(json.loads(path.read_bytes()))
    except (ValueError, TypeError):
        raise ArtifactError(f"{path}: damaged; begin anew with --restart") from None
    names = begun.keys() | answers_to.keys()
    if other := sorted(name for name in names if begun.get(name) != answers_to.get(name)):
        raise ConfigError(
            f"{path.parent}: holds answers of an unfinished command with another "
            f"{' and another '.join(other)}; repeat that command, name another output, or throw its answers "
            "away with --restart"
        )


def _empty(folder: Path) -> None:
    """Remove all windows, and last the note that says whose they are: who is killed here can begin again."""
    for path in sorted(folder.iterdir(), key=lambda path: path.name == _BEGUN_FILE):
        path.unlink()


def _write_whole(path: Path, data: bytes) -> None:
    scratch = path.with_name(f"{path.name}{_NEW}")
    try:
        with scratch.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(scratch, path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise


def _hash_of(sequences: Sequence[str]) -> bytes:
    return hashlib.sha256("\n".join(sequences).encode()).hexdigest().encode()


def _short_hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
