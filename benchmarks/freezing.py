"""What freezing the lower layers saves, beside full fine-tuning and the arithmetic that says how much it can.

Going forward costs 1 for each layer, going backward 2 and only where weights learn: with k of L layers
frozen, 3L / (L + 2 (L - k)) times as fast. Source: notes to issue 3, counted in matrix products.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks.own_training import WIDTH, own_report, write_base
from benchmarks.proteins import sampled, sequences, write_tokens
from benchmarks.rows import NotRun, Options, Row
from benchmarks.timing import WARM_UP, Way, in_turns
from prottune.training.settings import TrainConfig

_MAX_TOKENS = 1024
_SETTING = "freeze_layers"
_SHARES = {"half": 0.5, "all": 1.0}


def _planned(share: str) -> Row:
    return Row(
        name="freeze",
        what=f"{share} of the layers frozen, of the speed-up that arithmetic allows",
        unit="tokens/s",
        peer_name="ours, nothing frozen",
        limit_name="3L / (L + 2 (L - k)) times the peer",
        ratio_of="ours / limit",
        goal=0.9,
    )


PLANNED = tuple(_planned(share) for share in _SHARES)


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
    """Measure full fine-tuning and each share of frozen layers on the same proteins in each turn."""
    if _SETTING not in {setting.name for setting in fields(TrainConfig)}:
        raise NotRun(f"not run: training has no setting {_SETTING} yet")
    with TemporaryDirectory() as scratch:
        samples = in_turns(_ways(Path(scratch), proteins, scale), scale.repetitions)
    tokens = sum(
        len(protein) + 2
        for turn in range(scale.repetitions)
        for protein in _cut(sampled(proteins, scale.num_proteins, turn))
    )
    speed = {name: tokens / scale.repetitions / found.median for name, found in samples.items()}
    found = []
    for share, planned in zip(_SHARES, PLANNED, strict=True):
        frozen = round(_SHARES[share] * scale.num_layers)
        limit = speed["nothing"] * possible_speed_up(scale.num_layers, frozen)
        facts = {"speed_up": speed[share] / speed["nothing"], "tokens_per_second": speed}
        row = planned.measured(
            ours=speed[share],
            peer=speed["nothing"],
            ratio=speed[share] / limit,
            samples=samples,
            limit=limit,
            facts=facts,
        )
        size = f"{frozen} of {scale.num_layers} layers of width {WIDTH}, {scale.num_proteins} proteins"
        found.append(replace(row, scale=size, clock="wall time"))
    return found


def possible_speed_up(num_layers: int, num_frozen: int) -> float:
    """How many times as fast a step can be with the lower layers frozen."""
    return 3 * num_layers / (num_layers + 2 * (num_layers - num_frozen))


def _cut(proteins: list[str]) -> list[str]:
    return [protein[: _MAX_TOKENS - 2] for protein in proteins]


def _ways(folder: Path, proteins: list[str], scale: Scale) -> dict[str, Way]:
    base = write_base(folder / "base", scale.num_layers, _MAX_TOKENS)
    mean = float(np.mean([len(protein) + 2 for protein in _cut(proteins)]))

    def way(frozen: int) -> Way:
        def seconds(turn: int) -> float:
            number = scale.batch_size if turn == WARM_UP else scale.num_proteins
            members = _cut(sampled(proteins, number, turn))
            with TemporaryDirectory(dir=folder) as scratch:
                tokens = write_tokens(Path(scratch), members, [protein[:40] for protein in members[:8]])
                report = own_report(base, tokens, round(scale.batch_size * mean), **{_SETTING: frozen})
            return sum(len(protein) + 2 for protein in members) / report.tokens_per_second

        return seconds

    shares = {name: way(round(share * scale.num_layers)) for name, share in _SHARES.items()}
    return {"nothing": way(0), **shares}
