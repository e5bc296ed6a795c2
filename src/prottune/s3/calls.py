"""One call to an S3 server: what went wrong in plain words, and how long one that is away is waited for."""

from __future__ import annotations

import logging
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

from prottune.errors import ProttuneError, StorageError, StoreAwayError
from prottune.s3.access import CA_VARIABLES, Identity, trusted_file

PATIENCE_SECONDS = 60.0
"""So long a server that does not answer is asked again, from its last answer on: longer than a restart."""
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.2, 5.0
_BUSY = frozenset({"InternalError", "RequestTimeout", "ServiceUnavailable", "SlowDown"})
_NEW_ONES = "get new ones and start again, a training goes on from its checkpoints"
ADVICE = {
    "NoSuchBucket": "make the bucket, or name another",
    "AccessDenied": (
        "let the key read, write, list and delete below the prefix, parts of uploads included ({place}); "
        "some stores say so of a wrong key or secret too"
    ),
    "InvalidAccessKeyId": "the store does not know this access key ({place})",
    "SignatureDoesNotMatch": "this is not the secret key of that access key ({place})",
    "ExpiredToken": f"the credentials have expired ({{place}}): {_NEW_ONES}",
    "InvalidToken": f"the session token is not this store's, or has expired ({{place}}): {_NEW_ONES}",
    "InvalidClientTokenId": f"the session token is not this store's, or has expired ({{place}}): {_NEW_ONES}",
    "RequestTimeTooSkewed": "the clocks of this machine and of the store differ: set the wrong one",
}
"""What to do about what a store says; `place` is where the credentials come from."""
_MAY_BE_EXPIRY = ("AccessDenied", "InvalidAccessKeyId")
"""What radosgw and others say of temporary credentials that have expired."""

T = TypeVar("T")
_log = logging.getLogger(__name__)
_patience_seconds: ContextVar[float] = ContextVar("patience_seconds", default=PATIENCE_SECONDS)


@contextmanager
def patience(seconds: float) -> Iterator[None]:
    """Whoever reaches for a store inside the block waits so long for it, instead of PATIENCE_SECONDS."""
    token = _patience_seconds.set(seconds)
    try:
        yield
    finally:
        _patience_seconds.reset(token)


class Patience:
    """How long one piece of work has waited for a server that is away."""

    def __init__(self, seconds: float, told: threading.Event, given_up: threading.Event) -> None:
        self._seconds, self._told, self._given_up = seconds, told, given_up
        self._until: float | None = None
        self._pause = _FIRST_PAUSE_SECONDS

    @classmethod
    def of_now(cls) -> Patience:
        return cls(_patience_seconds.get(), threading.Event(), threading.Event())

    def of_a_part(self) -> Patience:
        """The patience of one of several pieces of this work: told once for all, given up at once by all."""
        return Patience(self._seconds, self._told, self._given_up)

    def answered(self) -> None:
        """The server is there: should it vanish again, it is waited for as long as the first time."""
        self._until, self._pause = None, _FIRST_PAUSE_SECONDS
        self._told.clear()

    def give_up(self) -> None:
        self._given_up.set()

    def wait(self, error: StoreAwayError) -> None:
        """Wait before the server is asked again.

        Raises: StoreAwayError when it has been away for too long.
        """
        now = time.monotonic()
        if self._until is None:
            self._until = now + self._seconds
            if not self._told.is_set():
                self._told.set()
                _log.warning("%s; asking again for %g s", error, self._seconds)
        if now + self._pause > self._until:
            raise StoreAwayError(f"{error}; asked again for {self._seconds:g} s", error.code) from error
        if self._given_up.wait(self._pause):
            raise error
        self._pause = min(2 * self._pause, _LONGEST_PAUSE_SECONDS)

    def until_answered(self, ask: Callable[[], T]) -> T:
        """Make one call, again and again while the server is away.

        Raises: StorageError if it refuses; StoreAwayError if it is away for too long.
        """
        while True:
            try:
                return ask()
            except StoreAwayError as error:
                self.wait(error)


@contextmanager
def refusals(uri: str, identity: Identity) -> Iterator[None]:
    """Inside the block every failure of the client or the server is told with its address.

    Raises: StoreAwayError if asking again may help; StorageError if not.
    """
    import urllib3
    from minio.error import MinioException

    try:
        yield
    except StorageError as error:  # of whoever gives the credentials
        raise error if uri in str(error) else type(error)(f"{uri}: {error}", error.code) from error
    except ProttuneError:  # some are ValueErrors too
        raise
    except urllib3.exceptions.HTTPError as error:
        raise _unanswered(uri, error) from error
    except (MinioException, OSError, ValueError) as error:
        raise _refused(uri, error, identity) from error


def _unanswered(uri: str, error: Exception) -> StorageError:
    import urllib3

    cause: object = error
    while not isinstance(cause, ssl.SSLError) and isinstance(cause, Exception) and cause.args:
        cause = next((each for each in cause.args if isinstance(each, Exception)), None)
    if isinstance(cause, ssl.SSLCertVerificationError):
        trusted = trusted_file() or "unset: the machine's own are trusted"
        return StorageError(
            f"{uri}: the server's certificate is not trusted ({cause.verify_message}); name the PEM file of "
            f"its CA with {CA_VARIABLES[0]} (now {trusted})"
        )
    if isinstance(cause, ssl.SSLError) and cause.reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"):
        return StorageError(f"{uri}: the server does not speak TLS; is it S3_SECURE=false, or http://?")
    said = error.args[0] if isinstance(error, urllib3.exceptions.ProtocolError) else error
    why = " ".join(str(said).split()).rpartition(": ")[2][:200]
    return StoreAwayError(f"{uri}: no answer ({type(error).__name__}: {why})")


def _refused(uri: str, error: Exception, identity: Identity) -> StorageError:
    code = str(getattr(error, "code", None) or "")
    status = getattr(getattr(error, "response", None), "status", 0) or getattr(error, "status_code", 0)
    status = status or getattr(error, "_code", 0)  # InvalidResponseError: a proxy's page, not the store
    told = code or (f"answered {status}" if status else str(error).splitlines()[0][:200])
    if code in _BUSY or status == 429 or (status >= 500 and status != 501):
        return StoreAwayError(f"{uri}: {told}", code)
    advice = ADVICE.get(code, "").format(place=identity.place)
    if code in _MAY_BE_EXPIRY and identity.is_temporary:
        advice = (
            f"these temporary credentials may have expired ({identity.place}): {_NEW_ONES}; if not, {advice}"
        )
    return StorageError(f"{uri}: {told}" + (f"; {advice}" if advice else ""), code)
