"""Which proteins make up each optimizer step: the global batches of an epoch, drawn from seed and epoch.

Nothing here knows of ranks, so one process and eight take the same steps (who reads what of a step: see
`dealing`), and every epoch has as many. Nothing is padded, so a batch needs no like lengths to be fast, and
its proteins are drawn at random. What decides is a whole number, so that unlike machines draw the same.

N proteins of a split.
"""

from __future__ import annotations

import bisect
import itertools

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]

RANK_TOKENS = 16_384
"""Tokens that keep a GPU busy; for each so many in the budget, one rank is to get an even share of a step."""
MAX_BUDGETS = 4
"""A step that grows around a very long protein, so that no rank waits for it, takes at most so many."""

_FULL = 0.97
"""Share of the budget that fills a step."""
_LEAST_AIM, _MOST_AIM = 0.972, 0.99
"""Shares of the budget that steps aim at; in between, all steps of an epoch are alike."""
_NEAR = 0.995
"""A step is full when it holds so much of its aim, and of the budget _FULL."""
_LOOK_BEHIND, _LOOK_AHEAD = 16, 128
"""How far from the end of a step two proteins may be to change places, one inside and one behind it."""
_MAX_EXCHANGES = 8
_MAX_DRAWS = 8
_WIDTH = 1024
"""ProtBERT's. Steps are composed for it, so that they do not depend on the model; dealing knows its width."""


def count_steps(num_tokens_N: Integers, budget: int, epochs: int) -> int:
    """Optimizer steps of a whole run: every epoch has as many."""
    heavy, others = _heavy_and_others(num_tokens_N, budget)
    return epochs * (len(heavy) + _num_usual_steps(heavy, num_tokens_N[others], budget))


def compose_steps(num_tokens_N: Integers, budget: int, seed: int, epoch: int) -> list[Integers]:
    """Draw the proteins of each optimizer step: every protein once, at most `budget` tokens a step.

    More tokens has only a step with a protein that outgrows a usual one: see `_heavy_and_others`.
    """
    generator = np.random.default_rng((seed, epoch))
    heavy, others = _heavy_and_others(num_tokens_N, budget)
    num_usual = _num_usual_steps(heavy, num_tokens_N[others], budget)
    for _ in range(_MAX_DRAWS):
        line = generator.permutation(others)
        grown, line = _take_in(heavy, line, num_tokens_N)
        usual = _Line(line, num_tokens_N).cut_into_steps(num_usual, budget)
        if all(0 < num_tokens_N[proteins].sum() <= budget for proteins in usual):
            break
    else:  # few proteins or awkward lengths: no order fits into so many steps
        usual = _join_or_halve(_best_fit(line, num_tokens_N, budget), num_usual)
    steps = grown + usual
    return [steps[number] for number in generator.permutation(len(steps))]


def work_of(num_tokens_N: Integers, hidden_size: int) -> Integers:
    """Relative work of each protein: linear layers grow with its length, attention with the square.

    Source: FLOPs of a BERT layer, 24 t d^2 + 4 t^2 d for t tokens of width d, divided by 4 d.
    """
    return num_tokens_N * (6 * hidden_size + num_tokens_N)


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


def _heavy_and_others(num_tokens_N: Integers, budget: int) -> tuple[list[tuple[Integers, int]], Integers]:
    """Find the proteins that outgrow a usual step, with the tokens of others to add to them, and the others.

    A budget for one rank is outgrown by more tokens; such a protein stands alone. A budget for several is
    outgrown by more work than an even share: its step takes in others until the shares can be even.
    """
    num_ranks = max(1, budget // RANK_TOKENS)
    work_N = work_of(num_tokens_N, _WIDTH)
    work, tokens = int(work_N.sum()), int(num_tokens_N.sum())
    is_heavy_N = num_tokens_N > budget
    if num_ranks > 1:  # with a tenth to spare, since a step may be lighter than the mean
        is_heavy_N |= 10 * num_ranks * work_N > 9 * (work * budget // tokens)
    heavy, others = np.flatnonzero(is_heavy_N), np.flatnonzero(~is_heavy_N)
    heavy = heavy[np.argsort(-num_tokens_N[heavy], kind="stable")]
    found = []
    for group in (heavy[first : first + num_ranks] for first in range(0, len(heavy), num_ranks)):
        tokens_in = int(num_tokens_N[group].sum())
        missing = num_ranks * int(work_N[group[0]]) - int(work_N[group].sum())
        wanted = max(budget, tokens_in + 11 * missing * tokens // (10 * work))  # again a tenth to spare
        found.append((group, max(0, min(wanted, MAX_BUDGETS * budget) - tokens_in)))
    if 2 * sum(room for _, room in found) > num_tokens_N[others].sum():
        found = [(group, 0) for group, _ in found]  # too few others to take in
    return found, others


def _take_in(
    heavy: list[tuple[Integers, int]], line: Integers, num_tokens_N: Integers
) -> tuple[list[Integers], Integers]:
    """The steps of the heavy proteins with those of the line that they take in, and the rest of the line."""
    steps = []
    for group, room in heavy:
        end = int(np.searchsorted(np.cumsum(num_tokens_N[line]), room, side="right"))
        steps.append(np.concatenate((group, line[:end])))
        line = line[end:]
    return steps, line


def _num_usual_steps(heavy: list[tuple[Integers, int]], tokens_N: Integers, budget: int) -> int:
    """How many steps the others need, of these lengths, less what heavy proteins take in; of no order."""
    taken = sum(room for _, room in heavy)
    left = int(tokens_N.sum()) - taken
    if left <= budget:
        return min(left, 1)
    # The fewer proteins a step holds, the harder it is to fill: a sixteenth of a protein is left for that.
    num_aimed = -(-left // (int(_MOST_AIM * budget) - int(tokens_N.sum()) // (16 * len(tokens_N))))
    num_fitting = len(_best_fit(np.arange(len(tokens_N)), tokens_N, budget)) - taken // budget
    return max(min(num_aimed, len(tokens_N)), num_fitting)


def _best_fit(proteins: Integers, num_tokens_N: Integers, budget: int) -> list[Integers]:
    """Pack proteins into few steps: the longest first, each into the fullest step with room for it."""
    proteins = proteins[np.argsort(-num_tokens_N[proteins], kind="stable")]
    steps: list[list[int]] = []
    rooms: list[tuple[int, int]] = []
    """Of each step, in order: tokens that still fit, and its number."""
    for protein, tokens in zip(proteins.tolist(), num_tokens_N[proteins].tolist(), strict=True):
        place = bisect.bisect_left(rooms, (tokens, 0))
        if place == len(rooms):
            rooms.append((budget, len(steps)))
            steps.append([])
        room, step = rooms.pop(place)
        steps[step].append(protein)
        bisect.insort(rooms, (room - tokens, step))
    return [np.array(step) for step in steps]


def _join_or_halve(steps: list[Integers], num_steps: int) -> list[Integers]:
    """Join the steps with the fewest proteins, or cut those with the most in two, until there are so many."""
    while len(steps) != num_steps:
        steps = sorted(steps, key=len)
        if len(steps) > num_steps:
            steps = [np.concatenate(steps[:2]), *steps[2:]]
        else:
            steps = [*steps[:-1], steps[-1][::2], steps[-1][1::2]]
    return steps


class _Line:
    """Proteins in a row that is cut into steps from the front; near a cut some change places to fill it."""

    def __init__(self, order: Integers, num_tokens_N: Integers) -> None:
        self._order = order.copy()
        self._tokens = num_tokens_N[order]
        self._ends = np.cumsum(self._tokens)
        """Tokens up to and with each protein of the row."""

    def cut_into_steps(self, num_steps: int, budget: int) -> list[Integers]:
        """Cut the row into so many steps, filled alike as far as may be; the last takes what is left."""
        cuts = [0]
        for number in range(1, num_steps):
            cuts.append(self._end_of_step(cuts[-1], num_steps - number + 1, budget))
        return [self._order[start:end] for start, end in itertools.pairwise([*cuts, len(self._order)])]

    def _end_of_step(self, start: int, num_left: int, budget: int) -> int:
        before = int(self._ends[start - 1]) if start else 0
        even = (int(self._ends[-1]) - before) // num_left
        target = min(max(even, int(_LEAST_AIM * budget)), budget)
        for _ in range(_MAX_EXCHANGES):
            end = 1 + int(np.searchsorted(self._ends, before + target))  # the first not below the target
            if end > len(self._ends):
                return len(self._ends)
            self._exchange_one(start, end, before + target, before + budget)
            used = int(self._ends[end - 1]) - before
            if max(_FULL * budget, _NEAR * target) <= used <= budget:
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
