"""Proteins of real lengths from 1, 8 and 32 clients at a time: our server beside KServe's stock way.

Each server is a program of its own, and the clients are another on the same cores: what they cost is taken
from all servers alike, and is small beside a model's answer. The stock way stands behind a bare ModelServer,
once in float32, its own choice on a CPU, and once in our precision. Every answer must be a 200, and all
servers must give the same answers. A notebook that sends 16 proteins in one request has a row of its own:
there the stock way pads. In the open loop requests come at 0.6 of what our server could do, whether or not a
server keeps up.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.http_client import Connection, Reply, ask_locations, get
from benchmarks.load import Outcome, closed_loop, open_loop, probing
from benchmarks.machine import matmul_rate
from benchmarks.proteins import sampled, sequences
from benchmarks.rows import Options, Row
from benchmarks.served import Sizes, write_served_model
from benchmarks.timing import WARM_UP, Samples, in_turns
from prottune.alphabet import NUM_SPECIAL_TOKENS
from prottune.deployment.local import LocalDeployment, running
from prottune.deployment.settings import DeployConfig
from prottune.model.precision import choose_precision
from prottune.model.settings import MAX_GOLDEN_DIFFERENCE

CLIENTS = (1, 8, 32)
OURS, STOCK, STOCK_FP32 = "ours", "stock", "stock fp32"
_NOTEBOOK = 16
"""Proteins of one request of a notebook."""
_OPEN_RATE = 0.6
_READY_SECONDS = 120
_PROBES = ("/v2/health/live", "/v2/health/ready", "/v1/models/prottune")
_LIMIT = "matrix products of our precision, without padding"
_PEERS = {
    STOCK: "huggingfaceserver's way behind a bare KServe ModelServer, in our precision",
    STOCK_FP32: "the same in its own fp32",
}


def _planned(what: str, peer: str) -> Row:
    beside = "in our precision" if peer == STOCK else "in fp32"
    return Row(
        name="serve-mixed",
        what=f"{what}, beside the stock way {beside}",
        unit="proteins/s",
        peer_name=_PEERS[peer],
        limit_name=_LIMIT,
        goal=2.0,
    )


_LOADS = {f"{number} {'client' if number == 1 else 'clients'}": number for number in CLIENTS}
_IN_NOTEBOOK = f"1 client that asks {_NOTEBOOK} proteins a request"
_OPEN = Row(
    name="serve-mixed",
    what=f"requests at {_OPEN_RATE} of what our server can do, whether or not it keeps up",
    unit="s (p99)",
    peer_name=_PEERS[STOCK],
    ratio_of="ours / peer",
    at_most=True,
    goal=1.0,
)
_PROBE = Row(
    name="serve-mixed",
    what=f"health probes while {CLIENTS[-1]} clients ask",
    unit="ms (p99)",
    peer_name=_PEERS[STOCK],
    ratio_of="ours in ms",
    at_most=True,
    goal=50.0,
)
PLANNED = (
    *(_planned(what, peer) for what in (*_LOADS, _IN_NOTEBOOK) for peer in _PEERS),
    _OPEN,
    _PROBE,
)


@dataclass(frozen=True)
class Scale:
    """How much is run."""

    num_layers: int
    num_proteins: int
    """Of each turn; a quarter in fp32."""
    turns: int
    open_requests: int


FULL = Scale(num_layers=2, num_proteins=128, turns=3, open_requests=400)
QUICK = Scale(num_layers=2, num_proteins=32, turns=1, open_requests=40)


def rows(options: Options) -> list[Row]:
    scale = QUICK if options.quick else FULL
    sizes = Sizes(scale.num_layers)
    precision = choose_precision("auto", "cpu")
    with TemporaryDirectory(prefix="prottune-bench-") as scratch, ExitStack() as servers:
        folder = write_served_model(Path(scratch) / "model", sizes)
        stock = [sys.executable, "-m", "benchmarks.stock_server", "--model", str(folder), "--dtype"]
        urls = {
            OURS: servers.enter_context(LocalDeployment().endpoint(folder, "", DeployConfig(), "1")).url,
            STOCK: servers.enter_context(
                running([*stock, str(precision).removeprefix("torch.")], _READY_SECONDS)
            ).url,
            STOCK_FP32: servers.enter_context(running([*stock, "float32"], _READY_SECONDS)).url,
        }
        bench = Bench(urls, sequences(options), sizes, scale)
        bench.facts |= {"largest_difference": bench.check(), "precision": str(precision)}
        bench.rate = matmul_rate(precision)
        found = list(bench.closed())
        found += bench.open()
    size = f"{sizes}, {scale.num_proteins} {'real' if options.source else 'random'} proteins a turn"
    return [replace(row, scale=size, clock="wall time, client on the same cores") for row in found]


class Bench:
    """The servers, and what each turn asks of them."""

    def __init__(self, urls: dict[str, str], proteins: list[str], sizes: Sizes, scale: Scale) -> None:
        self._urls, self._proteins, self._sizes, self._scale = urls, proteins, sizes, scale
        self.facts: dict[str, Any] = {}
        self.rate = 0.0
        """Operations a second of matrix products in our precision."""
        self._probes: dict[str, list[float]] = {OURS: [], STOCK: []}
        self._capacity = 0.0

    def check(self) -> float:
        """All servers give the same answers; returns the largest difference of a probability."""
        proteins = sampled(self._proteins, 8)
        answers = [np.array(asyncio.run(_answers(url, proteins))) for url in self._urls.values()]
        difference = max(float(np.abs(answer - answers[0]).max()) for answer in answers)
        assert difference <= MAX_GOLDEN_DIFFERENCE, f"a probability differs by {difference:.4f}"
        return difference

    def closed(self) -> Iterator[Row]:
        """Clients that wait for their answers: one protein a request, then the notebook's."""
        for what, num_clients in _LOADS.items():
            samples, p99 = self._turns(num_clients, 1, probed=num_clients == CLIENTS[-1])
            self._capacity = self._scale.num_proteins / samples[OURS].median
            yield from self._judged(what, samples, p99)
        yield self._probe_row()
        samples, p99 = self._turns(1, _NOTEBOOK, probed=False)
        yield from self._judged(_IN_NOTEBOOK, samples, p99)

    def open(self) -> Iterator[Row]:
        """Requests at a steady rate, ours first, then the stock way at the same rate."""
        rate, number = _OPEN_RATE * self._capacity, self._scale.open_requests
        requests = [ask_locations([protein]) for protein in sampled(self._proteins, number, 1)]
        outcomes = {}
        for name in (OURS, STOCK):
            outcomes[name] = asyncio.run(open_loop(self._urls[name], requests, rate, number))
            assert outcomes[name].num_good == number, (name, outcomes[name].statuses)
        waits = {name: outcome.percentile(99) for name, outcome in outcomes.items()}
        yield _OPEN.measured(
            ours=waits[OURS],
            peer=waits[STOCK],
            ratio=waits[OURS] / waits[STOCK],
            samples={name: Samples(tuple(outcome.waits)) for name, outcome in outcomes.items()},
            compared=(),
            facts=self.facts | {"requests_per_second": rate},
            note=f"{rate:.1f} requests a second, p50 {outcomes[OURS].percentile(50):.3g} s and "
            f"{outcomes[STOCK].percentile(50):.3g} s",
        )

    def _turns(
        self, num_clients: int, batch: int, *, probed: bool
    ) -> tuple[dict[str, Samples], dict[str, list[float]]]:
        p99: dict[str, list[float]] = {name: [] for name in self._urls}

        def way(name: str) -> Callable[[int], float]:
            def seconds(turn: int) -> float:
                number = self._num_proteins(name, turn, max(num_clients, batch))
                proteins = sampled(self._proteins, number, turn)
                requests = _requests(proteins, batch)
                health = self._probes.get(name) if probed and turn != WARM_UP else None
                outcome = asyncio.run(_loaded(self._urls[name], requests, num_clients, health))
                assert outcome.statuses == {"200": len(requests)}, (name, outcome.statuses)
                p99[name].append(outcome.percentile(99))
                return outcome.seconds * self._scale.num_proteins / number

            return seconds

        return in_turns({name: way(name) for name in self._urls}, self._scale.turns), p99

    def _num_proteins(self, name: str, turn: int, least: int) -> int:
        """In fp32 a sample with the lengths of all is enough."""
        whole = self._scale.num_proteins
        return max(least, whole // 4 if turn == WARM_UP or name == STOCK_FP32 else whole)

    def _judged(self, what: str, samples: dict[str, Samples], p99: dict[str, list[float]]) -> Iterator[Row]:
        speed = {name: self._scale.num_proteins / found.median for name, found in samples.items()}
        waits = {name: float(np.median(each[1:])) for name, each in p99.items()}  # not the warm-up's
        for peer in _PEERS:
            yield _planned(what, peer).measured(
                ours=speed[OURS],
                peer=speed[peer],
                ratio=speed[OURS] / speed[peer],
                samples=samples,
                compared=(OURS, peer),
                limit=self._limit(),
                facts=self.facts | {"proteins_per_second": speed, "p99_seconds": waits},
                note=f"p99 {waits[OURS]:.3g} s and {waits[peer]:.3g} s",
            )

    def _limit(self) -> float:
        """Proteins a second whose matrix products this machine could do, lengths as in the turns."""
        tokens = [len(protein) + NUM_SPECIAL_TOKENS for protein in sampled(self._proteins, 500)]
        operations = [self._sizes.operations(min(number, self._sizes.num_positions)) for number in tokens]
        return self.rate / float(np.mean(operations))

    def _probe_row(self) -> Row:
        p99 = {name: 1e3 * float(np.percentile(waits, 99)) for name, waits in self._probes.items()}
        return _PROBE.measured(
            ours=p99[OURS],
            peer=p99[STOCK],
            ratio=p99[OURS],
            samples={name: Samples(tuple(waits)) for name, waits in self._probes.items()},
            compared=(),
            note=f"{len(self._probes[OURS])} probes of {', '.join(_PROBES)}, one every 50 ms",
        )


async def _loaded(
    url: str, requests: Sequence[bytes], num_clients: int, health: list[float] | None
) -> Outcome:
    """A closed loop, and health probes while it runs if somebody wants their seconds."""
    if health is None:
        return await closed_loop(url, requests, num_clients)
    async with probing(url, [get(path) for path in _PROBES]) as probes:
        outcome = await closed_loop(url, requests, num_clients)
    assert probes.num_good == probes.num_requests, probes.statuses
    health += probes.waits
    return outcome


def _requests(proteins: Sequence[str], batch: int) -> list[bytes]:
    return [ask_locations(proteins[start : start + batch]) for start in range(0, len(proteins), batch)]


async def _answers(url: str, proteins: Sequence[str]) -> list[list[float]]:
    """Each protein's probabilities, from our objects by name or from the stock way's lists."""
    connection = await Connection.open(url)
    reply: Reply = await connection.ask(ask_locations(proteins))
    connection.close()
    assert reply.status == 200, reply.body[:300]
    said = json.loads(reply.body)["predictions"]
    return [list(one["probabilities"].values()) if isinstance(one, dict) else one for one in said]
