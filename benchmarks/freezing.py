"""What freezing the lower layers saves, beside full fine-tuning and the arithmetic that says how much it can.

Going forward costs 1 for each layer, going backward 2 and only where weights learn: with k of L layers
frozen, 3L / (L + 2 (L - k)) times as fast. A frozen encoder that keeps what it said of each protein runs
once; its epochs are measured without that first reading, against an epoch that trains all of ProtBERT.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.own_training import PROTBERT_LAYERS, WIDTH, own_report, write_base
from benchmarks.proteins import sampled, sequences, write_tokens
from benchmarks.rows import Options, Row
from benchmarks.timing import WARM_UP, Samples, Way, in_turns
from prottune.training.adaptation import predicted_speed_up

_MAX_TOKENS = 1024


def _planned(share: str) -> Row:
    return Row(
        name="freeze",
        what=f"{share} the layers frozen, of the speed-up that arithmetic allows",
        unit="tokens/s",
        peer_name="ours, nothing frozen",
        limit_name="3L / (L + 2 (L - k)) times the peer",
        ratio_of="ours / limit",
        goal=0.9,
    )


_CACHED = Row(
    name="freeze",
    what="an epoch on cached features, of one that trains all 30 layers",
    unit="tokens/s",
    peer_name="ours, nothing frozen, for the layers of this run",
    ratio_of="seconds / seconds of 30 layers",
    at_most=True,
    goal=0.01,
)
PLANNED = (_planned("half"), _planned("all"), _CACHED)


@dataclass(frozen=True)
class Scale:
    """How much is run."""

    num_layers: int
    num_proteins: int
    batch_size: int
    repetitions: int


FULL = Scale(num_layers=6, num_proteins=64, batch_size=16, repetitions=3)
QUICK = Scale(num_layers=4, num_proteins=16, batch_size=8, repetitions=2)


def rows(options: Options) -> list[Row]:
    return rows_at(sequences(options), QUICK if options.quick else FULL)


def rows_at(proteins: list[str], scale: Scale) -> list[Row]:
    """Measure full fine-tuning and each kind of frozen training on the same proteins in each turn."""
    layers = scale.num_layers
    kinds: dict[str, dict[str, Any]] = {
        "nothing": {},
        "half": {"freeze_layers": layers // 2},
        "all": {"freeze_layers": layers, "cache_features": False},
        "cached": {"freeze_layers": layers, "cache_features": True},
    }
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        base = write_base(folder / "base", layers, _MAX_TOKENS)
        cut = [protein[: _MAX_TOKENS - 2] for protein in proteins]
        ways = {name: _way(folder, base, cut, scale, kind) for name, kind in kinds.items()}
        samples = in_turns(ways, scale.repetitions)
    tokens = [_count(sampled(cut, scale.num_proteins, turn)) for turn in range(scale.repetitions)]
    speed = {name: float(np.mean(tokens)) / found.median for name, found in samples.items()}
    size = f"{layers} layers of width {WIDTH}, {scale.num_proteins} proteins"
    found = [
        _frozen_row(planned, kind, speed, samples, predicted_speed_up(layers, num_frozen))
        for planned, kind, num_frozen in ((PLANNED[0], "half", layers // 2), (PLANNED[1], "all", layers))
    ]
    found.append(
        _CACHED.measured(
            ours=speed["cached"],
            peer=speed["nothing"],
            ratio=speed["nothing"] / speed["cached"] * layers / PROTBERT_LAYERS,
            samples=samples,
            compared=("cached", "nothing"),
        )
    )
    return [replace(row, scale=size, clock="wall time") for row in found]


def _frozen_row(
    planned: Row, kind: str, speed: dict[str, float], samples: dict[str, Samples], speed_up: float
) -> Row:
    limit = speed["nothing"] * speed_up
    return planned.measured(
        ours=speed[kind],
        peer=speed["nothing"],
        ratio=speed[kind] / limit,
        samples=samples,
        compared=(kind, "nothing"),
        limit=limit,
        facts={"speed_up": speed[kind] / speed["nothing"], "possible_speed_up": speed_up},
    )


def _count(proteins: list[str]) -> int:
    return sum(len(protein) + 2 for protein in proteins)


def _way(folder: Path, base: Path, proteins: list[str], scale: Scale, settings: dict[str, Any]) -> Way:
    budget = round(scale.batch_size * _count(proteins) / len(proteins))

    def seconds(turn: int) -> float:
        number = scale.batch_size if turn == WARM_UP else scale.num_proteins
        members = sampled(proteins, number, turn)
        with TemporaryDirectory(dir=folder) as scratch:
            tokens = write_tokens(Path(scratch), members, [protein[:40] for protein in members[:8]])
            report = own_report(base, tokens, budget, **settings)
        return _count(members) / report.tokens_per_second

    return seconds
