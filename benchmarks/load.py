"""Load on a server of this machine: many clients that wait for their answers, or requests at a set rate.

A closed loop (clients that ask again once they are answered) finds how much a server can do. An open loop
(requests that come whether or not the server keeps up) finds how long people wait; its seconds count from the
moment at which a request was due, so a server that stalls is not spared.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import numpy as np

from benchmarks.http_client import Connection, Reply

MAX_REQUESTS, MAX_RATE, MAX_OPEN = 1_000_000, 10_000.0, 1024
"""Bounds of a load test: requests, requests a second, requests on their way at a time."""

_PATIENCE_SECONDS = 120.0
"""What has no answer by then counts as a TimeoutError."""

Check = Callable[[int, Reply], None]
"""Looks at the answer to the n-th request; raises AssertionError if it is wrong."""


@dataclass
class Outcome:
    """What came of the requests of a load test."""

    statuses: Counter[str] = field(default_factory=Counter)
    """Answers by status; requests without an answer by the kind of error."""
    waits: list[float] = field(default_factory=list)
    """Seconds of each request that was answered with 200."""
    seconds: float = 0.0
    """From the first request to the last answer."""

    @property
    def num_requests(self) -> int:
        return self.statuses.total()

    @property
    def num_good(self) -> int:
        return self.statuses["200"]

    def percentile(self, percent: float) -> float:
        """Seconds within which so many percent of the good answers came."""
        return float(np.percentile(self.waits, percent)) if self.waits else float("inf")

    def goodput(self, within: float = float("inf")) -> float:
        """Good answers a second, of those that came within so many seconds."""
        return sum(wait <= within for wait in self.waits) / self.seconds if self.seconds else 0.0

    def count(self, status: str, wait: float) -> None:
        self.statuses[status] += 1
        if status == "200":
            self.waits.append(wait)


async def closed_loop(
    url: str, requests: Sequence[bytes], num_clients: int, check: Check | None = None
) -> Outcome:
    """Ask all requests once, by so many clients with one connection each."""
    outcome, waiting = Outcome(), iter(enumerate(requests))
    connections = [await Connection.open(url) for _ in range(num_clients)]

    async def client(connection: Connection) -> None:
        for number, request in waiting:  # shared: whoever is free takes the next one
            if not connection.usable:
                connection = await Connection.open(url)
            reply = await _ask(connection, request, time.perf_counter(), outcome)
            if check is not None and reply is not None:
                check(number, reply)
        connection.close()

    begun = time.perf_counter()
    async with asyncio.TaskGroup() as clients:
        for connection in connections:
            clients.create_task(client(connection))
    outcome.seconds = time.perf_counter() - begun
    return outcome


async def open_loop(
    url: str,
    requests: Sequence[bytes],
    rate: float,
    num_requests: int,
    *,
    check: Check | None = None,
    told: Callable[[Outcome], bool | None] | None = None,
) -> Outcome:
    """Send `num_requests` at a steady rate, the given ones over and over.

    `told` hears of it each second and may say True: it is enough.

    Raises: ValueError for more than the bounds of a load test.
    """
    if not (0 < num_requests <= MAX_REQUESTS and 0 < rate <= MAX_RATE):
        raise ValueError(f"expected at most {MAX_REQUESTS} requests and {MAX_RATE:g} a second, more than 0")
    outcome, idle, begun = Outcome(), list[Connection](), time.perf_counter()

    async def ask(number: int, due: float) -> None:
        connection = None
        while idle and connection is None:
            kept = idle.pop()
            connection = kept if kept.usable else None
        try:
            connection = connection or await Connection.open(url)
        except OSError as error:
            outcome.count(type(error).__name__, 0.0)
            return
        reply = await _ask(connection, requests[number % len(requests)], due, outcome)
        if check is not None and reply is not None:
            check(number, reply)
        if connection.usable:
            idle.append(connection)

    said = begun
    async with asyncio.TaskGroup() as tasks:
        on_their_way: set[asyncio.Task[None]] = set()
        for number in range(num_requests):
            due = begun + number / rate
            await asyncio.sleep(due - time.perf_counter())
            if len(on_their_way) >= MAX_OPEN:
                outcome.count("not sent", 0.0)
                continue
            task = tasks.create_task(ask(number, due))
            on_their_way.add(task)
            task.add_done_callback(on_their_way.discard)
            if told is not None and due - said >= 1:
                said = due
                if told(outcome):
                    break
    outcome.seconds = time.perf_counter() - begun
    for connection in idle:
        connection.close()
    return outcome


async def _ask(connection: Connection, request: bytes, due: float, outcome: Outcome) -> Reply | None:
    try:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            reply = await connection.ask(request)
    except (ConnectionError, TimeoutError) as error:
        connection.close()
        outcome.count(type(error).__name__, 0.0)
        return None
    outcome.count(str(reply.status), time.perf_counter() - due)
    return reply


@asynccontextmanager
async def probing(url: str, requests: Sequence[bytes], every: float = 0.05) -> AsyncIterator[Outcome]:
    """Ask a server's health all the time while a block runs, as a cluster's probes do; a new connection each.

    The seconds of each probe count from the moment at which it was due.
    """
    outcome, begun = Outcome(), time.perf_counter()

    async def probe() -> None:
        number = 0
        while True:
            due = time.perf_counter()
            try:
                connection = await Connection.open(url)
                await _ask(connection, requests[number % len(requests)], due, outcome)
                connection.close()
            except OSError as error:
                outcome.count(type(error).__name__, 0.0)
            number += 1
            await asyncio.sleep(max(0.0, due + every - time.perf_counter()))

    task = asyncio.create_task(probe())
    try:
        yield outcome
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        outcome.seconds = time.perf_counter() - begun
