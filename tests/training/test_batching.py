import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prottune.training.batching import (
    MAX_BUDGETS,
    RANK_TOKENS,
    compose_steps,
    count_steps,
    fill_batches,
    work_of,
)
from tests.training.lengths import GIANT, deeploc_like_lengths

FEW = deeploc_like_lengths(300, longest=510)


def test_attention_makes_twice_the_length_more_than_twice_the_work() -> None:
    assert work_of(np.array([768, 1536]), 128).tolist() == [768 * 1536, 1536 * 2304]


def test_the_order_depends_on_seed_and_epoch_and_comes_again() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        return np.concatenate(compose_steps(FEW, 4096, seed, epoch)).tolist()

    assert order(1, 1) == order(1, 1)
    assert order(1, 1) != order(1, 2)
    assert order(1, 1) != order(2, 1)
    assert order(1, 1) != list(range(300))


def test_steps_mix_lengths_as_chance_would() -> None:
    """The mean length in steps of n proteins varies by 1 / sqrt(n) of the spread of all lengths."""
    num_tokens = deeploc_like_lengths(longest=2046)
    steps = compose_steps(num_tokens, 8192, 1, 1)
    means = np.array([num_tokens[proteins].mean() for proteins in steps])
    by_chance = num_tokens.std() / np.sqrt(len(num_tokens) / len(steps))
    assert means.std() == pytest.approx(by_chance, rel=0.15)
    early, late = np.array_split(means, 2)
    assert abs(early.mean() - late.mean()) < 3 * by_chance / np.sqrt(len(early))


@given(
    lengths=st.lists(st.integers(3, 2000), min_size=1, max_size=80),
    budget=st.integers(64, 4096),
    seed=st.integers(0, 2**31),
)
def test_every_protein_is_in_exactly_one_step_and_steps_keep_to_the_budget(
    lengths: list[int], budget: int, seed: int
) -> None:
    num_tokens = np.array(lengths)
    steps = compose_steps(num_tokens, budget, seed, 1)
    assert sorted(np.concatenate(steps).tolist()) == list(range(len(lengths)))
    assert all(0 < num_tokens[proteins].sum() <= budget or len(proteins) == 1 for proteins in steps)
    assert count_steps(num_tokens, budget, 3) == 3 * len(steps)


@given(
    lengths=st.lists(st.integers(3, 35_002), min_size=1, max_size=80),
    budget=st.integers(2, 8).map(lambda num_ranks: num_ranks * RANK_TOKENS),
)
def test_among_very_long_proteins_steps_grow_to_four_budgets_at_most(lengths: list[int], budget: int) -> None:
    num_tokens = np.array(lengths)
    steps = compose_steps(num_tokens, budget, 1, 1)
    assert sorted(np.concatenate(steps).tolist()) == list(range(len(lengths)))
    assert all(0 < num_tokens[proteins].sum() <= MAX_BUDGETS * budget for proteins in steps)
    assert count_steps(num_tokens, budget, 1) == len(steps)


@pytest.mark.parametrize("budget", [8192, 16_384, 131_072])
@pytest.mark.parametrize("longest", [510, 1022, 6000])
def test_every_step_is_filled_to_97_percent(budget: int, longest: int) -> None:
    num_tokens = deeploc_like_lengths(longest=longest)
    for epoch in (1, 2):
        steps = compose_steps(num_tokens, budget, 3, epoch)
        filled = [num_tokens[proteins].sum() / budget for proteins in steps]
        assert 0.97 <= min(filled) <= max(filled) <= 1


def test_every_epoch_has_as_many_steps_though_they_hold_four_proteins_each() -> None:
    num_tokens = deeploc_like_lengths(2000, longest=1022)
    counts = {len(compose_steps(num_tokens, 2048, 3, epoch)) for epoch in range(1, 9)}
    assert counts == {count_steps(num_tokens, 2048, 1)}


def test_what_fits_into_one_step_is_one_step() -> None:
    assert len(compose_steps(np.array([50, 30, 20]), 100, 1, 1)) == 1
    assert len(compose_steps(np.array([50, 30, 21]), 100, 1, 1)) == 2


def test_awkward_lengths_take_as_few_steps_as_fit() -> None:
    in_pairs = compose_steps(np.array([60, 40] * 20), 100, 1, 1)
    assert sorted(map(len, in_pairs)) in ([1, 1, *[2] * 19], [2] * 20)
    assert [len(proteins) for proteins in compose_steps(np.array([60] * 20), 100, 1, 1)] == [1] * 20


def test_a_protein_longer_than_the_budget_stands_alone() -> None:
    steps = compose_steps(np.append(FEW, 5000), 4096, 1, 1)
    assert [300] in [proteins.tolist() for proteins in steps]


@pytest.mark.parametrize(("num_ranks", "least", "most"), [(2, 1.3, 1.7), (4, 1.6, 2.2), (8, 1.8, 2.4)])
def test_a_step_grows_until_the_work_of_a_giant_is_an_even_share_of_it(
    num_ranks: int, least: float, most: float
) -> None:
    num_tokens, budget = np.append(deeploc_like_lengths(), GIANT), num_ranks * RANK_TOKENS
    work = work_of(num_tokens, 1024)
    for epoch in (1, 2, 3):
        steps = compose_steps(num_tokens, budget, 1, epoch)
        grown = next(proteins for proteins in steps if len(num_tokens) - 1 in proteins)
        assert num_ranks * work[-1] <= work[grown].sum()
        assert least * budget <= num_tokens[grown].sum() <= most * budget
        assert all(num_tokens[proteins].sum() <= budget for proteins in steps if proteins is not grown)


def test_no_step_grows_beyond_four_budgets_or_where_one_rank_is_enough() -> None:
    titin = np.append(deeploc_like_lengths(), 34_352)
    for budget, most in ((4 * RANK_TOKENS, 16 * RANK_TOKENS), (RANK_TOKENS, 34_352)):
        tokens = max(int(titin[proteins].sum()) for proteins in compose_steps(titin, budget, 1, 1))
        assert 0.97 * most <= tokens <= most


def test_batches_are_filled_greedily_and_a_long_protein_stands_alone() -> None:
    batches = fill_batches(np.arange(6), np.array([40, 60, 1, 500, 99, 1]), budget=100)
    assert [batch.tolist() for batch in batches] == [[0, 1], [2], [3], [4, 5]]
