"""What stands between the network and the model: limits, deadlines, a token, and headers on every answer.

A plain ASGI application around another, which sees a request only once its body is whole. What is refused is
refused before its body is read, with a JSON `{"error": ...}`; a connection on which bytes of a refused body
may still come is closed, after a moment in which a polite client can read why.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from prottune.errors import ConfigError
from prottune.serving.exchange import (
    EXEMPT,
    MAX_HEAD_BYTES,
    READINESS,
    WITHOUT_TOKEN,
    Exchange,
    Gone,
    Refusal,
)
from prottune.serving.http_metrics import count_refusal, count_request, set_in_house
from prottune.serving.logs import begin_notes, log_request
from prottune.serving.settings import ServeConfig

_OTHER = "other"
_CLIENT_GONE = 499  # as nginx calls it; nobody receives it
_MIN_TOKEN = 16
_WATCHED_AFTER_SECONDS = 0.02
"""Most requests are answered before somebody has to look whether their sender is still there."""
_TOKEN = re.compile(rb"[A-Za-z0-9._~+/-]+=*")  # Source: RFC 6750 section 2.1

_log = logging.getLogger(__name__)


class Guard:
    """Lets through to the application what is small, whole, in time and allowed."""

    def __init__(self, app: ASGIApp, config: ServeConfig) -> None:
        """Raises: ConfigError if the token cannot be read."""
        self.draining = False
        """Whether the server is about to end: still answering, no longer ready, closing connections."""
        self.app, self._config = app, config
        self._token = read_token(config)
        self._routes = _routes_by_method(getattr(app, "routes", ()))
        self._num_requests = 0
        self._num_body_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or refuse it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        exchange = Exchange(scope, receive, send, self._route(scope), lambda: self.draining)
        notes, begun = begin_notes(), time.perf_counter()
        try:
            await self._answer_or_refuse(exchange)
        finally:
            self._num_body_bytes -= exchange.num_bytes
            status = exchange.status or _CLIENT_GONE
            count_request(exchange.route, status)
            fields = {
                "method": scope["method"],
                "route": exchange.route,
                "status": status,
                "seconds": round(time.perf_counter() - begun, 4),
                "request_id": exchange.request_id.decode("ascii"),
            }
            log_request(_level(exchange.route, status), {**fields, **notes})

    async def _answer_or_refuse(self, exchange: Exchange) -> None:
        try:
            self._check_head(exchange)
            chunks = await self._whole_body(exchange)
            with self._in_house() if not exchange.is_exempt else contextlib.nullcontext():
                await self._ask(exchange, chunks)
        except Refusal as refusal:
            count_refusal(refusal.reason)
            await exchange.refuse(refusal)
        except Gone:
            pass
        except asyncio.CancelledError:  # the drain's time is over
            if not exchange.status:
                await exchange.refuse(_busy("draining", "the server ends; ask again"))
            raise
        except Exception:
            _log.exception("a request failed inside the server")
            if not exchange.status:
                await exchange.refuse(Refusal(500, "failed", "the server failed; its log says more"))

    def _check_head(self, exchange: Exchange) -> None:
        """Raises: Refusal for all that can be known before the body."""
        headers = exchange.headers
        length = len(exchange.scope.get("raw_path") or b"") + len(exchange.scope["query_string"])
        if length + sum(len(name) + len(value) for name, value in exchange.scope["headers"]) > MAX_HEAD_BYTES:
            raise Refusal(431, "head_size", f"head: expected at most {MAX_HEAD_BYTES} bytes")
        if self.draining and exchange.route in READINESS:
            raise _busy("draining", "not ready: the server is about to end")
        if self._token and exchange.route not in WITHOUT_TOKEN:
            word, _, token = headers.get(b"authorization", b"").partition(b" ")
            if word.lower() != b"bearer" or not hmac.compare_digest(token.strip(), self._token):
                expected = "expected the header `Authorization: Bearer TOKEN` with this server's token"
                raise Refusal(401, "token", expected, (b"www-authenticate", b"Bearer"))
        if (encoding := headers.get(b"content-encoding", b"identity").lower()) not in (b"identity", b""):
            raise Refusal(415, "encoding", f"content-encoding: expected identity, got {encoding[:20]!r}")
        if exchange.announced_bytes > self._config.max_body_bytes:
            raise self._too_large(f"{exchange.announced_bytes} bytes")
        if not exchange.is_exempt:
            self._check_room()

    def _check_room(self) -> None:
        if self._num_requests >= self._config.max_requests:
            raise _busy("requests", f"{self._num_requests} requests are being answered; ask again")

    async def _whole_body(self, exchange: Exchange) -> list[bytes]:
        """Raises: Refusal for a body that is too large or too late; Gone if its sender went away."""
        chunks = []
        try:
            async with asyncio.timeout(self._config.body_seconds):
                while not exchange.body_is_whole:
                    chunks.append(chunk := await exchange.read())
                    self._num_body_bytes += len(chunk)
                    exchange.num_bytes += len(chunk)
                    if exchange.num_bytes > self._config.max_body_bytes:
                        raise self._too_large("more")
                    if self._num_body_bytes > self._config.max_bodies_bytes:
                        raise _busy("bodies", "the bodies of other requests fill the memory; ask again")
        except TimeoutError:
            words = f"body: expected all of it within {self._config.body_seconds:g} s"
            raise Refusal(408, "body_time", words) from None
        return chunks

    def _too_large(self, got: str) -> Refusal:
        words = f"body: expected at most {self._config.max_body_bytes} bytes, got {got}"
        return Refusal(413, "body_size", words)

    @contextmanager
    def _in_house(self) -> Iterator[None]:
        """Count a request while it is answered. Requests whose body is still coming are not counted, or slow
        senders could fill the house."""
        self._check_room()
        self._num_requests += 1
        set_in_house(self._num_requests)
        try:
            yield
        finally:
            self._num_requests -= 1
            set_in_house(self._num_requests)

    async def _ask(self, exchange: Exchange, chunks: list[bytes]) -> None:
        """Hand the request on; when its sender goes away, nobody goes on computing the answer."""
        task = asyncio.current_task()
        assert task is not None
        gone = asyncio.Event()

        async def watch() -> None:
            with contextlib.suppress(Gone):
                while True:
                    await exchange.read()
            if not exchange.is_answered:
                gone.set()
                task.cancel()

        async def replay() -> Message:
            if chunks:
                return {"type": "http.request", "body": chunks.pop(0), "more_body": bool(chunks)}
            await gone.wait()
            return {"type": "http.disconnect"}

        watchers: list[asyncio.Task[None]] = []
        later = asyncio.get_running_loop().call_later(
            _WATCHED_AFTER_SECONDS, lambda: watchers.append(asyncio.create_task(watch()))
        )
        try:
            await self.app(exchange.scope, replay, exchange.send)
        except asyncio.CancelledError:
            if not gone.is_set():
                raise
            task.uncancel()
            raise Gone from None
        finally:
            later.cancel()
            for watcher in watchers:
                watcher.cancel()

    def _route(self, scope: Scope) -> str:
        for pattern, route in self._routes.get(scope["method"], ()):
            if pattern.match(scope["path"]):
                return route
        return _OTHER


def read_token(config: ServeConfig) -> bytes:
    """Read the token that callers must bring; empty if nobody is asked for one.

    Raises: ConfigError if the file cannot be read, or what stands in it is no token or too short.
    """
    if not config.token_file:
        return b""
    try:
        token = Path(config.token_file).read_bytes().strip()
    except OSError as error:
        raise ConfigError(f"token_file={config.token_file!r}: {error.strerror}") from error
    if len(token) < _MIN_TOKEN or not _TOKEN.fullmatch(token):
        raise ConfigError(
            f"token_file={config.token_file!r}: expected one token of at least {_MIN_TOKEN} letters, digits "
            f"and -._~+/, got {len(token)} bytes; `openssl rand -hex 32` makes one"
        )
    return token


def _busy(reason: str, words: str) -> Refusal:
    return Refusal(503, reason, words, (b"retry-after", b"1"))


def _level(route: str, status: int) -> int:
    """Probes come every few seconds; that all is well is not worth a line."""
    if status >= 500:
        return logging.ERROR if status == 500 else logging.WARNING
    return logging.DEBUG if route in EXEMPT and status < 400 else logging.INFO


def _routes_by_method(routes: Iterable[Any]) -> dict[str, list[tuple[re.Pattern[str], str]]]:
    """The application's own patterns, in its order: what matches here is what it will answer."""
    found: dict[str, list[tuple[re.Pattern[str], str]]] = {}
    for route in routes:
        for method in getattr(route, "methods", None) or ():
            found.setdefault(method, []).append((route.path_regex, route.path))
    return found
