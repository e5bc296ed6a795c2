"""Which proteins each rank reads in each optimizer step: a plan that every rank works out alone.

The plan is a pure function of (seed, epoch, lengths, number of ranks), so ranks never talk about it. The
global batch of a step does not depend on the number of ranks; only how it is dealt to them does.
Proteins are packed without padding, so batches need no like lengths to be fast and stay truly random;
the proteins of one rank are sorted by length, which puts equal ones side by side.

N proteins of a split.
"""

from __future__ import annotations

import heapq

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def fill_batches(order: Integers, num_tokens_N: Integers, budget: int) -> list[Integers]:
    """Cut an order of proteins into batches of at most `budget` tokens; a longer protein stands alone."""
    end_of = np.cumsum(num_tokens_N[order])
    batches, start = [], 0
    while start < len(order):
        used_before = int(end_of[start - 1]) if start else 0
        end = int(np.searchsorted(end_of, used_before + budget, side="right"))
        end = max(end, start + 1)
        batches.append(order[start:end])
        start = end
    return batches


def epoch_batches(num_tokens_N: Integers, budget: int, seed: int, epoch: int) -> list[Integers]:
    """One epoch's optimizer steps: every protein exactly once, in an order drawn from (seed, epoch)."""
    order = np.random.default_rng((seed, epoch)).permutation(len(num_tokens_N))
    return fill_batches(order, num_tokens_N, budget)


def count_steps(num_tokens_N: Integers, budget: int, seed: int, epochs: int) -> int:
    """Optimizer steps of a whole run; epochs differ by a few, since other proteins share batches."""
    return sum(len(epoch_batches(num_tokens_N, budget, seed, epoch)) for epoch in range(1, epochs + 1))


def work_of(num_tokens_N: Integers, hidden_size: int) -> Floats:
    """Relative work of each protein: linear layers grow with its length, attention with the square.

    Source: FLOPs of a BERT layer, 24 t d^2 + 4 t^2 d for t tokens of width d.
    """
    return num_tokens_N * (1 + num_tokens_N / (6 * hidden_size))


def deal(batch: Integers, work_N: Floats, world_size: int) -> list[Integers]:
    """Share one step's proteins among ranks so that all end together; a rank may get none.

    Longest first, each to the rank with the least work so far. Each share is sorted, longest first.
    """
    shares: list[list[int]] = [[] for _ in range(world_size)]
    load = [(0.0, rank) for rank in range(world_size)]
    for protein in batch[np.argsort(-work_N[batch], kind="stable")]:
        least, rank = heapq.heappop(load)
        shares[rank].append(int(protein))
        heapq.heappush(load, (least + float(work_N[protein]), rank))
    return [np.array(share, np.int64) for share in shares]
