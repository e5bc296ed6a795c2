"""How much arithmetic padding and waiting cost in an epoch, beside Hugging Face's ways to make batches.

Nothing is trained: epochs are planned, and ProtBERT's arithmetic is counted (linear layers with the tokens,
attention with the square of each length). The ideal is the arithmetic of the real tokens, shared evenly. A
rank that is done waits for the one with the most, which counts as well. Peers pad to the longest protein of a
batch; where Hugging Face has the sampler, it is their code that draws it.

N proteins, S steps, W ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from transformers.trainer_pt_utils import BatchRebalanceSampler, get_length_grouped_indices

from benchmarks.proteins import sequences
from benchmarks.rows import Options, Row
from prottune.alphabet import NUM_SPECIAL_TOKENS
from prottune.training.batching import RANK_TOKENS, Integers, work_of
from prottune.training.dealing import plan_epoch

PROTBERT_WIDTH = 1024
"""The cost of attention depends on it."""
NUM_RANKS = 8
PEER_BATCH = 16
"""Proteins of a peer's batch; about 8,000 tokens."""
SEED = 43

_CUTS = {"whole proteins": 0, "cut to 1,022 residues": 1022, "cut to 510 residues": 510}
_EPOCHS = {"full": 3, "quick": 1}
_SIZES = ((4096, 2), (8192, 1), (8192, 8), *((RANK_TOKENS, num_ranks) for num_ranks in (1, 2, 4, 8)))
"""Tokens a rank and ranks that facts are kept of."""
_SETTING = f"{NUM_RANKS} ranks of {RANK_TOKENS:,} tokens"
_TRAINER = (
    f"the better of the Trainer's `group_by_length` and `batch_rebalance`, {PEER_BATCH} proteins a rank"
)

_WASTE = Row(
    name="padding",
    what="arithmetic done and waited for beyond that of the real tokens, shared evenly",
    unit="%",
    peer_name=_TRAINER,
    ratio_of="%",
    at_most=True,
    goal=1,
)
_SPREAD = replace(
    _WASTE, what="work of the most loaded rank beyond that of the least loaded, worst step", goal=3
)
_FULL = replace(
    _WASTE, what="real tokens of the budget, least full step", peer_name="", at_most=False, goal=97
)

Floats = npt.NDArray[np.float64]


def _planned(cut: str) -> list[Row]:
    return [replace(row, what=f"{row.what}; {_SETTING}, {cut}") for row in (_WASTE, _SPREAD, _FULL)]


PLANNED = tuple(row for cut in _CUTS for row in _planned(cut))


def rows(options: Options) -> list[Row]:
    lengths_N = np.array([len(sequence) for sequence in sequences(options)])
    num_epochs = _EPOCHS["quick" if options.quick else "full"]
    scale = f"{len(lengths_N)} {'real' if options.source else 'random'} proteins, epochs: {num_epochs}"
    found = []
    for name, cut in _CUTS.items():
        num_tokens_N = (np.minimum(lengths_N, cut) if cut else lengths_N) + NUM_SPECIAL_TOKENS
        found += _counted(name, scale, num_tokens_N, num_epochs)
    return found


def _counted(cut: str, scale: str, num_tokens_N: Integers, num_epochs: int) -> list[Row]:
    plans = {size: ours(num_tokens_N, *size, num_epochs) for size in _SIZES}
    trainers = [padded(num_tokens_N, NUM_RANKS, draw, num_epochs) for draw in (grouped_by_length, rebalanced)]
    ways = {
        "ours": plans[RANK_TOKENS, NUM_RANKS],
        "group_by_length": trainers[0],
        "batch_rebalance": trainers[1],
        "shuffled": padded(num_tokens_N, NUM_RANKS, shuffled, num_epochs),
        "padded to the longest of all": padded(
            num_tokens_N, NUM_RANKS, shuffled, num_epochs, int(num_tokens_N.max())
        ),
    }
    full = float(ways["ours"].filled(NUM_RANKS * RANK_TOKENS).min())
    figures = (
        (ways["ours"].paid - 1, min(trainer.paid for trainer in trainers) - 1),
        (ways["ours"].spread - 1, min(trainer.spread for trainer in trainers) - 1),
        (full, None),
    )
    facts = {
        "of the ideal": {name: way.facts() for name, way in ways.items()},
        "ours, ranks x tokens": {
            f"{ranks} x {tokens}": way.facts(ranks * tokens) for (tokens, ranks), way in plans.items()
        },
    }
    every = {"samples": {}, "compared": (), "scale": scale, "facts": facts, "clock": "arithmetic counted"}
    return [
        row.measured(ours=100 * our, peer=None if peer is None else 100 * peer, ratio=100 * our, **every)
        for row, (our, peer) in zip(_planned(cut), figures, strict=True)
    ]


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

    def filled(self, budget: int) -> Floats:
        """Real tokens of each step, relative to the budget."""
        return self.tokens_S / budget

    def facts(self, budget: int = 0) -> dict[str, float]:
        """All that these plans show."""
        most_S, least_S, mean_S = (f(self.load_SW, axis=1) for f in (np.max, np.min, np.mean))
        found = {
            "done": self.padded,
            "done and waited for": self.paid,
            "most / mean loaded": float((most_S / mean_S).max()),
            "uneven by 3 %": float((most_S > 1.03 * least_S).mean()),
        }
        if budget:
            filled_S = self.filled(budget)
            found["least full"] = float(filled_S.min())
            found["below 97 %"] = float((filled_S < 0.97).mean())
            found["above the budget"] = float((filled_S > 1).mean())
        return found


def ours(num_tokens_N: Integers, rank_tokens: int, num_ranks: int, num_epochs: int) -> Epochs:
    """Our own plans, with a budget of so many tokens a rank."""
    work_N = work_of(num_tokens_N, PROTBERT_WIDTH)
    steps = [
        step
        for epoch in range(1, num_epochs + 1)
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
    return Epochs(np.array(load_SW, float), tokens_S, num_epochs * float(work_N.sum()))


Batches = Callable[[Integers, int, int], Iterator[list[list[int]]]]
"""From lengths, a seed and a number of ranks: for each step, the proteins of each rank."""


def padded(
    num_tokens_N: Integers, num_ranks: int, batches: Batches, num_epochs: int, longest: int = 0
) -> Epochs:
    """A peer's plans: each rank pads its proteins to `longest`, or to the longest of them."""
    loads, tokens, ideal = [], [], 0.0
    for epoch in range(num_epochs):
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
