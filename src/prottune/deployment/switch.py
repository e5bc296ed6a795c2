"""One address of this machine that stays while the server behind it changes, and no request is lost.

Each request gets a connection of its own to the server that is current when its head has come, and stays with
it to the end of its answer. So clients keep their connections whatever is behind, a server that was replaced
has nothing left but the requests that it still answers, and none of its idle connections can close under the
next request of a client. What a connection to this machine costs is small beside a model's answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import h11

_CHUNK = 1 << 16
_IDLE_SECONDS = 75.0
"""A client's connection on which no request begins for so long is closed."""
_CONNECT_SECONDS = 5.0
_LINGER_SECONDS = 2.0
_BAD_REQUEST, _BAD_GATEWAY = 400, 502


class _ClientGone(Exception):  # noqa: N818 - nothing went wrong here
    """The client left before its answer was whole."""


class _ServerGone(Exception):  # noqa: N818 - told to the client, not raised to callers
    """The server ended the connection before its answer was whole."""


@dataclass
class _Server:
    """One server behind the switch, and how many requests it still has."""

    host: str
    port: int
    num_open: int = 0
    is_idle: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.is_idle.set()

    def __enter__(self) -> None:
        self.num_open += 1
        self.is_idle.clear()

    def __exit__(self, *_: object) -> None:
        self.num_open -= 1
        if self.num_open == 0:
            self.is_idle.set()


class Switch:
    """Hands each HTTP request to the current server, and its answer back; belongs to one event loop."""

    def __init__(self, url: str) -> None:
        """Begin with the server at this address, as `http://127.0.0.1:4711`."""
        self._current = _server(url)
        self._listener: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def start(self, port: int = 0) -> str:
        """Listen on this machine only; returns the address. Port 0 is a free one."""
        self._listener = await asyncio.start_server(self._serve, "127.0.0.1", port)
        host, port = self._listener.sockets[0].getsockname()[:2]
        return f"http://{host}:{port}"

    async def turn_to(self, url: str, drain_seconds: float) -> int:
        """Give every new request to the server at this address, and wait for the answers of the one before.

        Returns how many requests that one has still not answered after `drain_seconds`; 0 is the usual case.
        """
        before, self._current = self._current, _server(url)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(before.is_idle.wait(), drain_seconds)
        return before.num_open

    async def close(self) -> None:
        """Take no more connections and end those that there are."""
        if self._listener is not None:
            self._listener.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One client's connection: its requests one after the other."""
        task = asyncio.current_task()
        assert task is not None, "asyncio serves each connection in a task"
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)
        client = _Client(reader, writer)
        try:
            while (request := await client.next_request()) is not None:
                server = self._current
                with server:
                    await _exchange(client, request, server)
                if not client.goes_on():
                    break
        except h11.RemoteProtocolError as error:
            await client.refuse(_BAD_REQUEST, f"not HTTP: {error}")
        except (_ClientGone, ConnectionError, TimeoutError, asyncio.CancelledError):
            pass  # cancelled by `close` only; asyncio's own callback cannot bear a cancelled task here
        finally:
            await client.leave()


class _Client:
    """The client's side of a connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._protocol = h11.Connection(h11.SERVER)

    async def next_request(self) -> h11.Request | None:
        """The head of the next request; None if no more come."""
        async with asyncio.timeout(_IDLE_SECONDS):
            event = await self._next_event()
        return event if isinstance(event, h11.Request) else None

    async def send_body(self, server: _Upstream) -> None:
        """Hand the rest of a request to the server, then watch whether the client leaves.

        Raises: _ClientGone if it does.
        """
        while True:
            event = await self._next_event()
            if isinstance(event, h11.ConnectionClosed):
                raise _ClientGone
            await server.send(event)
            if isinstance(event, h11.EndOfMessage):
                break
        data = await self._reader.read(_CHUNK)
        if not data:
            raise _ClientGone
        self._protocol.receive_data(data)  # its next request has begun: that waits until this one is answered

    async def answer(self, event: h11.Event) -> None:
        """Hand on a piece of the answer."""
        if isinstance(event, h11.Response):
            headers = _without_connection(event.headers)
            if self._protocol.their_state is h11.SEND_BODY:  # refused before it was read: it never will be
                headers.append((b"connection", b"close"))
            event = h11.Response(status_code=event.status_code, headers=headers, reason=event.reason)
        self._writer.write(self._protocol.send(event) or b"")
        await self._writer.drain()

    async def refuse(self, status: int, words: str) -> None:
        """Answer by ourselves, if no answer has begun; the connection ends with it."""
        if self._protocol.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        body = json.dumps({"error": words}).encode()
        headers = [("content-type", "application/json"), ("content-length", str(len(body)))]
        with contextlib.suppress(ConnectionError):
            await self.answer(h11.Response(status_code=status, headers=headers))
            await self.answer(h11.Data(data=body))
            await self.answer(h11.EndOfMessage())

    def goes_on(self) -> bool:
        """Whether another request may follow on this connection; makes ready for it."""
        if self._protocol.our_state is not h11.DONE or self._protocol.their_state is not h11.DONE:
            return False
        self._protocol.start_next_cycle()
        return True

    async def leave(self) -> None:
        """Close; a body that nobody wants is read for a while, or the answer would not arrive."""
        try:
            if self._protocol.their_state is h11.SEND_BODY:
                async with asyncio.timeout(_LINGER_SECONDS):
                    self._writer.write_eof()
                    while await self._reader.read(_CHUNK):
                        pass
        except (OSError, TimeoutError, asyncio.CancelledError):
            pass  # it is closed in any case
        finally:
            self._writer.close()

    async def _next_event(self) -> h11.Event:
        while (event := self._protocol.next_event()) is h11.NEED_DATA:
            self._protocol.receive_data(await self._reader.read(_CHUNK))
        assert isinstance(event, h11.Event), "a paused connection is not read"
        return event


class _Upstream:
    """The server's side of one request."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._protocol = h11.Connection(h11.CLIENT)

    async def send(self, event: h11.Event) -> None:
        """Hand on a piece of the request."""
        self._writer.write(self._protocol.send(event) or b"")
        with contextlib.suppress(ConnectionError):  # it may have answered already; that is what counts
            await self._writer.drain()

    async def next_event(self) -> h11.Event:
        """The next piece of the answer. Raises: _ServerGone if there will be none."""
        try:
            while (event := self._protocol.next_event()) is h11.NEED_DATA:
                self._protocol.receive_data(await self._reader.read(_CHUNK))
        except (h11.RemoteProtocolError, ConnectionError) as error:
            raise _ServerGone(f"the server ended before its answer was whole ({error})") from error
        assert isinstance(event, h11.Event), "an answer ends with an event, and none is read behind it"
        return event

    def close(self) -> None:
        self._writer.close()


async def _exchange(client: _Client, request: h11.Request, server: _Server) -> None:
    """Carry one request to a server and its answer back."""
    try:
        async with asyncio.timeout(_CONNECT_SECONDS):
            upstream = _Upstream(*await asyncio.open_connection(server.host, server.port))
    except (OSError, TimeoutError) as error:
        await client.refuse(_BAD_GATEWAY, f"no server behind this address ({type(error).__name__})")
        return
    try:
        headers = [*_without_connection(request.headers), (b"connection", b"close")]
        await upstream.send(h11.Request(method=request.method, target=request.target, headers=headers))
        sending = asyncio.create_task(client.send_body(upstream))
        receiving = asyncio.create_task(_hand_back(upstream, client))
        try:
            await asyncio.wait({sending, receiving}, return_when=asyncio.FIRST_COMPLETED)
            if sending.done() and sending.exception() is not None and not receiving.done():
                receiving.cancel()  # the client left or sent nonsense: the server stops computing
                await sending
            await receiving
        except _ServerGone as error:
            await client.refuse(_BAD_GATEWAY, str(error))
        finally:
            for task in (sending, receiving):
                task.cancel()
            await asyncio.gather(sending, receiving, return_exceptions=True)
    finally:
        upstream.close()


async def _hand_back(upstream: _Upstream, client: _Client) -> None:
    while True:
        event = await upstream.next_event()
        await client.answer(event)
        if isinstance(event, h11.EndOfMessage):
            return


def _without_connection(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Headers without those that speak of one connection only."""
    return [(name, value) for name, value in headers if name not in (b"connection", b"keep-alive")]


def _server(url: str) -> _Server:
    parts = urlsplit(url)
    assert parts.hostname is not None, url
    assert parts.port is not None, url
    return _Server(parts.hostname, parts.port)
