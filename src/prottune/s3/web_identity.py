"""A web identity's token, exchanged for temporary keys: what pods have on EKS, with MinIO and with Ceph.

The S3 client can do this too, but it writes the token into the address, where proxies log it, and cannot read
the time as Ceph tells it.
"""

from __future__ import annotations

import re
import threading
from datetime import UTC, datetime, timedelta
from html import unescape
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from prottune.errors import ConfigError, StorageError, StoreAwayError

if TYPE_CHECKING:
    from urllib3 import PoolManager

TOKEN_VARIABLE = "AWS_WEB_IDENTITY_TOKEN_FILE"  # noqa: S105 - its name, not its content
SESSION = "prottune"
"""Under which name a store logs what was done with the keys, if AWS_ROLE_SESSION_NAME says no other."""
MARGIN = timedelta(seconds=60)
"""Keys that expire sooner are exchanged for new ones before they are used."""


class WebIdentity:
    """Gives the keys of this moment; the token is read anew for each exchange, because it is rotated too."""

    def __init__(
        self, token_file: str, service: str, role: str, session: str, connections: PoolManager
    ) -> None:
        self._token_file, self._service, self._connections = Path(token_file), service, connections
        self._asked = {"Action": "AssumeRoleWithWebIdentity", "Version": "2011-06-15"}
        if role:
            self._asked |= {"RoleArn": role, "RoleSessionName": session or SESSION}
        self._keys: Any = None
        self._until = datetime.min.replace(tzinfo=UTC)
        self._lock = threading.Lock()

    def retrieve(self) -> Any:
        """Raises: ConfigError if the token cannot be read; StorageError if it is refused; StoreAwayError if
        nobody answers."""
        with self._lock:
            if datetime.now(UTC) + MARGIN > self._until:
                self._keys, self._until = self._exchanged()
            return self._keys

    def _exchanged(self) -> tuple[Any, datetime]:
        from minio.credentials import Credentials

        try:
            token = self._token_file.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise ConfigError(
                f"{TOKEN_VARIABLE}={self._token_file}: cannot be read ({error.strerror})"
            ) from error
        answer = self._connections.request(
            "POST",
            f"{self._service.rstrip('/')}/",
            body=urlencode(self._asked | {"WebIdentityToken": token}),
            headers={"Content-Type": "application/x-www-form-urlencoded"},
        )
        said = answer.data.decode("utf-8", "replace")
        if answer.status != 200:
            kind = StoreAwayError if answer.status == 429 or answer.status >= 500 else StorageError
            why = _named("Code", said) or f"status {answer.status}"
            raise kind(f"{self._service}: does not take the token of {self._token_file} ({why})")
        access, secret, session, expires = (
            _named(name, said) for name in ("AccessKeyId", "SecretAccessKey", "SessionToken", "Expiration")
        )
        until = datetime.fromisoformat(expires[: len("2026-01-01T00:00:00")]).replace(tzinfo=UTC)
        return Credentials(access, secret, session), until


def _named(name: str, text: str) -> str:
    """What an element of an answer holds; empty if it is not there."""
    found = re.search(f"<{name}>([^<]+)</{name}>", text)
    return unescape(found[1]).strip() if found else ""
