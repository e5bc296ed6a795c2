"""How much arithmetic padding and waiting cost in an epoch, beside Hugging Face's ways to make batches.

Nothing is trained: the plans of three epochs are drawn up, and the arithmetic of ProtBERT is counted (linear
layers with the tokens, attention with the square of each length). The ideal is the arithmetic of the real
tokens, shared evenly. A rank that is done waits for the one with the most: that is counted too. Peers pad to
the longest protein of 16; where Hugging Face has the sampler, it is their code that draws it.

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
NUM_EPOCHS = 3
SEED = 43
OTHER_SIZES = ((2, 4096), (8, 8192), (2, RANK_TOKENS), (4, RANK_TOKENS))
"""Ranks and tokens a rank of which only the balance is noted."""
CUTS = {"whole proteins": 0, "cut to 1,022 residues": 1022, "cut to 510 residues": 510}

Floats = npt.NDArray[np.float64]


def _planned(cut: str) -> tuple[Row, Row, Row]:
    """What is claimed of proteins cut so, in the order of `_claims`."""
    ranks = f"{NUM_RANKS} ranks of {RANK_TOKENS:,} tokens, {cut}"
    peer = f"the better sampler of Hugging Face's `Trainer`, {PEER_BATCH} proteins a rank"
    return (
        Row(
            name="padding",
            what=f"arithmetic done and waited for; {ranks}",
            unit="x ideal",
            peer_name=peer,
            ratio_of="ours / ideal",
            at_most=True,
            goal=1.01,
        ),
        Row(
            name="padding",
            what=f"worst step, most to least loaded rank; {ranks}",
            unit="x",
            peer_name=peer,
            ratio_of="most / least",
            at_most=True,
            goal=1.03,
        ),
        Row(
            name="padding",
            what=f"worst step, real tokens; {ranks}",
            unit="x budget",
            peer_name="",
            ratio_of="tokens / budget",
            goal=0.97,
        ),
    )


PLANNED = tuple(row for cut in CUTS for row in _planned(cut))


def rows(options: Options) -> list[Row]:
    lengths_N = np.array([len(sequence) for sequence in sequences(options)])
    scale = f"{len(lengths_N)} {'real' if options.source else 'random'} lengths, {NUM_EPOCHS} epochs"
    found = []
    for name, cut in CUTS.items():
        num_tokens_N = (np.minimum(lengths_N, cut) if cut else lengths_N) + NUM_SPECIAL_TOKENS
        found += [
            replace(row, scale=scale, clock="counted, not timed") for row in _claims(name, num_tokens_N)
        ]
    return found


def _claims(cut: str, num_tokens_N: Integers) -> Iterator[Row]:
    ways = {
        "ours": ours(num_tokens_N, NUM_RANKS),
        "group_by_length": padded(num_tokens_N, NUM_RANKS, grouped_by_length),
        "batch_rebalance": padded(num_tokens_N, NUM_RANKS, rebalanced),
        "shuffled": padded(num_tokens_N, NUM_RANKS, shuffled),
        "pad to max": padded(num_tokens_N, NUM_RANKS, shuffled, int(num_tokens_N.max())),
    }
    plan, peers = ways["ours"], (ways["group_by_length"], ways["batch_rebalance"])
    filled = float(plan.tokens_S.min()) / (NUM_RANKS * RANK_TOKENS)
    figures = (
        (plan.paid, min(peer.paid for peer in peers)),
        (plan.spread, min(peer.spread for peer in peers)),
        (filled, None),
    )
    facts = {name: {"done": way.padded, "paid": way.paid, "spread": way.spread} for name, way in ways.items()}
    facts["ours, steps uneven by 3 %"] = {
        f"{ranks} ranks of {tokens}": ours(num_tokens_N, ranks, tokens).uneven
        for ranks, tokens in OTHER_SIZES
    }
    for row, (mine, of_peer) in zip(_planned(cut), figures, strict=True):
        yield row.measured(ours=mine, peer=of_peer, ratio=mine, samples={}, compared=(), facts=facts)


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

    @property
    def uneven(self) -> float:
        """Share of the steps in which the most loaded rank has over 3 % more than the least loaded."""
        return float((self.load_SW.max(axis=1) > 1.03 * self.load_SW.min(axis=1)).mean())


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
