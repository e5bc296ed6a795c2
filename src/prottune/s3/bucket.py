"""One bucket of an S3 server: objects are read, written, listed and removed, also while it comes and goes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from prottune.errors import ConfigError, StorageError, StoreAwayError
from prottune.s3.access import client
from prottune.s3.calls import Patience, refusals
from prottune.s3.parts import PART_BYTES, Parts

PIECE_BYTES = 1 << 20

T = TypeVar("T")


class Bucket:
    """One bucket of the server that the environment names.

    Raises: ConfigError for a name that no bucket has, or if the endpoint, credentials or certificates are not
        set; its methods raise StorageError when the server refuses, StoreAwayError when it stays away.
    """

    def __init__(self, name: str) -> None:
        from minio.helpers import check_bucket_name

        try:
            check_bucket_name(name)
        except ValueError as error:
            raise ConfigError(f"s3://{name}: {error}; expected s3://bucket/key") from error
        self._name = name
        self._client, self._identity = client()

    def pieces(self, key: str) -> Iterator[bytes]:
        """The bytes of an object, piece by piece; a broken connection goes on where it broke."""
        patience = Patience.of_now()
        taken = _Taken()
        while not taken.is_all:
            try:
                for piece in self._pieces_after(key, taken):
                    patience.answered()
                    yield piece
            except StoreAwayError as error:
                if taken.num_bytes == taken.size:
                    return
                patience.wait(error)

    def put(self, path: Path, key: str) -> None:
        """Write a file as an object, in parts if it is large; it appears whole or not at all."""
        if path.stat().st_size <= PART_BYTES:
            self._call(key, lambda: self._client.fput_object(self._name, key, str(path)))
        else:
            self._parts(key).put(path)

    def keys(self, prefix: str) -> list[str]:
        """Keys of all objects whose key starts with a prefix."""
        found = self._call(
            prefix, lambda: list(self._client.list_objects(self._name, prefix=prefix, recursive=True))
        )
        return [str(item.object_name) for item in found]

    def remove(self, keys: Iterable[str]) -> None:
        """Remove objects, in this order; one that is not there is fine."""
        for key in keys:
            self._call(key, partial(self._client.remove_object, self._name, key))

    def unfinished(self, prefix: str) -> list[str]:
        """Keys below a prefix of which parts wait for the rest; empty of a store that does not tell."""
        return sorted({upload.object_name for upload in self._parts(prefix).uploads()})

    def forget_unfinished(self, prefix: str) -> None:
        """Remove all parts below a prefix that wait for the rest."""
        self._parts(prefix).forget()

    def _pieces_after(self, key: str, taken: _Taken) -> Iterator[bytes]:
        """What is left of an object, and an account of what was taken of it."""
        uri = f"s3://{self._name}/{key}"
        with refusals(uri, self._identity):
            answer = self._client.get_object(self._name, key, offset=taken.num_bytes)
            try:
                taken.check(answer, uri)
                for piece in answer.stream(PIECE_BYTES):
                    taken.num_bytes += len(piece)
                    yield piece
                taken.is_all = True
            finally:
                answer.close()
                answer.release_conn()

    def _call(self, key: str, ask: Callable[[], T]) -> T:
        def once() -> T:
            with refusals(f"s3://{self._name}/{key}", self._identity):
                return ask()

        return Patience.of_now().until_answered(once)

    def _parts(self, key: str) -> Parts:
        return Parts(self._client, self._identity, self._name, key)


class _Taken:
    """What was taken of an object so far, and of which: it may be replaced while it is read."""

    def __init__(self) -> None:
        self.num_bytes, self.is_all, self._version = 0, False, ""
        self.size: int | None = None

    def check(self, answer: Any, uri: str) -> None:
        """Raises: StorageError if this is another object than that of the first answer, or not its rest."""
        version = answer.headers.get("ETag", "")
        if self.num_bytes and version != self._version:
            raise StorageError(f"{uri}: was replaced while it was read; read it again")
        if self.num_bytes and answer.status != 206:
            raise StorageError(
                f"{uri}: the store sends no rest of an object (status {answer.status}, not 206)"
            )
        if not self.num_bytes:
            self._version, self.size = version, int(answer.headers.get("Content-Length", -1))
