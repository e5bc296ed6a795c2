"""What it costs to cut nothing: whole proteins, beside the seed's 512 tokens for every one.

Ours reads all residues of proteins whose lengths stand for all; the seed pads the same proteins to 512 tokens
and loses what is longer. Few proteins cannot hold the longest ones in proportion, so our seconds are
scaled by the arithmetic of all proteins over that of the sample; the seed's do not depend on lengths.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.machine import training_operations
from benchmarks.own_training import FEED_FORWARD, WIDTH, check_equal_to_padded, own_report, write_base
from benchmarks.proteins import labels, sampled, sequences, write_tokens
from benchmarks.rows import Options, Row
from benchmarks.seed_recipe import MAX_TOKENS, seed_seconds
from benchmarks.timing import WARM_UP, Way, in_turns
from prottune.model.precision import choose_precision
from prottune.records import DEEPLOC10

PLANNED = (
    Row(
        name="whole-protein",
        what="no protein cut, beside the seed's loop in our precision",
        unit="s per 1,000 proteins",
        peer_name="seed: padded to 512 and cut, our precision",
        at_most=True,
        goal=1.15,
    ),
    Row(
        name="whole-protein",
        what="no protein cut, beside the seed's loop in its own fp32",
        unit="s per 1,000 proteins",
        peer_name="seed: padded to 512 and cut, fp32",
        at_most=True,
        goal=1.15,
    ),
)


@dataclass(frozen=True)
class Scale:
    """How much is run."""

    num_layers: int
    num_proteins: int
    batch_size: int
    repetitions: int
    fp32_share: int


FULL = Scale(num_layers=2, num_proteins=96, batch_size=16, repetitions=3, fp32_share=6)
QUICK = Scale(num_layers=2, num_proteins=24, batch_size=8, repetitions=2, fp32_share=3)


def rows(options: Options) -> list[Row]:
    return rows_at(sequences(options), QUICK if options.quick else FULL)


def rows_at(proteins: list[str], scale: Scale) -> list[Row]:
    """Measure both sides on samples of these proteins."""
    with TemporaryDirectory() as scratch:
        samples = in_turns(_ways(Path(scratch), proteins, scale), scale.repetitions)
    thousand = {name: 1000 * found.median / scale.num_proteins for name, found in samples.items()}
    lengths = _num_tokens(proteins)
    facts = {
        "seconds_per_1000_proteins": thousand,
        "residues_the_seed_reads": float(np.minimum(lengths, MAX_TOKENS).sum() / lengths.sum()),
        "proteins_the_seed_cuts": float((lengths > MAX_TOKENS).mean()),
    }
    size = f"{scale.num_layers} layers of width {WIDTH}, {scale.num_proteins} proteins"
    return [
        replace(
            planned.measured(
                ours=thousand["ours"],
                peer=thousand[peer],
                ratio=thousand["ours"] / thousand[peer],
                samples=samples,
                compared=("ours", peer),
                facts=facts,
            ),
            scale=size,
            clock="wall time",
        )
        for planned, peer in zip(PLANNED, ("seed", "seed fp32"), strict=True)
    ]


def _num_tokens(proteins: list[str]) -> npt.NDArray[np.int64]:
    return np.array([len(protein) + 2 for protein in proteins])


def _mean_operations(proteins: list[str]) -> float:
    return training_operations(_num_tokens(proteins), 1, WIDTH, FEED_FORWARD) / len(proteins)


def _ways(folder: Path, proteins: list[str], scale: Scale) -> dict[str, Way]:
    precision = choose_precision("auto", "cpu")
    turns = {turn: sampled(proteins, scale.num_proteins, turn) for turn in range(scale.repetitions)}
    turns[WARM_UP] = sampled(proteins, scale.batch_size, WARM_UP)
    longest = max(len(protein) + 2 for members in turns.values() for protein in members)
    # As many positions as each side can use: the seed's optimizer has less to do so.
    base = write_base(folder / "base", scale.num_layers, longest)
    short = write_base(folder / "short", scale.num_layers, MAX_TOKENS)
    check_equal_to_padded(base, turns[0][:3])
    budget = round(scale.batch_size * float(_num_tokens(proteins).mean()))

    def ours(turn: int) -> float:
        members = turns[turn]
        tokens = write_tokens(folder / f"turn{turn}", members, [protein[:40] for protein in members[:8]])
        seconds = float(_num_tokens(members).sum()) / own_report(base, tokens, budget).tokens_per_second
        return seconds * _mean_operations(proteins) / _mean_operations(members)

    def seed(members: list[str], precision: torch.dtype) -> float:
        return seed_seconds(
            short,
            members,
            labels(members),
            len(DEEPLOC10),
            batch_size=scale.batch_size,
            precision=precision,
        )

    def seed_in_fp32(turn: int) -> float:
        members = turns[turn]
        some = members[: max(1, len(members) // scale.fp32_share)]
        return seed(some, torch.float32) * len(members) / len(some)

    return {"ours": ours, "seed": lambda turn: seed(turns[turn], precision), "seed fp32": seed_in_fp32}
