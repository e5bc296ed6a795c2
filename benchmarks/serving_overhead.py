"""What our server costs beside KServe's own, with models that do nothing behind both.

Ours checks, merges and guards: every request goes through the guard, the reading of its proteins, the batcher
and its thread, and out as ten named probabilities; KServe's hands a dictionary to a function. Clients ask for
one protein of 530 residues each, a different one each time. They share the cores with the servers; what they
could ask at most is measured against a server of a few lines in the same run, and is the limit.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace

import numpy as np

from benchmarks.http_client import ask_locations
from benchmarks.load import closed_loop
from benchmarks.rows import Options, Row
from benchmarks.timing import WARM_UP, in_turns
from prottune.alphabet import STANDARD_RESIDUES
from prottune.deployment.local import running

NUM_RESIDUES = 530
"""DeepLoc's mean."""
CLIENTS = (1, 8)
_READY_SECONDS = 120


def _planned(num_clients: int) -> Row:
    clients = "1 client" if num_clients == 1 else f"{num_clients} clients"
    return Row(
        name="serve-overhead",
        what=f"requests through the whole server, {clients}",
        unit="requests/s",
        peer_name="a bare KServe ModelServer with a model that does nothing",
        limit_name="what the client can ask",
        goal=0.9,
    )


PLANNED = tuple(_planned(num_clients) for num_clients in CLIENTS)


@dataclass(frozen=True)
class Scale:
    """How much is run."""

    num_requests: int
    """Of each turn."""
    turns: int


FULL = Scale(num_requests=3000, turns=5)
QUICK = Scale(num_requests=400, turns=2)

_COMMANDS = {
    "ours": ["benchmarks.no_op_server", "--port", "0", "--settle-seconds", "0"],
    "KServe": ["benchmarks.stock_server"],
    "limit": ["benchmarks.small_server"],
}


def rows(options: Options) -> list[Row]:
    scale = QUICK if options.quick else FULL
    requests = [ask_locations([protein]) for protein in _proteins(scale.num_requests)]
    with ExitStack() as servers:
        urls = {
            name: servers.enter_context(running([sys.executable, "-m", *command], _READY_SECONDS)).url
            for name, command in _COMMANDS.items()
        }
        return [_measured(number, urls, requests, scale) for number in CLIENTS]


def _measured(num_clients: int, urls: dict[str, str], requests: list[bytes], scale: Scale) -> Row:
    p99: dict[str, list[float]] = {name: [] for name in urls}

    def way(name: str) -> Callable[[int], float]:
        def seconds(turn: int) -> float:
            some = requests[: len(requests) // 10] if turn == WARM_UP else requests
            outcome = asyncio.run(closed_loop(urls[name], some, num_clients))
            assert outcome.statuses == {"200": len(some)}, outcome.statuses
            p99[name].append(outcome.percentile(99))
            return outcome.seconds * len(requests) / len(some)

        return seconds

    samples = in_turns({name: way(name) for name in urls}, scale.turns)
    rate = {name: len(requests) / found.median for name, found in samples.items()}
    row = _planned(num_clients).measured(
        ours=rate["ours"],
        peer=rate["KServe"],
        ratio=rate["ours"] / rate["KServe"],
        samples=samples,
        compared=("ours", "KServe"),
        limit=rate["limit"],
        facts={"p99_seconds": {name: float(np.median(each)) for name, each in p99.items()}},
    )
    return replace(
        row,
        scale=f"{scale.num_requests} requests of {NUM_RESIDUES} residues a turn",
        clock="wall time, client on the same cores",
    )


def _proteins(number: int) -> list[str]:
    letters = np.random.default_rng(43).choice(
        np.frombuffer(STANDARD_RESIDUES.encode(), np.uint8), (number, NUM_RESIDUES)
    )
    return [row.tobytes().decode() for row in letters]
