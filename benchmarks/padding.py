"""How much arithmetic padding and waiting cost in an epoch, beside Hugging Face's ways to make batches.

    python benchmarks/padding.py [--source FASTA] [--results FILE.json]

Without `--source`, 13,704 random lengths of DeepLoc's distribution. Nothing is trained: the plans of three
epochs are drawn up, and the arithmetic of ProtBERT is counted (linear layers with the tokens, attention with
the square of each length). The ideal is the arithmetic of the real tokens, shared evenly. A rank that is done
waits for the one with the most: that is counted too. Peers pad to the longest protein of 16; where Hugging
Face has the sampler, it is their code that draws it.

N proteins, S steps, W ranks.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers.trainer_pt_utils import BatchRebalanceSampler, get_length_grouped_indices

from prottune.alphabet import NUM_SPECIAL_TOKENS
from prottune.fasta import read_fasta
from prottune.training.batching import RANK_TOKENS, Integers, work_of
from prottune.training.dealing import plan_epoch

PROTBERT_WIDTH = 1024
"""The cost of attention depends on it."""
NUM_RANKS = 8
PEER_BATCH = 16
"""Proteins of a peer's batch; about 8,000 tokens."""
NUM_EPOCHS = 3
SEED = 43
CUTS = {"whole proteins": 0, "cut to 1,022 residues": 1022, "cut to 510 residues": 510}

Floats = npt.NDArray[np.float64]


def deeploc_like_lengths() -> Integers:
    """Residues of random proteins with DeepLoc's lengths: log-normal, median 400, from 40 to 13,100."""
    lengths = np.random.default_rng(SEED).lognormal(5.993, 0.762, 13_704)
    return np.clip(lengths, 40, 13_100).astype(np.int64)


def read_lengths(source: Path) -> Integers:
    with source.open("rb") as stream:
        return np.array([len(record.sequence) for record in read_fasta(stream, source.name)])


@dataclass(frozen=True)
class Epochs:
    """Some epochs as one way of making batches plans them."""

    load_SW: Floats
    """Arithmetic of each rank in each step, pads included."""
    tokens_S: Integers
    """Real tokens of each step."""
    ideal: float
    """Arithmetic of the real tokens of all these epochs."""

    @property
    def padded(self) -> float:
        """Arithmetic done, relative to the ideal."""
        return float(self.load_SW.sum()) / self.ideal

    @property
    def paid(self) -> float:
        """Arithmetic done and waited for, relative to the ideal."""
        return float(self.load_SW.max(axis=1).sum()) * self.load_SW.shape[1] / self.ideal

    @property
    def spread(self) -> float:
        """In the worst step: the most loaded rank relative to the least loaded."""
        return float((self.load_SW.max(axis=1) / np.maximum(self.load_SW.min(axis=1), 1)).max())


def ours(num_tokens_N: Integers, num_ranks: int, rank_tokens: int = RANK_TOKENS) -> Epochs:
    """Our own plans, with a budget of so many tokens a rank."""
    work_N = work_of(num_tokens_N, PROTBERT_WIDTH)
    steps = [
        step
        for epoch in range(1, NUM_EPOCHS + 1)
        for step in plan_epoch(
            num_tokens_N,
            tokens_per_batch=rank_tokens * num_ranks,
            tokens_per_pass=0,
            seed=SEED,
            epoch=epoch,
            world_size=num_ranks,
            hidden_size=PROTBERT_WIDTH,
        )
    ]
    load_SW = [[sum(work_N[batch].sum() for batch in passes) for passes in step.passes] for step in steps]
    tokens_S = np.array([num_tokens_N[step.proteins].sum() for step in steps])
    return Epochs(np.array(load_SW, float), tokens_S, NUM_EPOCHS * float(work_N.sum()))


Batches = Callable[[Integers, int, int], Iterator[list[list[int]]]]
"""From lengths, a seed and a number of ranks: for each step, the proteins of each rank."""


def padded(num_tokens_N: Integers, num_ranks: int, batches: Batches, longest: int = 0) -> Epochs:
    """A peer's plans: each rank pads its proteins to `longest`, or to the longest of them."""
    loads, tokens, ideal = [], [], 0.0
    for epoch in range(NUM_EPOCHS):
        for step in batches(num_tokens_N, SEED + epoch, num_ranks):
            rows = [num_tokens_N[proteins] for proteins in step]
            loads.append([len(row) * float(work_of(longest or row.max(), PROTBERT_WIDTH)) for row in rows])
            tokens.append(sum(int(row.sum()) for row in rows))
            ideal += sum(float(work_of(row, PROTBERT_WIDTH).sum()) for row in rows)
    return Epochs(np.array(loads), np.array(tokens), ideal)


def dealt(order: list[int], num_ranks: int) -> Iterator[list[list[int]]]:
    """Batches of 16 in this order, one to each rank in turn; what is left over at the end is dropped."""
    batches = [order[start : start + PEER_BATCH] for start in range(0, len(order), PEER_BATCH)]
    for start in range(0, len(order) // (PEER_BATCH * num_ranks) * num_ranks, num_ranks):
        yield batches[start : start + num_ranks]


def shuffled(num_tokens_N: Integers, seed: int, num_ranks: int) -> Iterator[list[list[int]]]:
    return dealt(np.random.default_rng(seed).permutation(len(num_tokens_N)).tolist(), num_ranks)


def grouped_by_length(num_tokens_N: Integers, seed: int, num_ranks: int) -> Iterator[list[list[int]]]:
    """`group_by_length` of the Trainer: sorted inside mega-batches of 50 batches."""
    generator = torch.Generator().manual_seed(seed)
    order = get_length_grouped_indices(num_tokens_N.tolist(), PEER_BATCH, generator=generator)
    return dealt(order, num_ranks)


def rebalanced(num_tokens_N: Integers, seed: int, num_ranks: int) -> Iterator[list[list[int]]]:
    """`batch_rebalance` of the Trainer: each step sorted and cut where the padded arithmetic is even."""
    samplers = [
        BatchRebalanceSampler(
            num_tokens_N.tolist(), PEER_BATCH * num_ranks, num_ranks, grad_accum=1, seed=seed, rank=rank
        )
        for rank in range(num_ranks)
    ]
    return (list(step) for step in zip(*samplers, strict=True))


def hugging_face(num_tokens_N: Integers, num_ranks: int) -> dict[str, Epochs]:
    """What the Trainer of Hugging Face offers, on so many ranks."""
    return {
        "group_by_length": padded(num_tokens_N, num_ranks, grouped_by_length),
        "batch_rebalance": padded(num_tokens_N, num_ranks, rebalanced),
    }


def print_peers(num_tokens_N: Integers, trainers: dict[str, Epochs]) -> None:
    """Every way of making batches, on eight ranks."""
    longest = int(num_tokens_N.max())
    ways = {
        "pad to the longest of all": padded(num_tokens_N, NUM_RANKS, shuffled, longest),
        "shuffled, pad to the longest of 16": padded(num_tokens_N, NUM_RANKS, shuffled),
        **{f"Trainer, {name}": epochs for name, epochs in trainers.items()},
        "ours": ours(num_tokens_N, NUM_RANKS),
    }
    print(f"  arithmetic / ideal, {NUM_RANKS} ranks            done   and waited for   most / least loaded rank")
    for name, epochs in ways.items():
        print(f"    {name:34} {epochs.padded:6.3f} {epochs.paid:16.3f} {epochs.spread:26.3f}")


def print_ours(num_tokens_N: Integers) -> None:
    print(
        "  tokens a rank   ranks   steps   least filled step   below 97 %   above 100 %   uneven > 3 %   plan"
    )
    for rank_tokens, num_ranks in (
        (4096, 2),
        (8192, 1),
        (8192, 8),
        *((RANK_TOKENS, n) for n in (1, 2, 4, 8)),
    ):
        start = time.process_time()
        plan = ours(num_tokens_N, num_ranks, rank_tokens)
        milliseconds = (time.process_time() - start) / NUM_EPOCHS * 1e3
        filled_S = plan.tokens_S / (rank_tokens * num_ranks)
        uneven_S = plan.load_SW.max(axis=1) > 1.03 * plan.load_SW.min(axis=1)
        print(
            f"  {rank_tokens:13} {num_ranks:7} {len(filled_S) // NUM_EPOCHS:7} {filled_S.min():19.3f}"
            f" {(filled_S < 0.97).mean():12.2%} {(filled_S > 1).mean():13.2%} {uneven_S.mean():14.2%}"
            f" {milliseconds:4.0f} ms"
        )


def rows(name: str, num_tokens_N: Integers, trainers: dict[str, Epochs]) -> list[dict[str, Any]]:
    """What is claimed, with eight ranks of 16,384 tokens, beside the better of the Trainer's two ways."""
    peer_name, peer = min(trainers.items(), key=lambda way: way[1].paid)
    plan = ours(num_tokens_N, NUM_RANKS)
    filled = float(plan.tokens_S.min()) / (NUM_RANKS * RANK_TOKENS)
    claims = (
        ("arithmetic done and waited for / ideal", "x", plan.paid, peer.paid, "at most", 1.01),
        ("worst step: most / least loaded rank", "x", plan.spread, peer.spread, "at most", 1.03),
        ("worst step: real tokens / budget", "share", filled, None, "at least", 0.97),
    )
    return [
        {
            "name": "padding",
            "what": f"{what}; {NUM_RANKS} ranks of {RANK_TOKENS:,} tokens, {name}",
            "unit": unit,
            "ours": found,
            "peer": of_peer,
            "peer_name": f"Hugging Face Trainer, {peer_name}, {PEER_BATCH} a rank" if of_peer else "",
            "limit": 1.0,
            "ratio": found,
            "goal": goal,
            "at_most": side == "at most",
            "met": found <= goal if side == "at most" else found >= goal,
            "machine": f"none: counted; Python {platform.python_version()}",
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        }
        for what, unit, found, of_peer, side, goal in claims
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", type=Path, help="FASTA of real proteins")
    parser.add_argument("--results", type=Path, help="write the rows as JSON here")
    arguments = parser.parse_args()
    lengths_N = read_lengths(arguments.source) if arguments.source else deeploc_like_lengths()
    found = []
    for name, cut in CUTS.items():
        num_tokens_N = (np.minimum(lengths_N, cut) if cut else lengths_N) + NUM_SPECIAL_TOKENS
        print(f"{len(num_tokens_N)} proteins, {name}: {num_tokens_N.sum()} tokens, {NUM_EPOCHS} epochs")
        trainers = hugging_face(num_tokens_N, NUM_RANKS)
        print_peers(num_tokens_N, trainers)
        print_ours(num_tokens_N)
        found += rows(name, num_tokens_N, trainers)
    for row in found:
        print(f"{row['what']}: {row['ours']:.4f} (goal {row['goal']}), met: {row['met']}")
    if arguments.results:
        arguments.results.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
