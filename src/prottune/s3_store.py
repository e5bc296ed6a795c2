"""How prottune reaches an S3 server: a client with short time limits, and every refusal with its address.

The environment says which server: S3_ENDPOINT (host:port, or with http:// or https://), S3_ACCESS_KEY and
S3_SECRET_KEY (or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY), S3_SECURE (true or false; default true
unless the endpoint says http://), S3_REGION. Keys are never printed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from prottune.errors import ConfigError, ProttuneError, StorageError

if TYPE_CHECKING:
    from minio import Minio

CONNECT_SECONDS = 10
READ_SECONDS = 60
NUM_ATTEMPTS = 3
PIECE_BYTES = 1 << 20


class Bucket:
    """One bucket of the server that the environment names.

    Raises: ConfigError if the endpoint or a key is not set; its methods raise StorageError when the server
        refuses or vanishes.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._client = _client()

    def pieces(self, key: str) -> Iterator[bytes]:
        """The bytes of an object, piece by piece."""
        with self._errors(key):
            answer = self._client.get_object(self._name, key)
            try:
                yield from answer.stream(PIECE_BYTES)
            finally:
                answer.close()
                answer.release_conn()

    def put(self, path: Path, key: str) -> None:
        """Write a file as an object, in parts if it is large; it appears whole or not at all."""
        with self._errors(key):
            self._client.fput_object(self._name, key, str(path))

    def keys(self, prefix: str) -> list[str]:
        """Keys of all objects whose key starts with a prefix."""
        with self._errors(prefix):
            found = self._client.list_objects(self._name, prefix=prefix, recursive=True)
            return [str(item.object_name) for item in found]

    def remove(self, keys: Iterable[str]) -> None:
        """Remove objects, in this order; one that is not there is fine."""
        for key in keys:
            with self._errors(key):
                self._client.remove_object(self._name, key)

    @contextmanager
    def _errors(self, key: str) -> Iterator[None]:
        import urllib3
        from minio.error import MinioException

        try:
            yield
        except ProttuneError:  # ours already says where; some are ValueErrors too
            raise
        except (MinioException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            reason = getattr(error, "code", None) or str(error).splitlines()[0][:200]
            raise StorageError(f"s3://{self._name}/{key}: {reason}") from error


def _client() -> Minio:
    import urllib3
    from minio import Minio

    endpoint = os.environ.get("S3_ENDPOINT", "")
    access = os.environ.get("S3_ACCESS_KEY") or os.environ.get("AWS_ACCESS_KEY_ID")
    secret = os.environ.get("S3_SECRET_KEY") or os.environ.get("AWS_SECRET_ACCESS_KEY")
    if not endpoint or not access or not secret:
        raise ConfigError("s3:// needs S3_ENDPOINT, S3_ACCESS_KEY and S3_SECRET_KEY in the environment")
    secure = os.environ.get("S3_SECURE", "false" if endpoint.startswith("http://") else "true")
    if secure.lower() not in ("true", "false"):
        raise ConfigError(f"S3_SECURE={secure!r}: expected true or false")
    pool = urllib3.PoolManager(
        timeout=urllib3.Timeout(connect=CONNECT_SECONDS, read=READ_SECONDS),
        retries=urllib3.Retry(
            total=NUM_ATTEMPTS, backoff_factor=0.2, status_forcelist=[429, 500, 502, 503, 504]
        ),
    )
    return Minio(
        endpoint=endpoint.removeprefix("http://").removeprefix("https://").rstrip("/"),
        access_key=access,
        secret_key=secret,
        secure=secure.lower() == "true",
        region=os.environ.get("S3_REGION", "us-east-1"),
        http_client=pool,
    )
