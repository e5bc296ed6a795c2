"""Results that take long and follow from their inputs alone, kept on this machine; they may be deleted.

A result is found by the SHA-256 of all that decides it, so it is never stale. Its file begins with the
SHA-256 of what follows: a damaged one is computed anew.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet

CACHE_VARIABLE = "PROTTUNE_CACHE"
"""Environment variable that names the folder."""

_log = logging.getLogger(__name__)


def cache_folder() -> Path:
    """Where results are kept: `PROTTUNE_CACHE`, else `prottune` in the user's cache.

    Source: XDG Base Directory Specification 0.8, `XDG_CACHE_HOME`; a relative path in it counts as unset.
    """
    if named := os.environ.get(CACHE_VARIABLE):
        return Path(named)
    shared = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (shared if shared.is_absolute() else Path("~/.cache").expanduser()) / "prottune"


def remember(name: str, decided_by: Mapping[str, object], compute: Callable[[], pa.Table]) -> pa.Table:
    """The kept result with this name and these inputs; computed, and kept, if there is no sound one.

    `decided_by` holds all that the result follows from, the version of the code too, as plain JSON. A cache
    that cannot be read or written is told of in the log and costs only time.
    """
    digest = hashlib.sha256(json.dumps(decided_by, sort_keys=True).encode()).hexdigest()
    try:
        path = cache_folder() / f"{name}-{digest}"
    except RuntimeError as error:  # no home folder
        _log.warning("%s is not kept: %s; name a folder with %s", name, error, CACHE_VARIABLE)
        return compute()
    if (kept := _read(path)) is not None:
        _log.info("%s: kept from before in %s", name, path)
        return kept
    table = compute()
    _keep(table, path)
    return table


def _read(path: Path) -> pa.Table | None:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        _log.warning("%s cannot be read (%s); computed anew", path, error)
        return None
    sha256, body = content[:64], content[64:]
    if hashlib.sha256(body).hexdigest().encode() != sha256:
        _log.warning("%s is damaged; computed anew", path)
        return None
    return pa.parquet.read_table(pa.BufferReader(body))


def _keep(table: pa.Table, path: Path) -> None:
    """Write a result beside its place and move it there: two at once do no harm."""
    sink = pa.BufferOutputStream()
    pa.parquet.write_table(table, sink, compression="zstd")
    body = sink.getvalue().to_pybytes()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, scratch = tempfile.mkstemp(prefix=f"{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(hashlib.sha256(body).hexdigest().encode() + body)
            os.replace(scratch, path)
        except BaseException:
            Path(scratch).unlink(missing_ok=True)
            raise
    except OSError as error:
        _log.warning("%s cannot be kept (%s); the next run computes it again", path, error)
