"""A source (file, folder, http(s)://, s3://; each file plain or gzip) -> plain local files and their hash."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from prottune.addresses import local_path, s3_uri
from prottune.artifacts import file_sha256
from prottune.errors import ConfigError, DataError
from prottune.ingestion.findings import Findings
from prottune.storage import fetch_file, list_files

DEEPLOC_ORIGINAL_BLOB = "865f7a30d7899dcc5c3e3e84f9bb967bea25ac1e"
"""Git blob hash of DeepLoc 1.0's `deeploc_data.fasta` as its authors published it.
Source: the same blob in HannesStark/protein-localization and sacdallago/bio_embeddings."""

_FASTA_SUFFIXES = (".fasta", ".fa", ".faa", ".fas")
_TABLE_SUFFIXES = (".csv", ".tsv", ".parquet")
_GZIP_MAGIC = b"\x1f\x8b"
_FOREIGN_MAGIC = {
    b"PK\x03\x04": "a zip archive or Excel file",
    b"BZh": "a bzip2 file",
    b"\xfd7zXZ": "an xz file",
    b"\x28\xb5\x2f\xfd": "a zstd file",
    b"\xff\xfe": "UTF-16 text",
    b"\xfe\xff": "UTF-16 text",
}
_PIECE_BYTES = 1 << 20


@dataclass(frozen=True)
class SourceFile:
    """One unpacked file: `path` where it lies, `name` as messages call it."""

    path: Path
    name: str
    kind: str
    """fasta, csv, tsv or parquet."""


@dataclass(frozen=True)
class Source:
    """All files of a source, and the identity of its bytes as they were given."""

    files: list[SourceFile]
    sha256: str
    """Of the file; of a folder: over the sorted lines `name sha256` of its files."""
    git_blob: str
    """As `git hash-object` gives it; empty for a folder."""
    is_deeploc_original: bool
    """True when the unpacked file is DeepLoc 1.0's, byte for byte."""


def take_source(uri: str, scratch: Path, max_bytes: int, expected: str, findings: Findings) -> Source:
    """Bring a source here, check its hash, unpack it. `max_bytes` caps the unpacked size of all its files.

    Raises: ConfigError for a place that is not there or has nothing recognised; DataError for a wrong
        hash, a damaged or foreign file, or one that unpacks to more; StorageError for a place that fails.
    """
    is_folder = _is_folder(uri)
    fetch = _fetch_folder if is_folder else _fetch_one
    given = fetch(uri, scratch / "given", max_bytes, findings)
    hashes = [(name, file_sha256(path)) for name, path in given]
    if not is_folder:
        sha256, git_blob = hashes[0][1], git_blob_sha1(given[0][1])
    else:
        lines = "".join(f"{name} {digest}\n" for name, digest in hashes)
        sha256, git_blob = hashlib.sha256(lines.encode()).hexdigest(), ""
    _check_hash(uri, expected.lower(), sha256, git_blob)
    files = _unpack_all(given, scratch / "unpacked", max_bytes)
    is_packed = not is_folder and files[0].path != given[0][1]
    plain_blob = git_blob_sha1(files[0].path) if is_packed else git_blob
    return Source(files, sha256, git_blob, plain_blob == DEEPLOC_ORIGINAL_BLOB)


def git_blob_sha1(path: Path) -> str:
    """Hash of a file as git names it: what `git hash-object --no-filters` prints."""
    digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as stream:
        while piece := stream.read(_PIECE_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def _is_folder(uri: str) -> bool:
    """True for a local folder, and for an s3:// prefix with files below it; a web address is one file."""
    path = local_path(uri)
    if path is not None:
        return path.is_dir()
    return not uri.startswith(("http://", "https://")) and bool(list_files(uri))


def _fetch_one(uri: str, scratch: Path, max_bytes: int, _: Findings) -> list[tuple[str, Path]]:
    path = local_path(uri)
    if path is not None and not path.exists():
        raise ConfigError(f"{uri}: no such file or folder")
    name = path.name if path is not None else urlsplit(s3_uri(uri)).path.rpartition("/")[2]
    return [(name or "source", fetch_file(uri, scratch / "file", max_bytes))]


def _fetch_folder(uri: str, scratch: Path, max_bytes: int, findings: Findings) -> list[tuple[str, Path]]:
    names = [name for name in list_files(uri) if "/" not in name]
    recognised = [name for name in names if _stem(name).endswith(_FASTA_SUFFIXES + _TABLE_SUFFIXES)]
    if not recognised:
        known = ", ".join(_FASTA_SUFFIXES + _TABLE_SUFFIXES)
        raise ConfigError(
            f"{uri}: no recognised file; expected names that end in {known}, each optionally .gz"
        )
    for name in sorted(set(names) - set(recognised)):
        findings.add("ignored_files", name)
    given, left = [], max_bytes
    for number, name in enumerate(recognised):
        try:
            path = fetch_file(f"{uri.rstrip('/')}/{name}", scratch / str(number), left)
        except DataError as error:
            raise _too_large(name, max_bytes) from error
        left -= path.stat().st_size
        given.append((name, path))
    return given


def _stem(name: str) -> str:
    return name.lower().removesuffix(".gz")


def _check_hash(uri: str, expected: str, sha256: str, git_blob: str) -> None:
    if expected and expected not in (sha256, git_blob):
        raise DataError(
            f"{uri}: SHA-256 {sha256}, git blob {git_blob or 'none (a folder)'}; expected {expected}; "
            "likely causes: a cut download, changed line ends, another version"
        )


def _unpack_all(given: Iterable[tuple[str, Path]], folder: Path, max_bytes: int) -> list[SourceFile]:
    folder.mkdir(parents=True)
    files, left = [], max_bytes
    for number, (name, path) in enumerate(given):
        plain, head = path, _head(path)
        if head.startswith(_GZIP_MAGIC):
            plain = folder / str(number)
            _unpack(path, plain, name, left, max_bytes)
            head = _head(plain)
        left -= plain.stat().st_size
        if left < 0:
            raise _too_large(name, max_bytes)
        files.append(SourceFile(plain, name, _kind(name, head)))
    return files


def _head(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(512)


def _unpack(packed: Path, target: Path, name: str, left: int, max_bytes: int) -> None:
    num_bytes = 0
    try:
        with gzip.open(packed) as stream, target.open("wb") as out:
            while piece := stream.read(_PIECE_BYTES):
                num_bytes += len(piece)
                if num_bytes > left:
                    raise _too_large(name, max_bytes)
                out.write(piece)
    except EOFError as error:
        raise DataError(f"{name}: the gzip file ends early, after {num_bytes:,} unpacked bytes") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{name}: damaged gzip file ({error})") from error


def _too_large(name: str, max_bytes: int) -> DataError:
    return DataError(
        f"{name}: the source unpacks to more than {max_bytes:,} bytes; raise max_unpacked_megabytes if that "
        "is meant"
    )


def _kind(name: str, head: bytes) -> str:
    """What a file holds: by its content where that is certain, else by its suffix."""
    for magic, kind in _FOREIGN_MAGIC.items():
        if head.startswith(magic):
            raise DataError(f"{name}: {kind}; expected FASTA, CSV, TSV or Parquet, plain or gzip, in UTF-8")
    if head.startswith(_GZIP_MAGIC):
        raise DataError(f"{name}: gzip inside gzip; expected at most one layer")
    if head.startswith(b"PAR1"):
        return "parquet"
    for suffix in _TABLE_SUFFIXES:
        if _stem(name).endswith(suffix):
            return suffix.removeprefix(".")
    first_line = head.partition(b"\n")[0].lower()
    if not _stem(name).endswith(_FASTA_SUFFIXES) and b"accession" in first_line and b">" not in first_line:
        return "tsv" if b"\t" in first_line else "csv"
    return "fasta"
