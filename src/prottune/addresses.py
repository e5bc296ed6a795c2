"""How places are named: a path, file://, s3:// (KFP also says minio://), http(s)://."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from prottune.errors import ConfigError


def s3_uri(uri: str) -> str:
    """Spell KFP's `minio://bucket/key` as `s3://bucket/key`; every other URI stays as it is."""
    return f"s3://{uri.removeprefix('minio://')}" if uri.startswith("minio://") else uri


def file_uri(path: Path) -> str:
    """The file:// URI of a local path."""
    return path.resolve().as_uri()


def local_path(uri: str) -> Path | None:
    """The path that a plain path or a file:// URI names; None for other schemes.

    Raises: ConfigError for no word at all.
    """
    if not uri:
        raise ConfigError("got an empty path or address; is a variable of the shell unset?")
    if uri.startswith("file://"):
        return Path(unquote(urlsplit(uri).path))
    return None if "://" in uri else Path(uri)


def is_address(path: Path) -> bool:
    """Whether somebody took `s3://bucket/x` or the like for a path, which makes `s3:/bucket/x` of it."""
    return re.match(r"[A-Za-z][\w+.-]+:/", str(path)) is not None


def below(uri: str, name: str) -> str:
    return f"{uri.rstrip('/')}/{name}"


def bucket_and_key(uri: str) -> tuple[str, str]:
    spelled = s3_uri(uri)
    if not spelled.startswith("s3://"):
        raise ConfigError(
            f"{uri}: unknown kind of address; expected a path, file://, s3:// or (files) http(s)://"
        )
    bucket, _, key = spelled.removeprefix("s3://").partition("/")
    if not bucket:
        raise ConfigError(f"{uri}: no bucket; expected s3://bucket/key")
    return bucket, key


def bucket_and_prefix(uri: str) -> tuple[str, str]:
    """The bucket, and what the keys of all objects in the folder start with."""
    bucket, key = bucket_and_key(uri)
    return bucket, f"{key.rstrip('/')}/" if key.strip("/") else ""
