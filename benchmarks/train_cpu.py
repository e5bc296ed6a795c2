"""Optimizer steps on a CPU at ProtBERT's width, beside the seed's loop and Hugging Face's Trainer.

All sides learn from the same proteins of real lengths in each repetition, about as many a step, and from
others in the next. The Trainer reads them in the order that its own grouping by length gives them among 50
batches. Wall seconds on all cores count; every side has the environment that prottune gives its processes.
Only residues and their [CLS] and [SEP] count as tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from benchmarks.machine import matmul_rate, training_operations
from benchmarks.own_training import FEED_FORWARD, WIDTH, check_equal_to_padded, own_report, write_base
from benchmarks.proteins import labels, sampled, sequences, write_tokens
from benchmarks.rows import Options, Row
from benchmarks.seed_recipe import seed_seconds
from benchmarks.stock_trainer import MEGA_BATCH, examples, grouped_order, trainer_seconds
from benchmarks.timing import WARM_UP, Way, in_turns
from prottune.model.precision import choose_precision
from prottune.records import DEEPLOC10

_GOAL_OVER_SEED = {512: 1.3, 1024: 2.2}
_LIMIT = "matrix products of this precision, without padding"


@dataclass(frozen=True)
class Scale:
    """How much is run."""

    num_layers: int
    batch_size: int
    num_batches: int
    """Of each repetition."""
    repetitions: int
    fp32_share: int
    """One in so many proteins is enough for the seed's fp32, whose padded proteins all cost the same."""


FULL = Scale(num_layers=2, batch_size=16, num_batches=8, repetitions=3, fp32_share=4)
QUICK = Scale(num_layers=2, batch_size=8, num_batches=2, repetitions=2, fp32_share=2)


def _planned(max_tokens: int) -> dict[str, Row]:
    row = Row(
        name="train-cpu",
        what=f"at most {max_tokens} tokens, beside the seed's loop in its own fp32",
        unit="tokens/s",
        peer_name=f"seed: padded to {max_tokens}, fp32",
        limit_name=_LIMIT,
        goal=_GOAL_OVER_SEED[max_tokens],
    )
    return {
        "seed fp32": row,
        "seed": replace(
            row,
            what=f"at most {max_tokens} tokens, beside the seed's loop in our precision",
            peer_name=f"seed: padded to {max_tokens}, our precision",
        ),
        "Trainer": replace(
            row,
            what=f"at most {max_tokens} tokens, beside the Trainer",
            peer_name="Trainer: grouped by length, our precision, fused AdamW, the faster attention",
            goal=1.0,
        ),
    }


PLANNED = tuple(row for max_tokens in _GOAL_OVER_SEED for row in _planned(max_tokens).values())


def rows(options: Options) -> list[Row]:
    scale = QUICK if options.quick else FULL
    return [row for max_tokens in _GOAL_OVER_SEED for row in rows_at(max_tokens, sequences(options), scale)]


def rows_at(max_tokens: int, proteins: list[str], scale: Scale) -> list[Row]:
    """Measure all sides at one greatest length."""
    precision = choose_precision("auto", "cpu")
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        base = write_base(folder / "base", scale.num_layers, max_tokens)
        bench = Bench(base, max_tokens, proteins, scale, precision)
        difference = check_equal_to_padded(base, bench.slice(0)[:3])
        samples = in_turns(bench.ways(), scale.repetitions)
    tokens = float(np.mean([bench.num_tokens(turn).sum() for turn in range(scale.repetitions)]))
    operations = training_operations(
        np.concatenate([bench.num_tokens(turn) for turn in range(scale.repetitions)]),
        *(scale.num_layers, WIDTH, FEED_FORWARD),
    )
    limit = tokens * scale.repetitions * matmul_rate(precision) / operations
    speed = {name: tokens / found.median for name, found in samples.items()}
    attention = max(("Trainer sdpa", "Trainer eager"), key=lambda name: speed[name])
    peers = {"seed fp32": "seed fp32", "seed": "seed", "Trainer": attention}
    facts = {"tokens_per_second": speed, "gradient_difference_fp32": difference, "precision": str(precision)}
    found = [
        planned.measured(
            ours=speed["ours"],
            peer=speed[peers[name]],
            ratio=speed["ours"] / speed[peers[name]],
            samples=samples,
            compared=("ours", peers[name]),
            limit=limit,
            facts=facts,
            note=f"{attention.split()[1]} attention" if name == "Trainer" else "",
        )
        for name, planned in _planned(max_tokens).items()
    ]
    size = f"{scale.num_layers} layers of width {WIDTH}, {scale.num_batches} batches of {scale.batch_size}"
    return [replace(row, scale=size, clock="wall time") for row in found]


class Bench:
    """The sides of this benchmark, and the proteins of each repetition."""

    def __init__(
        self, base: Path, max_tokens: int, proteins: list[str], scale: Scale, precision: torch.dtype
    ) -> None:
        self._base, self._max_tokens, self._scale, self._precision = base, max_tokens, scale, precision
        cut = [protein[: max_tokens - 2] for protein in sampled(proteins, MEGA_BATCH * scale.batch_size)]
        order = grouped_order([len(protein) for protein in cut], scale.batch_size)
        size = scale.batch_size
        self._batches = [
            [cut[index] for index in order[start : start + size]] for start in range(0, len(order), size)
        ]

    def slice(self, turn: int) -> list[str]:
        """The proteins of a repetition: every n-th of the Trainer's batches, so all lengths are there."""
        if turn == WARM_UP:
            return self._batches[-1]
        step = MEGA_BATCH // self._scale.num_batches
        chosen = range(turn % step, MEGA_BATCH, step)[: self._scale.num_batches]
        return [protein for number in chosen for protein in self._batches[number]]

    def num_tokens(self, turn: int) -> np.ndarray:
        return np.array([len(protein) + 2 for protein in self.slice(turn)])

    def ways(self) -> dict[str, Way]:
        return {
            "ours": self._ours,
            "seed": lambda turn: self._seed(self.slice(turn), self._precision),
            "seed fp32": self._seed_in_fp32,
            "Trainer sdpa": lambda turn: self._trainer(turn, "sdpa"),
            "Trainer eager": lambda turn: self._trainer(turn, "eager"),
        }

    def _ours(self, turn: int) -> float:
        proteins, mean = self.slice(turn), float(self.num_tokens(0).mean())
        with TemporaryDirectory() as folder:
            tokens = write_tokens(Path(folder), proteins, [protein[:40] for protein in proteins[:8]])
            report = own_report(self._base, tokens, round(self._scale.batch_size * mean))
        assert report.facts["precision"] == str(self._precision).removeprefix("torch."), report.facts
        return float(self.num_tokens(turn).sum() / report.tokens_per_second)

    def _seed(self, proteins: list[str], precision: torch.dtype) -> float:
        return seed_seconds(
            self._base,
            proteins,
            labels(proteins),
            len(DEEPLOC10),
            max_tokens=self._max_tokens,
            batch_size=self._scale.batch_size,
            precision=precision,
        )

    def _seed_in_fp32(self, turn: int) -> float:
        proteins = self.slice(turn)
        share = self._scale.fp32_share if turn != WARM_UP else 1
        some = proteins[: len(proteins) // share]
        return self._seed(some, torch.float32) * len(proteins) / len(some)

    def _trainer(self, turn: int, attention: str) -> float:
        proteins = self.slice(turn)
        dataset = examples(proteins, labels(proteins), self._max_tokens)
        return trainer_seconds(
            self._base,
            dataset,
            len(DEEPLOC10),
            batch_size=self._scale.batch_size,
            precision=self._precision,
            attention=attention,
        )
