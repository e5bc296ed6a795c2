"""Which proteins each rank reads in each optimizer step: the plan of an epoch, which every rank makes alone.

First the steps are composed: which proteins make up each global batch. That knows nothing of ranks, so one
process and eight take the same steps. Then each step is dealt to the ranks so that all end together, and a
rank's share is cut into passes, what a process puts through the model at a time. Nothing is padded, so a
batch needs no like lengths to be fast, and its proteins are drawn at random. Whatever decides is a whole
number, so that unlike machines make the same plan.

N proteins of a split.
"""

from __future__ import annotations

import heapq
import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]

RANK_TOKENS = 16_384
"""Tokens that keep a GPU busy; for each so many in the budget, one rank is to get an even share of a step."""
MAX_BUDGETS = 4
"""A step that grows around a very long protein, so that no rank waits for it, takes at most so many."""

_FULL, _BRIM = 0.98, 0.995
"""Least and most of the budget that steps are planned to fill; in between, all of an epoch are alike."""
_COMPOSED_FOR = 1024
"""Width of ProtBERT. Steps are composed for it, so that they do not depend on the model; dealing is exact."""
_LOOK_BEHIND, _LOOK_AHEAD = 16, 128
"""How far from the end of a step two proteins may be to change places, one inside and one behind it."""
_NEAR = 0.99
"""A step is full when it reaches so much of its aim."""
_MAX_EXCHANGES = 8
"""Tries to fill a step; and to even out its shares, for each of them."""
_NUM_SHORT = 8
"""Proteins of a rank's share, its shortest, that may be exchanged for those of another."""
_EVEN = 500
"""A step is dealt evenly when the most loaded rank has at most one in so many more than the least."""


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


def count_steps(num_tokens_N: Integers, budget: int, seed: int, epochs: int) -> int:
    """Optimizer steps of a whole run; epochs may differ by one, since other proteins share steps."""
    return sum(len(compose_steps(num_tokens_N, budget, seed, epoch)) for epoch in range(1, epochs + 1))


def work_of(num_tokens_N: Integers, hidden_size: int) -> Integers:
    """Relative work of each protein: linear layers grow with its length, attention with the square.

    Source: FLOPs of a BERT layer, 24 t d^2 + 4 t^2 d for t tokens of width d, divided by 4 d.
    """
    return num_tokens_N * (6 * hidden_size + num_tokens_N)


def compose_steps(num_tokens_N: Integers, budget: int, seed: int, epoch: int) -> list[Integers]:
    """Draw the proteins of each optimizer step, at most `budget` tokens where proteins allow."""
    generator = np.random.default_rng((seed, epoch))
    order = generator.permutation(len(num_tokens_N))
    heavy_steps, others = _steps_around_heavy_proteins(order, num_tokens_N, budget)
    steps = heavy_steps + _Line(others, num_tokens_N).cut_into_steps(budget)
    return [steps[number] for number in generator.permutation(len(steps))]


def _steps_around_heavy_proteins(
    order: Integers, num_tokens_N: Integers, budget: int
) -> tuple[list[Integers], Integers]:
    """Steps for proteins that fit into no usual one, and the order of all proteins that these leave over.

    A budget for several ranks is outgrown by a protein with more work than the share of one: its step takes
    in others until the shares can be even. A budget for one rank is outgrown by a protein with more tokens,
    and that one stands alone.
    """
    num_ranks = max(1, budget // RANK_TOKENS)
    work_N = work_of(num_tokens_N, _COMPOSED_FOR)
    share = int(work_N.sum()) * budget // (int(num_tokens_N.sum()) * num_ranks)
    is_heavy_N = num_tokens_N > budget
    if num_ranks > 1:
        is_heavy_N |= 10 * work_N > 9 * share  # a tenth of room: a usual step may be lighter than the mean
    heavy, others = order[is_heavy_N[order]], order[~is_heavy_N[order]]
    heavy = heavy[np.argsort(-num_tokens_N[heavy], kind="stable")]
    steps = []
    for first in range(0, len(heavy), num_ranks):
        group = heavy[first : first + num_ranks]
        tokens_in_group = num_tokens_N[group].sum()
        wanted_work = num_ranks * work_N[group[0]] - work_N[group].sum()
        end = max(
            _num_to_reach(budget - tokens_in_group, num_tokens_N[others]),
            _num_to_reach(wanted_work, work_N[others]),
        )
        end = min(end, _num_to_reach(MAX_BUDGETS * budget - tokens_in_group, num_tokens_N[others]))
        steps.append(np.concatenate((group, others[:end])))
        others = others[end:]
    return steps, others


def _num_to_reach(wanted: int, amounts: Integers) -> int:
    """How many, from the first on, add up to what is wanted or just above; all of them if too few."""
    return min(len(amounts), int(np.searchsorted(np.concatenate(([0], np.cumsum(amounts))), wanted)))


class _Line:
    """Proteins in a row that is cut into steps from the front; near a cut some change places to fill it."""

    def __init__(self, order: Integers, num_tokens_N: Integers) -> None:
        self._order = order.copy()
        self._tokens = num_tokens_N[order]
        self._ends = np.cumsum(self._tokens)
        """Tokens up to and with each protein of the row."""

    def cut_into_steps(self, budget: int) -> list[Integers]:
        """Cut the row into steps that are filled alike; only the last takes what the others leave."""
        steps: list[Integers] = []
        start = 0
        num_steps = -(-int(self._tokens.sum()) // int(_BRIM * budget))
        while start < len(self._order):
            end = self._end_of_step(start, budget, num_steps - len(steps))
            steps.append(self._order[start:end])
            start = end
        return steps

    def _end_of_step(self, start: int, budget: int, num_left: int) -> int:
        before = int(self._ends[start - 1]) if start else 0
        left = int(self._ends[-1]) - before
        if left <= budget:
            return len(self._order)
        target = min(max(left // max(num_left, 1), int(_FULL * budget)), budget)
        for _ in range(_MAX_EXCHANGES):
            end = 1 + int(np.searchsorted(self._ends, before + target))  # the first not below the target
            self._exchange_one(start, end, before + target, before + budget)
            used = int(self._ends[end - 1]) - before
            if _NEAR * target <= used <= budget:
                return end
        return max(start + 1, int(np.searchsorted(self._ends, before + budget, side="right")))

    def _exchange_one(self, start: int, end: int, target: int, most: int) -> None:
        """Let a protein of the step change places with one behind, if that ends it nearer to the target."""
        first = max(start, end - _LOOK_BEHIND)
        inside_I, behind_J = self._tokens[first:end], self._tokens[end : end + _LOOK_AHEAD]

        def miss(ends: Integers) -> Integers:
            return np.where(ends <= most, abs(ends - target), most)

        now = self._ends[end - 1]
        miss_IJ = miss(now - inside_I[:, None] + behind_J)
        if not miss_IJ.size or miss_IJ.min() >= miss(now):
            return
        inside, behind = np.unravel_index(miss_IJ.argmin(), miss_IJ.shape)
        pair = [first + inside, end + behind]
        self._ends[slice(*pair)] += self._tokens[pair[1]] - self._tokens[pair[0]]
        self._order[pair], self._tokens[pair] = self._order[pair[::-1]], self._tokens[pair[::-1]]


def deal(proteins: Integers, work_N: Integers, num_shares: int) -> list[Integers]:
    """Share a step's proteins among ranks so that all have as much work; a rank may get none.

    Longest first, each to the rank with the least work so far; then exchanges, until no rank has 0.2 % more
    than another or no exchange helps. Each share is sorted, longest first.
    """
    proteins = proteins[np.argsort(-work_N[proteins], kind="stable")]
    work_B = work_N[proteins]
    share_B = np.zeros(len(proteins), np.int64)
    loads = [(0, share) for share in range(num_shares)]
    for place, work in enumerate(work_B.tolist()):
        load, share_B[place] = loads[0]
        heapq.heapreplace(loads, (load + work, int(share_B[place])))
    for _ in range(_MAX_EXCHANGES * num_shares):
        if not _even_out(share_B, work_B, num_shares):
            break
    return [proteins[share_B == share] for share in range(num_shares)]


def _even_out(share_B: Integers, work_B: Integers, num_shares: int) -> bool:
    """Let the most and the least loaded rank exchange up to two proteins each; False if nothing helps."""
    load_W = np.bincount(share_B, work_B, num_shares).astype(np.int64)  # in float64, exact: far below 2**53
    most, least = int(load_W.argmax()), int(load_W.argmin())
    gap = load_W[most] - load_W[least]
    if gap * _EVEN <= load_W[most]:
        return False
    given, taken = _pairs_of_short(share_B == most), _pairs_of_short(share_B == least)
    work_B = np.append(work_B, 0)
    new_gap = abs(gap - 2 * (work_B[given].sum(axis=0)[:, None] - work_B[taken].sum(axis=0)))
    give, take = np.unravel_index(new_gap.argmin(), new_gap.shape)
    if new_gap[give, take] >= gap:
        return False
    for pair, share in ((given[:, give], least), (taken[:, take], most)):
        share_B[pair[pair < len(share_B)]] = share
    return True


def _pairs_of_short(is_in_share_B: npt.NDArray[np.bool_]) -> Integers:
    """Places of all pairs [2, number of pairs] of a share's shortest proteins; B stands for no protein."""
    nobody = len(is_in_share_B)
    places = np.append(np.flatnonzero(is_in_share_B)[-_NUM_SHORT:], [nobody, nobody])
    return np.array([*itertools.combinations(places.tolist(), 2)]).T


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
