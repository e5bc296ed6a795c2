"""Which proteins of an optimizer step each rank reads, and in how many passes: every rank works it out alone.

Ranks wait for each other at the end of every step, so a step is dealt until all have the same work. A rank's
share is cut into passes, each of which a process puts through the model at once.

N proteins of a split, W ranks.
"""

from __future__ import annotations

import functools
import heapq
import itertools
from dataclasses import dataclass

import numpy as np

from prottune.training.batching import Integers, compose_steps, work_of

_EVEN = 500
"""Shares are even when the largest has at most one part in so many more than the smallest."""
_NUM_SHORT = 8
"""Proteins of a share, its shortest, that may be exchanged."""
_MAX_EXCHANGES = 8
"""For each share that is dealt."""


@dataclass(frozen=True)
class Step:
    """One optimizer step."""

    proteins: Integers
    """The global batch, whatever the number of ranks."""
    passes: tuple[tuple[Integers, ...], ...]
    """For each rank, what it puts through the model one after the other; a rank may get nothing."""


def plan_epoch(
    num_tokens_N: Integers,
    *,
    tokens_per_batch: int,
    tokens_per_pass: int,
    seed: int,
    epoch: int,
    world_size: int,
    hidden_size: int,
) -> list[Step]:
    """One epoch's optimizer steps: every protein exactly once, in an order drawn from seed and epoch.

    Without a limit a pass is a rank's whole share; of a step that has outgrown the budget, a usual share.
    """
    work_N = work_of(num_tokens_N, hidden_size)
    steps = []
    for proteins in compose_steps(num_tokens_N, tokens_per_batch, seed, epoch):
        in_step = int(num_tokens_N[proteins].sum())
        usual = in_step if in_step <= tokens_per_batch else tokens_per_batch // world_size
        shares = deal(proteins, work_N, world_size)
        passes = (cut_into_passes(share, num_tokens_N, tokens_per_pass or usual) for share in shares)
        steps.append(Step(proteins, tuple(passes)))
    return steps


def deal(proteins: Integers, work_N: Integers, num_shares: int) -> list[Integers]:
    """Share proteins so that all shares have the same work, as near as may be; a share may stay empty.

    Longest first, each to the share with the least work so far; then exchanges between the largest and the
    smallest share, until they differ by 0.2 % or none helps. Each share is sorted, longest first.
    """
    shares = _share_out(_longest_first(proteins, work_N), work_N, num_shares)
    for _ in range(_MAX_EXCHANGES * num_shares):
        loads = [int(work_N[share].sum()) for share in shares]
        most, least = loads.index(max(loads)), loads.index(min(loads))
        if (loads[most] - loads[least]) * _EVEN <= loads[most]:
            break
        evened = _exchange(shares[most], shares[least], work_N)
        if evened is None:
            break
        shares[most], shares[least] = evened
    return shares


def cut_into_passes(share: Integers, num_tokens_N: Integers, limit: int) -> tuple[Integers, ...]:
    """Cut a rank's share into few passes of at most `limit` tokens each; a longer protein goes alone.

    Passes are of about equal size, since a small one leaves a GPU idle; each is sorted, longest first.
    """
    tokens_B = num_tokens_N[share]
    if tokens_B.sum() <= limit:
        return (share,) if len(share) else ()
    fits_B = tokens_B <= limit
    alone, others = share[~fits_B], share[fits_B]
    num_passes = -(-int(tokens_B[fits_B].sum()) // limit)
    while True:
        passes = deal(others, num_tokens_N, num_passes)
        if all(num_tokens_N[proteins].sum() <= limit for proteins in passes):
            return (*alone.reshape(-1, 1), *passes)
        num_passes += 1


def _share_out(proteins: Integers, work_N: Integers, num_shares: int) -> list[Integers]:
    """Give each protein in turn to the share with the least work so far."""
    shares: list[list[int]] = [[] for _ in range(num_shares)]
    loads = [(0, number) for number in range(num_shares)]
    for protein, work in zip(proteins.tolist(), work_N[proteins].tolist(), strict=True):
        least, number = loads[0]
        shares[number].append(protein)
        heapq.heapreplace(loads, (least + work, number))
    return [np.array(share, np.int64) for share in shares]


def _exchange(larger: Integers, smaller: Integers, work_N: Integers) -> tuple[Integers, Integers] | None:
    """Both shares after the best exchange of up to two proteins each; None if none evens them out."""
    gap = work_N[larger].sum() - work_N[smaller].sum()
    giving, taking = _short_pairs(len(larger)), _short_pairs(len(smaller))
    moved_G = np.append(work_N[larger], 0)[giving].sum(axis=1)
    moved_T = np.append(work_N[smaller], 0)[taking].sum(axis=1)
    gap_GT = abs(gap - 2 * (moved_G[:, None] - moved_T))
    best = np.unravel_index(gap_GT.argmin(), gap_GT.shape)
    if gap_GT[best] >= gap:
        return None
    given, taken = (pairs[row] for pairs, row in zip((giving, taking), best, strict=True))
    given, taken = given[given < len(larger)], taken[taken < len(smaller)]
    return (
        _longest_first(np.append(np.delete(larger, given), smaller[taken]), work_N),
        _longest_first(np.append(np.delete(smaller, taken), larger[given]), work_N),
    )


@functools.cache
def _short_pairs(num_proteins: int) -> Integers:
    """Places of each two of a share's shortest proteins; the place behind the last one stands for none."""
    places = [*range(max(0, num_proteins - _NUM_SHORT), num_proteins), num_proteins, num_proteins]
    return np.array([*itertools.combinations(places, 2)])


def _longest_first(proteins: Integers, work_N: Integers) -> Integers:
    return proteins[np.argsort(-work_N[proteins], kind="stable")]
