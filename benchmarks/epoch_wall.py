"""A whole epoch by the clock, with reading, validation and checkpoints, beside the rate of its own steps.

The stage runs as users run it, in processes of its own. Its points tell the tokens of each step and the rate
at which it ran; the clock runs from the end of the first epoch's validation to the end of the last one's.
Ideal would be the training tokens alone at the median rate of the steps: validation counts as loss, and so do
the two checkpoints of each epoch.
"""

from __future__ import annotations

import inspect
import statistics
import time
from dataclasses import dataclass, fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks.own_training import PROTBERT_LAYERS, WIDTH, write_base
from benchmarks.proteins import sampled, sequences, write_tokens
from benchmarks.rows import Options, Row
from benchmarks.timing import Samples
from prottune.training.history import Point
from prottune.training.settings import TrainConfig
from prottune.training.stage import train

_MAX_TOKENS = 1024
_VALIDATION_SHARE = 9
"""One validation protein for so many: what ingestion cuts by default leaves 8 or 9 training proteins each."""

PLANNED = (
    Row(
        name="epoch-wall",
        what="an epoch with its reading, validation and checkpoints, of the rate of its steps",
        unit="tokens/s",
        peer_name="the median step of the same run",
        ratio_of="ours / peer",
        goal=0.95,
    ),
)


@dataclass(frozen=True)
class Scale:
    """How much is run."""

    num_layers: int
    num_proteins: int
    epochs: int
    """The first is the warm-up and does not count."""
    tokens_per_batch: int = 8192


FULL = Scale(num_layers=2, num_proteins=360, epochs=4)
QUICK = Scale(num_layers=1, num_proteins=150, epochs=3, tokens_per_batch=4096)
GPU = Scale(num_layers=PROTBERT_LAYERS, num_proteins=2000, epochs=3, tokens_per_batch=32_768)


def rows(options: Options) -> list[Row]:
    scale = GPU if torch.cuda.is_available() else QUICK if options.quick else FULL
    return rows_at(sequences(options), scale)


def rows_at(proteins: list[str], scale: Scale) -> list[Row]:
    """Run the stage and read its points."""
    train_set = sampled(proteins, scale.num_proteins)
    validation = sampled(proteins, max(2, scale.num_proteins // _VALIDATION_SHARE), turn=1)
    num_tokens = sum(min(len(protein) + 2, _MAX_TOKENS) for protein in train_set)
    clock = EpochClock()
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        base = write_base(folder / "base", scale.num_layers, _MAX_TOKENS)
        tokens = write_tokens(folder, train_set, validation, _MAX_TOKENS - 2)
        config = TrainConfig(
            base_model=str(base),
            tokens_per_batch=scale.tokens_per_batch,
            epochs=scale.epochs,
            patience=0,
            learning_rate=3e-6,
            **_only_known({"checkpoint_every": num_tokens // scale.tokens_per_batch // 2}),
        )
        place = {"checkpoints": str(folder / "checkpoints")} if writes_checkpoints() else {}
        train(tokens, folder / "model", config, clock, **place)
    return [_judged(clock, num_tokens, scale)]


class EpochClock:
    """Hears the points of a training and notes when each epoch ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []
        self.rates: list[list[float]] = [[]]
        """Tokens per second of the points of each epoch."""

    def __call__(self, point: Point) -> None:
        if "train/tokens_per_second" in point:
            self.rates[-1].append(float(point["train/tokens_per_second"]))
        if "validation/loss" in point:
            self.ends.append(time.perf_counter())
            self.rates.append([])

    @property
    def epoch_seconds(self) -> tuple[float, ...]:
        """Of every epoch but the first."""
        return tuple(end - start for start, end in zip(self.ends, self.ends[1:], strict=False))

    @property
    def steady_rate(self) -> float:
        """Median over the points of every epoch but the first."""
        return statistics.median(rate for epoch in self.rates[1:] for rate in epoch)


def writes_checkpoints() -> bool:
    """Whether the stage of this version can write checkpoints."""
    return "checkpoints" in inspect.signature(train).parameters


def _only_known(settings: dict[str, Any]) -> dict[str, Any]:
    """Of these settings, those that this version of training has."""
    known = {setting.name for setting in fields(TrainConfig)}
    return {name: value for name, value in settings.items() if name in known}


def _judged(clock: EpochClock, num_tokens: int, scale: Scale) -> Row:
    samples = {"epoch": Samples(clock.epoch_seconds)}
    ours = num_tokens / samples["epoch"].median
    row = PLANNED[0].measured(
        ours=ours,
        peer=clock.steady_rate,
        ratio=ours / clock.steady_rate,
        samples=samples,
        compared=("epoch",),
        note="" if writes_checkpoints() else "without checkpoints, which are not there yet",
    )
    size = f"{scale.num_layers} layers of width {WIDTH}, {scale.num_proteins} proteins, {scale.epochs} epochs"
    return replace(row, scale=size, clock="wall time")
