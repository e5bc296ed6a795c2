"""One request and its answer: the body as it comes, the headers of every answer, how a refusal is sent."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import Callable
from uuid import uuid4

from starlette.types import Message, Receive, Scope, Send

MAX_HEAD_BYTES = 32 * 1024
"""Longest head of a request: its path and all its headers."""

READINESS = {"/v1/models/{model_name}", "/v2/models/{model_name}/ready", "/v2/health/ready"}
"""Routes that say whether the model answers."""

EXEMPT = READINESS | {"/v2/health/live", "/metrics"}
"""Asked by probes and by Prometheus, which bring no token and must be answered however full the house is."""

WITHOUT_TOKEN = EXEMPT | {"/"}
"""The page holds no secret, and a browser that opens it cannot bring a token: its script asks the person."""

SECURITY_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
]
"""On every answer that does not say otherwise itself; a page has a policy of its own."""

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,64}")

# A refused body that is this small is read to its end, so that the connection can be used again.
_SMALL_BYTES, _SMALL_SECONDS = 64 * 1024, 0.05
# Of any other so much is thrown away.
_LINGER_BYTES = 512 * 1024

LINGER_SECONDS = 1.0
"""How long a connection that shall be closed is left open: the bytes under way to a closed one are answered
by a reset, which may overtake what was sent before."""


class Refusal(Exception):  # noqa: N818 - an answer, not an error of ours
    """Why a request is not answered: the status, a word for the metrics, words for the caller."""

    def __init__(self, status: int, reason: str, words: str, *headers: tuple[bytes, bytes]) -> None:
        super().__init__(words)
        self.status, self.reason, self.headers = status, reason, headers


class Gone(Exception):  # noqa: N818 - nobody is left to be told
    """The caller closed the connection."""


class Exchange:
    """One request and its answer, as far as they have come."""

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, route: str, is_draining: Callable[[], bool]
    ) -> None:
        self.scope, self.route = scope, route
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.is_exempt = route in EXEMPT
        asked = self.headers.get(b"x-request-id", b"")
        self.request_id = asked if _REQUEST_ID.fullmatch(asked) else uuid4().hex.encode("ascii")
        length = self.headers.get(b"content-length", b"0")
        self.announced_bytes = int(length) if length.isdigit() and len(length) < 20 else 0
        self.num_bytes = 0
        self.body_is_whole = self.is_answered = False
        self.status = 0
        self._receive, self._send, self._is_draining = receive, send, is_draining

    async def read(self) -> bytes:
        """Raises: Gone if the caller went away."""
        message = await self._receive()
        if message["type"] != "http.request":
            raise Gone
        self.body_is_whole = not message.get("more_body", False)
        body: bytes = message.get("body", b"")
        return body

    async def send(self, message: Message) -> None:
        """Pass a part of the answer on, with the headers that the application did not set."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = list(message.get("headers", ()))
            named = {name for name, _ in headers}
            headers += [(name, value) for name, value in SECURITY_HEADERS if name not in named]
            headers.append((b"x-request-id", self.request_id))
            if self._is_draining() and b"connection" not in named:
                headers.append((b"connection", b"close"))
            message = {**message, "headers": headers}
        else:
            self.is_answered = not message.get("more_body", False)
        await self._send(message)

    async def refuse(self, refusal: Refusal) -> None:
        """Answer with the reason, and close the connection if bytes of the body may still come."""
        body = json.dumps({"error": str(refusal)}).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        headers += refusal.headers
        # Whoever expects `100 Continue` has not sent a body yet, and shall not.
        is_small = self.announced_bytes <= _SMALL_BYTES and b"expect" not in self.headers
        reusable = self.body_is_whole or (is_small and await self._skip(_SMALL_BYTES, _SMALL_SECONDS))
        if not reusable:
            headers.append((b"connection", b"close"))
        await self.send({"type": "http.response.start", "status": refusal.status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body, "more_body": True})
        if not reusable:
            await self._linger()
        await self.send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _skip(self, max_bytes: int, max_seconds: float) -> bool:
        """Throw away what still comes of the body; returns whether that was all of it."""
        with contextlib.suppress(TimeoutError, Gone):
            async with asyncio.timeout(max_seconds):
                while max_bytes > 0 and not self.body_is_whole:
                    max_bytes -= len(await self.read())
        return self.body_is_whole

    async def _linger(self) -> None:
        """Wait until the sender has closed; one who pours on is left to fill what lies between us."""
        num_bytes = 0
        with contextlib.suppress(TimeoutError, Gone):
            async with asyncio.timeout(LINGER_SECONDS):
                while not self.body_is_whole:
                    if num_bytes > _LINGER_BYTES:
                        await asyncio.sleep(LINGER_SECONDS)
                    num_bytes += len(await self.read())
