"""Uvicorn with our protocol class on a real socket: what an upgrade of uvicorn could break without a word."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from uvicorn.server import ServerState

from prottune.serving.connection import connections_within
from prottune.serving.guard import Guard
from prottune.serving.settings import ServeConfig

SOON = 0.1
PATIENCE = 10.0
LATER = 0.4  # for a good head under a busy machine
BRISK = ServeConfig(head_seconds=LATER)
QUICK = ServeConfig(head_seconds=SOON, body_seconds=SOON, max_body_megabytes=1)
POST = b"POST /predict HTTP/1.1\r\nHost: here\r\nContent-Length: %d\r\n\r\n"
GET = b"GET /predict HTTP/1.1\r\nHost: here\r\n\r\n"


@dataclass
class Server:
    """A listening socket, and what uvicorn knows of its connections."""

    port: int
    state: ServerState
    guard: Guard
    open: asyncio.Event = field(default_factory=asyncio.Event)
    clients: list[Client] = field(default_factory=list)

    async def connect(self) -> Client:
        self.clients.append(Client(*await asyncio.open_connection("127.0.0.1", self.port)))
        return self.clients[-1]


@dataclass
class Client:
    """Sends bytes as they are."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        with contextlib.suppress(ConnectionError):
            await self.writer.drain()

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), PATIENCE)
        first, *lines = head.decode().strip().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        body = await asyncio.wait_for(self.reader.readexactly(int(headers["content-length"])), PATIENCE)
        return int(first.split()[1]), headers, body

    async def is_closed(self) -> bool:
        """Wait until the server closes; nothing may come before."""
        with contextlib.suppress(ConnectionError):
            return await asyncio.wait_for(self.reader.read(1), PATIENCE) == b""
        return True


@asynccontextmanager
async def serving(config: ServeConfig) -> AsyncIterator[Server]:
    async def answer(request: Request) -> Response:
        body = await request.body()
        await server.open.wait()
        return PlainTextResponse(f"{len(body)}" if request.method == "POST" else "x" * 20_000_000)

    guard = Guard(Starlette(routes=[Route("/predict", answer, methods=["POST", "GET"])]), config)
    settings = uvicorn.Config(guard, ws="none", log_config=None, access_log=False, timeout_keep_alive=75)
    settings.load()
    state, kind = ServerState(), connections_within(config)
    loop = asyncio.get_running_loop()
    listener = await loop.create_server(
        lambda: kind(config=settings, server_state=state, app_state={}), "127.0.0.1", 0
    )
    server = Server(listener.sockets[0].getsockname()[1], state, guard)
    server.open.set()
    try:
        yield server
    finally:
        listener.close()
        for connection in list(state.connections):
            connection.transport.abort()
        while state.connections:
            await asyncio.sleep(0)
        for client in server.clients:
            client.writer.transport.abort()
            with contextlib.suppress(ConnectionError):
                await client.writer.wait_closed()


def on_uvicorns_loop(test: Callable[[], Awaitable[None]]) -> None:
    factory = uvicorn.Config(Starlette()).get_loop_factory()
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(test())


@pytest.mark.parametrize("head", [b"", b"\r\n", b"POST", GET[:-2]], ids=["no", "an empty", "a cut", "a long"])
def test_a_head_that_does_not_end_in_time_ends_the_connection(head: bytes) -> None:
    async def test() -> None:
        async with serving(QUICK) as server:
            client = await server.connect()
            await client.send(head)
            if head.strip():
                status, headers, body = await client.answer()
                assert (status, headers["connection"]) == (408, "close")
                assert json.loads(body) == {"error": "head: expected all of it within 0.1 s"}
            assert await client.is_closed()
            assert server.state.connections == set()

    on_uvicorns_loop(test)


def test_a_head_that_comes_byte_by_byte_is_not_given_more_time() -> None:
    async def test() -> None:
        async with serving(QUICK) as server:
            client = await server.connect()

            async def drip() -> None:
                for number in range(1000):
                    await client.send(GET[number : number + 1] if number < 20 else b"x")
                    await asyncio.sleep(SOON / 10)

            dripping = asyncio.create_task(drip())
            async with asyncio.timeout(PATIENCE):
                with contextlib.suppress(ConnectionError):  # one byte may meet the closed door
                    assert (await client.reader.read()).startswith(b"HTTP/1.1 408 ")
            dripping.cancel()

    on_uvicorns_loop(test)


def test_the_second_head_of_a_connection_has_the_same_deadline() -> None:
    async def second(server: Server, head: bytes) -> None:
        client = await server.connect()
        await client.send(POST % 2 + b"{}")
        assert (await client.answer())[::2] == (200, b"2")
        await client.send(head)
        if head.strip():
            assert (await client.answer())[0] == 408
        assert await client.is_closed()

    async def test() -> None:
        async with serving(BRISK) as server:
            await asyncio.gather(*(second(server, head) for head in (b"\r\n", b"POST")))

    on_uvicorns_loop(test)


def test_a_connection_may_be_idle_for_longer_than_a_head_may_take() -> None:
    async def test() -> None:
        async with serving(BRISK) as server:
            client = await server.connect()
            await client.send(POST % 2 + b"{}")
            await client.answer()
            await asyncio.sleep(LATER + SOON)
            await client.send(POST % 2 + b"{}")
            assert (await client.answer())[::2] == (200, b"2")

    on_uvicorns_loop(test)


def test_half_a_next_head_does_not_cost_the_answer_that_is_under_way() -> None:
    async def test() -> None:
        async with serving(BRISK) as server:
            server.open.clear()
            client = await server.connect()
            await client.send(POST % 2 + b"{}" + b"POST /pred")
            await asyncio.sleep(LATER + SOON)
            server.open.set()
            assert (await client.answer())[::2] == (200, b"2")
            assert (await client.answer())[0] == 408
            assert await client.is_closed()

    on_uvicorns_loop(test)


def test_a_head_without_end_is_cut_off() -> None:
    async def test() -> None:
        async with serving(ServeConfig()) as server:
            client = await server.connect()
            await client.send(b"GET /predict HTTP/1.1\r\nx-a: ")
            for _ in range(20):
                await client.send(b"x" * 16_384)
            status, headers, _ = await client.answer()
            assert (status, headers["connection"]) == (431, "close")
            assert await client.is_closed()

    on_uvicorns_loop(test)


CHUNKED = b"POST /predict HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n"


@pytest.mark.parametrize("start", [b"", b"x-a: "], ids=["many", "a long one"])
def test_trailers_without_end_are_cut_off(start: bytes) -> None:
    piece = b"x" * 16_384 if start else b"a:b\r\n" * 3000

    async def test() -> None:
        async with serving(ServeConfig()) as server:
            client = await server.connect()
            await client.send(CHUNKED + start)
            (connection,) = server.state.connections
            for _ in range(20):
                await client.send(piece)
                await asyncio.sleep(0.001)
            status, headers, body = await client.answer()
            assert (status, headers["connection"]) == (431, "close")
            assert json.loads(body) == {"error": "trailers: expected at most 32768 bytes"}
            assert len(connection.headers) == 2  # those of the head
            assert await client.is_closed()

    on_uvicorns_loop(test)


def test_a_chunked_body_of_many_small_pieces_and_a_few_trailers_is_read() -> None:
    """Their lengths and the trailers come in pieces of their own, more bytes in all than a head may have."""

    async def test() -> None:
        async with serving(ServeConfig()) as server:
            client = await server.connect()
            await client.send(CHUNKED.removesuffix(b"0\r\n"))
            for _ in range(300):
                await client.send(b"1;" + b"e" * 200 + b"\r\n")
                await asyncio.sleep(0)
                await client.send(b"x\r\n")
            await client.send(b"0\r\nx-sum: 1\r\n")
            await asyncio.sleep(0)
            await client.send(b"x-more: 2\r\n\r\n")
            assert (await client.answer())[::2] == (200, b"302")
            await client.send(POST % 2 + b"{}")
            assert (await client.answer())[::2] == (200, b"2")

    on_uvicorns_loop(test)


def test_a_body_that_does_not_end_in_time_is_told_so() -> None:
    async def test() -> None:
        async with serving(QUICK) as server:
            client = await server.connect()
            await client.send(POST % 1000 + b"{")
            status, headers, _ = await client.answer()
            assert (status, headers["connection"]) == (408, "close")

    on_uvicorns_loop(test)


def test_a_body_longer_than_announced_is_cut_there_and_the_rest_is_no_request() -> None:
    async def test() -> None:
        async with serving(ServeConfig()) as server:
            client = await server.connect()
            await client.send(POST % 2 + b'{"instances": []}')
            status, headers, body = await client.answer()
            assert (status, headers["connection"], body) == (200, "close", b"2")
            assert await client.is_closed()

    on_uvicorns_loop(test)


@pytest.mark.parametrize(
    "request_",
    [
        b"\x16\x03\x01 hello\r\n\r\n",
        b"GET / HTTP/9\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
        b"POST /predict HTTP/1.1\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        b"POST /predict HTTP/1.1\r\nContent-Length: -2\r\n\r\n{}",
        b"POST /predict HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /\xff HTTP/1.1\r\n\r\n",
        b"CONNECT example.org:443 HTTP/1.1\r\n\r\n",
    ],
    ids=["tls", "version", "two framings", "two lengths", "negative", "no chunk", "no path", "a proxy"],
)
def test_what_is_not_http_is_refused_with_words(request_: bytes) -> None:
    async def test() -> None:
        async with serving(ServeConfig()) as server:
            client = await server.connect()
            await client.send(request_)
            status, headers, body = await client.answer()
            assert (status, headers["connection"]) == (400, "close")
            assert headers["x-content-type-options"] == "nosniff"
            assert list(json.loads(body)) == ["error"]
            assert await client.is_closed()

    on_uvicorns_loop(test)


def test_one_connection_too_many_is_closed_at_once_and_the_others_go_on() -> None:
    async def test() -> None:
        async with serving(ServeConfig(max_connections=2)) as server:
            clients = [await server.connect() for _ in range(2)]
            await clients[0].send(POST % 2 + b"{}")
            assert (await clients[0].answer())[0] == 200
            one_more = await server.connect()
            status, headers, _ = await one_more.answer()
            assert (status, headers["connection"], headers["retry-after"]) == (503, "close", "1")
            assert await one_more.is_closed()
            for client in clients:
                await client.send(POST % 2 + b"{}")
                assert (await client.answer())[0] == 200

    on_uvicorns_loop(test)


def test_an_answer_that_nobody_reads_is_given_up() -> None:
    async def test() -> None:
        async with serving(QUICK) as server:
            client = await server.connect()
            client.writer.transport.pause_reading()
            await client.send(GET)
            async with asyncio.timeout(PATIENCE):
                while not server.state.connections or server.state.tasks:
                    await asyncio.sleep(SOON / 10)
                while server.state.connections:
                    await asyncio.sleep(SOON / 10)

    on_uvicorns_loop(test)


def test_a_refusal_is_read_by_a_client_that_is_still_sending() -> None:
    async def test() -> None:
        async with serving(ServeConfig(max_body_megabytes=1)) as server:
            client = await server.connect()
            await client.send(POST % 300_000_000 + b"x" * 200_000)
            status, headers, _ = await client.answer()
            assert (status, headers["connection"]) == (413, "close")

    on_uvicorns_loop(test)


def test_a_client_that_asks_before_it_sends_is_refused_before_it_sends() -> None:
    async def test() -> None:
        async with serving(ServeConfig(max_body_megabytes=1)) as server:
            client = await server.connect()
            ask = b"POST /predict HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n"
            await client.send(ask % 300_000_000)
            assert (await client.answer())[0] == 413
            client = await server.connect()
            await client.send(ask % 2)
            assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            await client.send(b"{}")
            assert (await client.answer())[0] == 200

    on_uvicorns_loop(test)


@pytest.mark.parametrize("size", [1, 1000])
def test_a_wish_for_another_protocol_is_passed_over_and_the_body_is_not_lost(size: int) -> None:
    """As Java's HttpClient sends it unless told otherwise."""
    wish = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP\r\n"
    request = POST.replace(b"Host: here\r\n", b"Host: here\r\n" + wish) % 2 + b"{}"

    async def test() -> None:
        async with serving(ServeConfig()) as server:
            client = await server.connect()
            for start in range(0, len(request), size):
                await client.send(request[start : start + size])
                await asyncio.sleep(0)
            assert (await client.answer())[::2] == (200, b"2")
            await client.send(POST % 2 + b"{}")
            assert (await client.answer())[::2] == (200, b"2")

    on_uvicorns_loop(test)


def test_many_such_wishes_at_once_are_all_passed_over() -> None:
    wish = b"POST /predict HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\n{}"

    async def test() -> None:
        async with serving(ServeConfig()) as server:
            client = await server.connect()
            await client.send(wish * 700)
            for _ in range(700):
                assert (await client.answer())[::2] == (200, b"2")

    on_uvicorns_loop(test)


def test_at_the_end_idle_connections_close_and_who_has_begun_or_just_come_is_answered() -> None:
    async def test() -> None:
        async with serving(ServeConfig()) as server:
            idle, begun, just_there = [await server.connect() for _ in range(3)]
            await idle.send(POST % 2 + b"{}")
            await idle.answer()
            await begun.send(b"POST /pre")
            while sorted(each._in_head for each in server.state.connections) != [False, False, True]:
                await asyncio.sleep(0.01)
            server.guard.draining = True
            for connection in list(server.state.connections):
                connection.shutdown()
            assert await idle.is_closed()
            await begun.send((POST % 2 + b"{}").removeprefix(b"POST /pre"))
            status, headers, _ = await begun.answer()
            assert (status, headers["connection"]) == (200, "close")
            await just_there.send(POST % 2 + b"{}")
            assert (await just_there.answer())[1]["connection"] == "close"
            assert await begun.is_closed()

    on_uvicorns_loop(test)
