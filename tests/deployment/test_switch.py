"""The switch alone: behind it are small servers that say who they are and wait when they are told to."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from prottune.deployment.switch import Switch


class NamedServer:
    """Answers with its name and what it was asked; `/wait` only once it may, `/refuse` too early."""

    def __init__(self, name: str) -> None:
        self.name, self.may_answer, self.was_asked = name, asyncio.Event(), asyncio.Event()
        self.was_left = asyncio.Event()
        self._writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> NamedServer:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for writer in self._writers:
            writer.close()
            await writer.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        head = await reader.readuntil(b"\r\n\r\n")
        path = head.split()[1]
        if path == b"/die":
            writer.close()
            return
        self.was_asked.set()
        body = b"" if path == b"/refuse" else await _rest(head, reader)
        if path == b"/wait":
            left = asyncio.create_task(reader.read(1))
            left.add_done_callback(lambda _: self.was_left.set())
            await self.may_answer.wait()
        status = b"413 Too large" if path == b"/refuse" else b"200 OK"
        said = self.name.encode() + b" " + path + b" " + body
        writer.write(b"HTTP/1.1 %s\r\ncontent-length: %d\r\nx-side: up\r\n\r\n" % (status, len(said)) + said)
        await writer.drain()
        writer.close()


async def _rest(head: bytes, reader: asyncio.StreamReader) -> bytes:
    if b"transfer-encoding: chunked" in head.lower():
        whole = await reader.readuntil(b"0\r\n\r\n")
        return b"".join(whole.split(b"\r\n")[1:-3:2])
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return await reader.readexactly(int(line.split(b":")[1]))
    return b""


class Caller:
    """A client that keeps its connection."""

    @classmethod
    async def at(cls, port: int) -> Caller:
        caller = cls()
        caller.reader, caller.writer = await asyncio.open_connection("127.0.0.1", port)
        return caller

    async def like_this(self) -> Caller:
        return await Caller.at(self.writer.get_extra_info("peername")[1])

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def ask(self, path: str, body: bytes = b"") -> tuple[int, bytes]:
        self.send(path, body)
        return await self.answer()

    def send(self, path: str, body: bytes = b"", *, length: int | None = None) -> None:
        length = len(body) if length is None else length
        self.writer.write(b"POST %s HTTP/1.1\r\nhost: x\r\n" % path.encode())
        self.writer.write(b"content-length: %d\r\n\r\n" % length + body)

    async def answer(self) -> tuple[int, bytes]:
        head = await self.reader.readuntil(b"\r\n\r\n")
        return int(head.split()[1]), await _rest(head, self.reader)


Story = Callable[[NamedServer, NamedServer, Switch, Caller], Coroutine[Any, Any, None]]


def play(story: Story) -> None:
    """Run a story with two servers, a switch that begins with the first, and a client of the switch."""

    async def run() -> None:
        async with NamedServer("old") as old, NamedServer("new") as new, asyncio.timeout(20):
            switch = Switch(old.url)
            caller = await Caller.at(int((await switch.start()).split(":")[-1]))
            try:
                await story(old, new, switch, caller)
            finally:
                await caller.close()
                await switch.close()

    asyncio.run(run())


def test_a_kept_connection_changes_servers_between_two_requests() -> None:
    async def story(old: NamedServer, new: NamedServer, switch: Switch, caller: Caller) -> None:
        assert await caller.ask("/a", b"MKT") == (200, b"old /a MKT")
        assert await caller.ask("/b", b"MKV") == (200, b"old /b MKV")
        assert await switch.turn_to(new.url, 5) == 0
        assert await caller.ask("/c", b"MKA") == (200, b"new /c MKA")

    play(story)


def test_a_request_under_way_is_answered_by_the_server_that_has_it_and_the_switch_waits_for_it() -> None:
    async def story(old: NamedServer, new: NamedServer, switch: Switch, caller: Caller) -> None:
        waiting = asyncio.create_task(caller.ask("/wait"))
        await old.was_asked.wait()
        turning = asyncio.create_task(switch.turn_to(new.url, 10))
        await asyncio.sleep(0)
        other = await caller.like_this()
        assert await other.ask("/now") == (200, b"new /now ")
        assert not turning.done()
        old.may_answer.set()
        assert await waiting == (200, b"old /wait ")
        assert await turning == 0
        await other.close()

    play(story)


def test_a_server_that_does_not_answer_in_time_is_counted() -> None:
    async def story(old: NamedServer, new: NamedServer, switch: Switch, caller: Caller) -> None:
        waiting = asyncio.create_task(caller.ask("/wait"))
        await old.was_asked.wait()
        assert await switch.turn_to(new.url, 0.01) == 1
        old.may_answer.set()
        assert (await waiting)[0] == 200

    play(story)


def test_a_client_that_leaves_ends_its_request_at_the_server() -> None:
    async def story(old: NamedServer, new: NamedServer, switch: Switch, caller: Caller) -> None:
        caller.send("/wait")
        await old.was_asked.wait()
        caller.writer.close()
        await old.was_left.wait()
        old.may_answer.set()
        assert await switch.turn_to(new.url, 10) == 0

    play(story)


def test_an_answer_that_comes_before_the_body_was_read_arrives_and_ends_the_connection() -> None:
    async def story(old: NamedServer, new: NamedServer, switch: Switch, caller: Caller) -> None:
        caller.send("/refuse", b"M" * 1000, length=10_000_000)
        assert await caller.answer() == (413, b"old /refuse ")
        assert await caller.reader.read() == b""

    play(story)


def test_a_dead_server_is_named_in_one_line_and_the_next_server_serves() -> None:
    async def story(old: NamedServer, new: NamedServer, switch: Switch, caller: Caller) -> None:
        status, body = await caller.ask("/die")
        assert (status, b"the server ended before its answer was whole" in body) == (502, True)
        await switch.turn_to("http://127.0.0.1:1", 5)
        status, body = await caller.ask("/a")
        assert (status, b"no server behind this address" in body) == (502, True)
        await switch.turn_to(new.url, 5)
        another = await caller.like_this()
        assert await another.ask("/b") == (200, b"new /b ")
        await another.close()

    play(story)


def test_chunked_bodies_and_requests_sent_ahead_pass() -> None:
    async def story(old: NamedServer, new: NamedServer, switch: Switch, caller: Caller) -> None:
        caller.writer.write(b"POST /a HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
        caller.writer.write(b"3\r\nMKT\r\n2\r\nVV\r\n0\r\n\r\n")
        caller.send("/b", b"second")
        assert await caller.answer() == (200, b"old /a MKTVV")
        assert await caller.answer() == (200, b"old /b second")

    play(story)


@pytest.mark.parametrize("garbage", [b"\x16\x03\x01 TLS\r\n\r\n", b"GET / HTTP/1.1\r\nno colon\r\n\r\n"])
def test_what_is_no_http_is_refused(garbage: bytes) -> None:
    async def story(old: NamedServer, new: NamedServer, switch: Switch, caller: Caller) -> None:
        caller.writer.write(garbage)
        status, body = await caller.answer()
        assert (status, body[:19]) == (400, b'{"error": "not HTTP')
        assert not old.was_asked.is_set()

    play(story)
