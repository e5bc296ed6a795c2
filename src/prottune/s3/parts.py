"""Large objects go to an S3 server in parts; of an upload that broke, only what it lacks is sent again.

The parts of a broken upload stay on the server. The next upload of the same key asks for them and leaves out
those whose size and MD5 are those of the file. Nobody can read them: an object appears when it is complete.
The client has no public calls for single parts; those used here are of the version that is locked.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from prottune.errors import StorageError, StoreAwayError
from prottune.s3.access import Identity
from prottune.s3.calls import Patience, refusals

if TYPE_CHECKING:
    from minio import Minio

PART_BYTES = 5 << 20
"""The least that S3 takes as a part; what is larger than one goes in parts."""
_NUM_SENDERS = 3
_GONE = "NoSuchUpload"
_SPOILED = (_GONE, "InvalidPart")
"""What a store says of an upload that it, or another writer, has tidied away or written into."""

T = TypeVar("T")
_log = logging.getLogger(__name__)


class Parts:
    """The uploads in parts of one key; for `uploads` and `forget`, of all keys that start with it."""

    def __init__(self, client: Minio, identity: Identity, bucket: str, key: str) -> None:
        self._client: Any = client
        self._identity, self._bucket, self._key = identity, bucket, key

    def put(self, path: Path) -> None:
        """Write a file as the object of this key; it appears whole or not at all.

        Raises: StorageError when the server refuses, or is away for too long; what it has, it keeps.
        """
        upload, there = self._broken()
        try:
            self._put(path, upload or self._begun(), there)
        except StorageError as error:
            if error.code not in _SPOILED:
                raise
            _log.warning("%s; the upload begins anew", error)
            self._put(path, self._begun(), {})

    def uploads(self) -> list[Any]:
        """Uploads that began and did not end, oldest first; none of a store that does not tell."""
        ask = partial(self._client._list_multipart_uploads, self._bucket, prefix=self._key)
        pages = self._pages(ask, lambda page: {"key_marker": page.next_key_marker})
        return sorted(
            (each for page in pages for each in page.uploads), key=lambda each: str(each.initiated_time)
        )

    def forget(self) -> None:
        """Remove what uploads left that did not end."""
        for upload in self.uploads():
            abort = partial(self._client._abort_multipart_upload, self._bucket)
            try:
                self._call(partial(abort, upload.object_name, upload.upload_id))
            except StorageError as error:
                if error.code != _GONE:
                    raise

    def _put(self, path: Path, upload: str, there: dict[int, tuple[str, int]]) -> None:
        from minio.helpers import get_part_info

        part_bytes, count = get_part_info(path.stat().st_size, 0)
        patience = Patience.of_now()
        senders = ThreadPoolExecutor(_NUM_SENDERS, thread_name_prefix="part")

        def send(number: int) -> str:
            with path.open("rb") as stream:
                stream.seek((number - 1) * part_bytes)
                data = stream.read(part_bytes)
            return self._send(data, upload, number, there.get(number), patience.of_a_part())

        try:
            sent = {senders.submit(send, number): number for number in range(1, count + 1)}
            tags = {sent[each]: each.result() for each in as_completed(sent)}
        finally:
            patience.give_up()  # if one part failed, the others wait no longer
            senders.shutdown(cancel_futures=True)
        self._finish(upload, tags)

    def _send(
        self, data: bytes, upload: str, number: int, there: tuple[str, int] | None, patience: Patience
    ) -> str:
        """Send one part, unless it is there; returns its tag."""
        if there and there == (hashlib.md5(data, usedforsecurity=False).hexdigest(), len(data)):
            return there[0]

        def ask() -> str:
            return str(self._client._upload_part(self._bucket, self._key, data, None, upload, number))

        return self._call(ask, patience)

    def _finish(self, upload: str, tags: dict[int, str]) -> None:
        from minio.datatypes import Part

        parts = [Part(number, tags[number]) for number in sorted(tags)]
        try:
            self._call(
                lambda: self._client._complete_multipart_upload(self._bucket, self._key, upload, parts)
            )
        except StorageError as error:
            if error.code != _GONE or not self._is_complete([part.etag for part in parts]):
                raise

    def _is_complete(self, tags: list[str]) -> bool:
        """Whether the object is there, made of these parts: the answer that said so may have been lost.

        Source: what S3 gives such an object for its ETag: the MD5 of its parts' MD5s, and their number.
        """
        try:
            found = self._call(lambda: self._client.stat_object(self._bucket, self._key))
            whole = hashlib.md5(b"".join(bytes.fromhex(tag) for tag in tags), usedforsecurity=False)
        except (StorageError, ValueError):
            return False
        return str(found.etag).strip('"') == f"{whole.hexdigest()}-{len(tags)}"

    def _begun(self) -> str:
        return str(self._call(lambda: self._client._create_multipart_upload(self._bucket, self._key, {})))

    def _broken(self) -> tuple[str, dict[int, tuple[str, int]]]:
        """The newest upload of this key that did not end, and what the server has of it."""
        begun = [str(each.upload_id) for each in self.uploads() if each.object_name == self._key]
        if not begun:
            return "", {}
        ask = partial(self._client._list_parts, self._bucket, self._key, begun[-1])
        pages = self._pages(ask, lambda page: {"part_number_marker": page.next_part_number_marker})
        parts = [part for page in pages for part in page.parts]
        _log.info("s3://%s/%s: an upload goes on, %d parts are there", self._bucket, self._key, len(parts))
        return begun[-1], {part.part_number: (part.etag, part.size or 0) for part in parts}

    def _pages(self, ask: Callable[..., Any], next_one: Callable[[Any], dict[str, Any]]) -> list[Any]:
        """All pages of a listing; none if the store does not let us, or cannot, list such things."""
        pages: list[Any] = []
        where: dict[str, Any] = {}
        try:
            while not pages or (pages[-1].is_truncated and all(where.values())):
                pages.append(self._call(partial(ask, **where)))
                where = next_one(pages[-1])
        except StorageError as error:
            if not error.code or isinstance(error, StoreAwayError):
                raise
            _log.debug("%s: what was left of an upload is not known", error)  # AccessDenied, NotImplemented
            return []
        return pages

    def _call(self, ask: Callable[[], T], patience: Patience | None = None) -> T:
        def once() -> T:
            with refusals(f"s3://{self._bucket}/{self._key}", self._identity):
                return ask()

        return (patience or Patience.of_now()).until_answered(once)
