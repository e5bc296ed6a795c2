"""A client that costs little: HTTP/1.1 over a kept connection to a server on this machine, and no other.

The client of a load test shares the cores with the server, so what it costs is taken from the server. This
one knows just what our servers and KServe's send: a status line, headers, a body of a stated length.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

PREDICT_PATH = "/v1/models/prottune:predict"


@dataclass(frozen=True)
class Reply:
    """What a server answered."""

    status: int
    body: bytes
    closes: bool
    """Whether the server ends the connection with this answer."""


def local_address(url: str) -> tuple[str, int]:
    """Host and port of a plain address on this machine.

    Raises: ValueError for every other address: load is for one's own servers.
    """
    parts = urlsplit(url)
    host = "127.0.0.1" if parts.hostname == "localhost" else parts.hostname or ""
    try:
        ours = ipaddress.ip_address(host).is_loopback
    except ValueError:
        ours = False
    if parts.scheme != "http" or not ours or parts.port is None:
        raise ValueError(f"{url}: expected an address of this machine like http://127.0.0.1:8080, no other")
    return host, parts.port


def get(path: str, headers: Mapping[str, str] | None = None) -> bytes:
    """The bytes of a request without a body."""
    return f"GET {path} HTTP/1.1\r\n{_headers(headers)}\r\n".encode()


def ask_locations(sequences: Sequence[str], headers: Mapping[str, str] | None = None) -> bytes:
    """The bytes of a V1 request for the locations of these proteins."""
    body = json.dumps({"instances": list(sequences)}).encode()
    length = {"content-type": "application/json", "content-length": str(len(body))}
    return f"POST {PREDICT_PATH} HTTP/1.1\r\n{_headers(length | dict(headers or {}))}\r\n".encode() + body


def _headers(headers: Mapping[str, str] | None) -> str:
    return "".join(f"{name}: {value}\r\n" for name, value in {"host": "127.0.0.1", **(headers or {})}.items())


class Connection(asyncio.Protocol):
    """One connection; it asks one question at a time."""

    @classmethod
    async def open(cls, url: str) -> Connection:
        """Connect. Raises: OSError if nobody listens."""
        host, port = local_address(url)
        _, connection = await asyncio.get_running_loop().create_connection(cls, host, port)
        return connection

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[Reply] | None = None
        self._received = bytearray()
        self._needed = 0
        self._ended = False

    @property
    def usable(self) -> bool:
        return not self._ended

    async def ask(self, request: bytes) -> Reply:
        """Send a request and wait for its answer. Raises: ConnectionError if the connection ends first."""
        assert self._transport is not None, "open() connects"
        if self._ended:
            raise ConnectionResetError("the server closed the connection while it was idle")
        self._received.clear()
        self._needed = 0
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        reply = await self._answer
        if reply.closes:
            self.close()
        return reply

    def close(self) -> None:
        self._ended = True
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        if not self._needed:
            end = self._received.find(b"\r\n\r\n")
            if end < 0:
                return
            self._needed = end + 4 + _length(bytes(self._received[:end]).lower())
        if len(self._received) >= self._needed and self._answer is not None and not self._answer.done():
            self._answer.set_result(_reply(bytes(self._received[: self._needed])))

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended = True
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc or ConnectionResetError("closed before the answer was whole"))


def _length(head: bytes) -> int:
    _, found, rest = head.partition(b"\r\ncontent-length:")
    return int(rest.split(b"\r\n", 1)[0]) if found else 0


def _reply(message: bytes) -> Reply:
    head, _, body = message.partition(b"\r\n\r\n")
    return Reply(int(head[9:12]), body, b"\r\nconnection: close" in head.lower())
