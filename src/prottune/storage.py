"""Files and folders behind one small interface: local paths, file://, s3:// (`s3/`) and http(s)://."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from prottune.addresses import below, bucket_and_key, bucket_and_prefix, local_path
from prottune.artifacts import MANIFEST_FILE, Manifest, file_sha256, manifest_of, read_manifest
from prottune.errors import ArtifactError, ConfigError, DataError, StorageError, StoreAwayError
from prottune.s3.access import CONNECT_SECONDS, READ_SECONDS
from prottune.s3.bucket import PIECE_BYTES, Bucket

NUM_ATTEMPTS = 3
"""Of a file from the web, which is fetched from its beginning each time."""
MAX_DOWNLOAD_SECONDS = 3600
"""One file that takes longer is given up, so a server that drips bytes cannot hold a run."""
MAX_MANIFEST_BYTES = 16 << 20
MAX_FILE_BYTES = 64 << 30

T = TypeVar("T")


def fetch_file(uri: str, target: Path, max_bytes: int) -> Path:
    """Bring one file here: a local one is returned where it lies, others are written to `target`.

    Raises: ConfigError for a missing local file or an unknown scheme; DataError for a file above
        `max_bytes`; StorageError when the place refuses or vanishes.
    """
    if (path := local_path(uri)) is not None:
        if not path.is_file():
            raise ConfigError(f"{uri}: {_why_no_file(path)}")
        if path.stat().st_size > max_bytes:
            raise _too_large(uri, max_bytes)
        return path
    if uri.startswith(("http://", "https://")):
        _retried(lambda: _write(_http_pieces(uri), target, uri, max_bytes))
        return target
    bucket, key = bucket_and_key(uri)
    _write(Bucket(bucket).pieces(key), target, uri, max_bytes)
    return target


def _why_no_file(path: Path) -> str:
    if path.is_dir():
        return "a folder; expected a file"
    if path.exists():
        return "not a regular file; pipes cannot be read twice, so write it to a file first"
    return "no such file"


def fetch_folder(uri: str, target: Path) -> Path:
    """Bring a folder here: a local one is returned where it lies, an s3:// prefix is written to `target`.

    A prefix that holds a manifest is read by it: exactly its files, each checked by size and hash.

    Raises: ConfigError for a missing local folder or a scheme without folders; ArtifactError if a file is
        missing or damaged; StorageError when the store refuses, vanishes, or holds nothing there.
    """
    if (path := local_path(uri)) is not None:
        if not path.is_dir():
            raise ConfigError(f"{uri}: {'not a folder' if path.exists() else 'no such folder'}")
        return path
    names = list_files(uri)
    if not names:
        raise StorageError(f"{uri}: nothing is there; expected a folder's files under this prefix")
    scratch = target.with_name(f"{target.name}.fetching")
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        if MANIFEST_FILE in names:
            fetch_file(below(uri, MANIFEST_FILE), scratch / MANIFEST_FILE, MAX_MANIFEST_BYTES)
            _fetch_listed(uri, names, scratch)
        else:
            for name in names:
                fetch_file(below(uri, name), scratch / _safe(name, uri), MAX_FILE_BYTES)
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch.rename(target)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    return target


def fetch_manifest(uri: str) -> Manifest:
    """The manifest of a finished folder, local or under an s3:// prefix; the files that it names stay there.

    Raises: ConfigError for a scheme that cannot be read; ArtifactError if there is no manifest in a local
        folder, or it is unreadable; StorageError when the store refuses, vanishes, or holds none there.
    """
    if (path := local_path(uri)) is not None:
        return manifest_of(path)
    source = below(uri, MANIFEST_FILE)
    with tempfile.TemporaryDirectory(prefix="prottune-manifest-") as scratch:
        path = fetch_file(source, Path(scratch) / MANIFEST_FILE, MAX_MANIFEST_BYTES)
        return Manifest.parse(path.read_bytes(), source)


def fetch_from_folder(uri: str, name: str, target: Path) -> Path:
    """Bring one file of a finished folder here, checked by the folder's manifest; `target` is a folder.

    Raises: ArtifactError if the folder is not finished, its manifest does not list the file, or that is
        damaged; ConfigError if a local file is gone; StorageError when the store refuses or vanishes.
    """
    listed = fetch_manifest(uri)
    if name not in listed.files:
        raise ArtifactError(f"{uri}: no {name} in its manifest")
    path = fetch_file(below(uri, name), target / name, MAX_FILE_BYTES)
    if (found := file_sha256(path)) != listed.files[name]["sha256"]:
        raise ArtifactError(f"{below(uri, name)}: damaged, SHA-256 {found}, its manifest says another")
    return path


def upload_folder(folder: Path, uri: str) -> None:
    """Copy a finished folder to a local path or an s3:// prefix; its manifest goes last.

    Raises: ArtifactError if the folder is not whole; ConfigError for a scheme that cannot be written or a
        local place that exists; StorageError when the store refuses or vanishes.
    """
    read_manifest(folder)
    if (path := local_path(uri)) is not None:
        _copy_folder(folder, path)
        return
    name, prefix = bucket_and_prefix(uri)
    bucket = Bucket(name)
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    for path in sorted(paths, key=lambda path: path.name == MANIFEST_FILE and path.parent == folder):
        bucket.put(path, prefix + path.relative_to(folder).as_posix())


def upload_file(path: Path, uri: str) -> None:
    """Copy a file to a local path or an s3:// key, over what is there; it appears whole or not at all.

    Raises: ConfigError for a scheme that cannot be written; StorageError when the place refuses or vanishes.
    """
    if (target := local_path(uri)) is None:
        bucket, key = bucket_and_key(uri)
        Bucket(bucket).put(path, key)
        return
    scratch = target.with_name(f".{target.name}.partial")
    try:
        shutil.copyfile(path, scratch)
        os.replace(scratch, target)
    except OSError as error:
        raise StorageError(f"{uri}: cannot be written ({error.strerror})") from error


def remove_folder(uri: str) -> None:
    """Remove a folder or all that lies under an s3:// prefix; its manifest goes first.

    So nobody ever meets a manifest whose files are gone. Parts of uploads that did not end go too. What is
    not there is fine.

    Raises: ConfigError for a scheme without folders; StorageError when the place refuses or vanishes.
    """
    if (path := local_path(uri)) is not None:
        try:
            (path / MANIFEST_FILE).unlink(missing_ok=True)
            shutil.rmtree(path)
        except FileNotFoundError:
            return
        except OSError as error:
            raise StorageError(f"{uri}: cannot be removed ({error.strerror})") from error
        return
    name, prefix = bucket_and_prefix(uri)
    bucket = Bucket(name)
    bucket.remove(sorted(bucket.keys(prefix), key=lambda key: key != prefix + MANIFEST_FILE))
    bucket.forget_unfinished(prefix)


def list_files(uri: str) -> list[str]:
    """Names of all files below a local folder or an s3:// prefix, relative to it, sorted.

    Raises: ConfigError for a missing local folder or a scheme without folders; StorageError when the
        store refuses or vanishes.
    """
    if (path := local_path(uri)) is not None:
        if not path.is_dir():
            raise ConfigError(f"{uri}: no such folder")
        return sorted(item.relative_to(path).as_posix() for item in path.rglob("*") if item.is_file())
    bucket, prefix = bucket_and_prefix(uri)
    names = [key.removeprefix(prefix) for key in Bucket(bucket).keys(prefix)]
    return sorted(name for name in names if name and not name.endswith("/"))


def list_unfinished(uri: str) -> list[str]:
    """Names below an s3:// prefix whose upload began and did not end; none of a local folder.

    Raises: ConfigError for a scheme without folders; StorageError when the store refuses or vanishes.
    """
    if local_path(uri) is not None:
        return []
    bucket, prefix = bucket_and_prefix(uri)
    return [key.removeprefix(prefix) for key in Bucket(bucket).unfinished(prefix)]


def _fetch_listed(uri: str, names: Collection[str], folder: Path) -> None:
    manifest = Manifest.parse((folder / MANIFEST_FILE).read_bytes(), below(uri, MANIFEST_FILE))
    for name, entry in manifest.files.items():
        target = folder / _safe(name, uri)
        if name not in names:
            raise ArtifactError(f"{below(uri, name)}: missing, though the manifest lists it")
        try:
            fetch_file(below(uri, name), target, int(entry["bytes"]))
        except DataError as error:
            raise ArtifactError(f"{below(uri, name)}: larger than its manifest says; damaged") from error
    read_manifest(folder)


def _copy_folder(folder: Path, target: Path) -> None:
    if target.exists():
        raise ConfigError(
            f"{target} exists already and a finished folder is never changed; name another place"
        )
    scratch = target.with_name(f"{target.name}.partial")
    shutil.rmtree(scratch, ignore_errors=True)
    shutil.copytree(folder, scratch)
    scratch.rename(target)


def _safe(name: str, uri: str) -> str:
    """A name from a store or manifest, refused when it would leave the folder it is written to."""
    if name.startswith("/") or "\\" in name or any(part in ("", ".", "..") for part in name.split("/")):
        raise ArtifactError(f"{uri}: the file name {name!r} leaves its folder; refused")
    return name


def _http_pieces(uri: str) -> Iterator[bytes]:
    """The bytes as stored: no content encoding is asked for and none is undone."""
    import httpx

    timeout = httpx.Timeout(READ_SECONDS, connect=CONNECT_SECONDS)
    try:
        with httpx.stream(
            "GET", uri, timeout=timeout, follow_redirects=True, headers={"Accept-Encoding": "identity"}
        ) as answer:
            if (status := answer.status_code) != httpx.codes.OK:
                kind = StorageError if 400 <= status < 500 and status != 429 else StoreAwayError
                raise kind(f"{uri}: the server answered {status}; expected 200")
            yield from answer.iter_raw(PIECE_BYTES)
    except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
        raise ConfigError(f"{uri}: no address of a file ({error})") from error
    except httpx.HTTPError as error:
        raise StoreAwayError(f"{uri}: {type(error).__name__} ({str(error)[:200]})") from error


def _write(pieces: Iterable[bytes], target: Path, uri: str, max_bytes: int) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + MAX_DOWNLOAD_SECONDS
    scratch = target.with_name(f"{target.name}.part")
    num_bytes = 0
    with scratch.open("wb") as stream:
        for piece in pieces:
            num_bytes += len(piece)
            if num_bytes > max_bytes:
                raise _too_large(uri, max_bytes)
            if time.monotonic() > deadline:
                raise StorageError(f"{uri}: not here after {MAX_DOWNLOAD_SECONDS} seconds; given up")
            stream.write(piece)
    scratch.rename(target)


def _too_large(uri: str, max_bytes: int) -> DataError:
    return DataError(f"{uri}: more than {max_bytes:,} bytes; raise max_unpacked_megabytes if that is meant")


def _retried(attempt: Callable[[], T]) -> T:
    for number in range(1, NUM_ATTEMPTS):
        try:
            return attempt()
        except StoreAwayError:
            time.sleep(0.2 * 2**number)
    return attempt()
