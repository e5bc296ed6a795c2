"""A real server as a child process, and callers who are too large, too slow, too many, or late."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.integration

FIXED_DELAY = [sys.executable, str(Path(__file__).parent.parent / "serving" / "fixed_delay.py")]
PREDICT = "/v1/models/prottune:predict"
READY = "/v2/models/prottune/ready"
LIVE = "/v2/health/live"
MEGABYTE = 1_000_000
DEADLINE = 3.0
"""For heads and bodies, of the server that slow callers meet."""
PATIENCE = 60.0


@dataclass(frozen=True)
class Server:
    """A child that listens."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    def peak_megabytes(self) -> float:
        """Most memory since the last `forget_peak`."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+) kB", text).group(1)) / 1024  # type: ignore[union-attr]

    def forget_peak(self) -> None:
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: Any
    seconds: float


@contextmanager
def serving(log: Path, *words: str, port: int = 0, delay_seconds: float = 0.0) -> Iterator[Server]:
    command = [*FIXED_DELAY, "--port", str(port), "--delay-seconds", str(delay_seconds), *words]
    with (
        log.open("wb") as stderr,
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=stderr) as process,
    ):
        try:
            until = time.monotonic() + PATIENCE
            while not (found := re.search(r"listening on http://[\d.]+:(\d+)\n", log.read_text())):
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < until, "not listening in time"
                time.sleep(0.05)
            yield Server(process, int(found.group(1)), log)
        finally:
            process.kill()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    deadlines = ["--head-seconds", str(DEADLINE), "--body-seconds", str(DEADLINE)]
    with serving(tmp_path_factory.mktemp("logs") / "log", *deadlines) as running:
        yield running


def head(path: str = PREDICT, method: str = "POST", **headers: str) -> bytes:
    lines = [
        f"{method} {path} HTTP/1.1",
        "Host: here",
        *(f"{n.replace('_', '-')}: {v}" for n, v in headers.items()),
    ]
    return "\r\n".join([*lines, "", ""]).encode()


def question(*sequences: str) -> bytes:
    body = json.dumps({"instances": sequences or ["MKKK"]}).encode()
    return head(content_length=str(len(body))) + body


async def read(reader: asyncio.StreamReader, begun: float) -> Answer:
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    body = await reader.readexactly(int(headers["content-length"]))
    seconds = time.monotonic() - begun
    return Answer(int(first.split()[1]), headers, json.loads(body), seconds)


async def ask(port: int, request: bytes) -> Answer:
    """One request on a connection of its own."""
    begun = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        return await asyncio.wait_for(read(reader, begun), PATIENCE)
    finally:
        writer.transport.abort()


async def pour(
    port: int, start: bytes, *, num_megabytes: int, chunked: bool = False
) -> tuple[Answer | None, int]:
    """Send a body until the server answers or closes; returns also how many bytes left this process."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answer = asyncio.create_task(read(reader, time.monotonic()))
    piece, num_sent = b"x" * MEGABYTE, 0
    writer.write(start)
    try:
        for _ in range(num_megabytes):
            if answer.done():
                break
            writer.write(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece)
            await writer.drain()
            num_sent += len(piece)
    except ConnectionError:
        pass
    try:
        return await asyncio.wait_for(answer, PATIENCE), num_sent
    except ConnectionError:
        return None, num_sent
    finally:
        writer.transport.abort()


@pytest.mark.parametrize(
    ("headers", "chunked", "status"),
    [
        ({"content_length": "300000000"}, False, 413),
        ({"transfer_encoding": "chunked"}, True, 413),
        ({"content_length": "300000000", "content_encoding": "gzip"}, False, 415),
    ],
    ids=["announced", "chunked", "encoded"],
)
def test_300_megabytes_are_refused_in_little_memory(
    server: Server, headers: dict[str, str], chunked: bool, status: int
) -> None:
    asyncio.run(ask(server.port, question()))
    server.forget_peak()
    before = server.peak_megabytes()
    answer, num_sent = asyncio.run(pour(server.port, head(**headers), num_megabytes=300, chunked=chunked))
    assert answer is not None
    print(f"{headers}: {answer.status} after {num_sent / 1e6:.0f} MB left, memory {before:.1f} MB")
    print(f"peak {server.peak_megabytes() - before:+.1f} MB")
    assert (answer.status, answer.headers["connection"], list(answer.body)) == (status, "close", ["error"])
    assert server.peak_megabytes() - before < 10
    assert num_sent < 60 * MEGABYTE  # the limit of 8, and what the sockets between us hold
    assert asyncio.run(ask(server.port, question())).status == 200


def test_300_megabytes_after_a_body_that_is_announced_as_ten_bytes_are_not_read(server: Server) -> None:
    server.forget_peak()
    before = server.peak_megabytes()
    answer, num_sent = asyncio.run(pour(server.port, head(content_length="10"), num_megabytes=300))
    assert answer is None or (answer.status, answer.headers["connection"]) == (400, "close")
    assert server.peak_megabytes() - before < 10
    assert num_sent < 60 * MEGABYTE
    assert asyncio.run(ask(server.port, question())).status == 200


@pytest.mark.parametrize(("announced", "status"), [("300000000", 413), ("1000", 408)])
def test_a_body_that_is_shorter_than_announced_is_refused_in_time(
    server: Server, announced: str, status: int
) -> None:
    answer = asyncio.run(ask(server.port, head(content_length=announced) + b"0123456789"))
    assert (answer.status, answer.headers["connection"]) == (status, "close")
    assert answer.seconds < DEADLINE + 2


def test_half_open_heads_and_bodies_are_dropped_while_good_requests_are_answered(server: Server) -> None:
    async def hold(start: bytes) -> float:
        begun = time.monotonic()
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(start)
        with contextlib.suppress(ConnectionError):
            await asyncio.wait_for(reader.read(), PATIENCE)
        writer.transport.abort()
        return time.monotonic() - begun

    async def idle() -> list[Answer]:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        answers = []
        for wait in (0.0, 2 * DEADLINE):
            await asyncio.sleep(wait)
            writer.write(question())
            answers.append(await read(reader, time.monotonic()))
        writer.transport.abort()
        return answers

    async def besiege() -> tuple[list[float], list[Answer], list[Answer]]:
        alone = [await ask(server.port, question()) for _ in range(20)]
        kept = asyncio.create_task(idle())
        heads = [hold(b"POST " + PREDICT.encode() + b" HTTP/1.1\r\nHost: he") for _ in range(150)]
        bodies = [hold(head(content_length="1000") + b'{"inst') for _ in range(150)]
        held = [asyncio.create_task(each) for each in heads + bodies]
        meanwhile = []
        while not all(task.done() for task in held):
            meanwhile.append(await ask(server.port, question()))
            await asyncio.sleep(0.05)
        assert [answer.status for answer in await kept] == [200, 200]
        return [task.result() for task in held], alone, meanwhile

    held, alone, meanwhile = asyncio.run(besiege())
    print(f"held {min(held):.1f} to {max(held):.1f} s; good requests alone, meanwhile (median, worst, ms):")
    for answers in (alone, meanwhile):
        seconds = sorted(answer.seconds for answer in answers)
        print(len(answers), round(seconds[len(seconds) // 2] * 1000, 1), round(seconds[-1] * 1000, 1))
    assert len(held) == 300
    assert max(held) < DEADLINE + 4
    assert {answer.status for answer in meanwhile} == {200}


def test_at_ten_times_its_capacity_it_answers_as_many_and_refuses_the_others_at_once(tmp_path: Path) -> None:
    limits = ["--max-requests", "8", "--queue-seconds", "0.4"]
    with serving(tmp_path / "log", *limits, delay_seconds=0.1) as slow:

        async def closed_loop(until: float) -> int:
            num_answered = 0
            while time.monotonic() < until:
                num_answered += (await ask(slow.port, question(letters()))).status == 200
            return num_answered

        async def load() -> tuple[float, list[Answer], float]:
            begun = time.monotonic()
            peak = sum(await asyncio.gather(*(closed_loop(begun + 3) for _ in range(4))))
            peak_rate = peak / (time.monotonic() - begun)
            begun = time.monotonic()
            tasks = []
            for number in range(int(10 * peak_rate * 5)):
                await asyncio.sleep(max(0.0, begun + number / (10 * peak_rate) - time.monotonic()))
                tasks.append(asyncio.create_task(ask(slow.port, question(letters()))))
            answers = await asyncio.gather(*tasks)
            return peak_rate, answers, time.monotonic() - begun

        peak_rate, answers, seconds = asyncio.run(load())
    good = [answer for answer in answers if answer.status == 200]
    refused = sorted((answer for answer in answers if answer.status != 200), key=lambda each: each.seconds)
    late = refused[int(0.99 * len(refused))].seconds
    print(
        f"peak {peak_rate:.1f}/s; {len(answers) / seconds:.0f}/s asked, {len(good) / seconds:.1f}/s answered,"
    )
    print(f"slowest {max(answer.seconds for answer in good):.2f} s; refused p50, p99, worst (ms):")
    print([round(each * 1000, 1) for each in (refused[len(refused) // 2].seconds, late, refused[-1].seconds)])
    assert len(good) / seconds >= 0.9 * peak_rate
    assert {answer.status for answer in refused} <= {429, 503}
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
    assert late < 0.1


_num_letters = iter(range(1, 10**9))


def letters() -> str:
    """A sequence that was not asked before."""
    number = next(_num_letters)
    return "M" + "".join("ACDEFGHIKL"[int(digit)] for digit in str(number))


async def clients_until_refused(port: int, answers: list[Answer], lost: list[str]) -> None:
    """Ask again and again, each time on a new connection, until nobody listens."""
    while True:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except ConnectionRefusedError:
            return
        writer.write(question(letters()))
        try:
            answers.append(await asyncio.wait_for(read(reader, time.monotonic()), PATIENCE))
        except (ConnectionError, asyncio.IncompleteReadError) as error:
            lost.append(repr(error))
        writer.transport.abort()


def test_a_server_that_is_told_to_end_loses_no_request(tmp_path: Path) -> None:
    with serving(tmp_path / "log", "--settle-seconds", "2", delay_seconds=0.02) as ending:
        answers: list[Answer] = []
        lost: list[str] = []

        async def end() -> tuple[int, int, float]:
            clients = [clients_until_refused(ending.port, answers, lost) for _ in range(16)]
            running = asyncio.gather(*clients)
            while len(answers) < 20:
                await asyncio.sleep(0.05)
            assert (await ask(ending.port, head(READY, "GET"))).status == 200
            ending.process.terminate()
            told = time.monotonic()
            while (ready := (await ask(ending.port, head(READY, "GET"))).status) == 200:
                await asyncio.sleep(0.02)
            turned = time.monotonic() - told
            live = (await ask(ending.port, head(LIVE, "GET"))).status
            await running
            return ready, live, turned

        ready, live, turned = asyncio.run(end())
        assert ending.process.wait(PATIENCE) == 0
    closing = [answer for answer in answers if answer.headers.get("connection") == "close"]
    print(
        f"{len(answers)} answered, {len(closing)} after TERM, {len(lost)} lost; unready after {turned:.2f} s"
    )
    assert (ready, live, lost) == (503, 200, [])
    assert {answer.status for answer in answers} == {200}
    assert len(closing) > 20


def test_what_was_begun_at_the_end_is_answered_and_what_takes_too_long_is_told_so(tmp_path: Path) -> None:
    limits = ["--settle-seconds", "0", "--drain-seconds", "4"]
    with serving(tmp_path / "log", *limits, delay_seconds=2.0) as ending:

        async def end() -> list[Answer]:
            asked = [asyncio.create_task(ask(ending.port, question(letters())))]
            await in_house(ending.port, 1)
            asked.append(asyncio.create_task(ask(ending.port, question(*(letters() for _ in range(10))))))
            await in_house(ending.port, 2)
            ending.process.terminate()
            return await asyncio.gather(*asked)

        short, long = asyncio.run(end())
        assert (short.status, long.status) == (200, 503)
        assert long.headers["retry-after"] == "1"
        assert ending.process.wait(PATIENCE) == 1  # the model's thread would go on for 20 s


async def in_house(port: int, num_requests: int) -> None:
    """Wait until so many requests are being answered."""
    words = f"prottune_http_requests_in_house {num_requests}.0".encode()
    async with asyncio.timeout(PATIENCE):
        while True:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(head("/metrics", "GET", connection="close"))
            text = await reader.read()
            writer.transport.abort()
            if words in text:
                return


def test_told_twice_it_ends_at_once(tmp_path: Path) -> None:
    with serving(tmp_path / "log", delay_seconds=0.0) as ending:
        ending.process.terminate()
        while '"ending: ' not in ending.log.read_text():
            time.sleep(0.02)
        ending.process.terminate()
        assert ending.process.wait(5) == -signal.SIGTERM


def test_killed_it_loses_what_was_begun_and_started_again_it_answers(tmp_path: Path) -> None:
    with serving(tmp_path / "first", "--queue-seconds", "100", delay_seconds=1.0) as killed:

        async def kill() -> tuple[Answer, list[Answer | BaseException]]:
            answered = await ask(killed.port, question(letters()))
            long = question(*(letters() for _ in range(20)))
            begun = [asyncio.create_task(ask(killed.port, long)) for _ in range(3)]
            await in_house(killed.port, 3)
            killed.process.kill()
            return answered, await asyncio.gather(*begun, return_exceptions=True)

        answered, begun = asyncio.run(kill())
        assert answered.status == 200
        assert all(isinstance(each, OSError | EOFError) for each in begun)
        killed.process.wait(PATIENCE)
    with serving(tmp_path / "second", port=killed.port) as again:
        assert asyncio.run(ask(again.port, question())).status == 200
