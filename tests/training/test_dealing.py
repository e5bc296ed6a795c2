import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prottune.training.batching import RANK_TOKENS, Integers, compose_steps, work_of
from prottune.training.dealing import Step, cut_into_passes, deal, plan_epoch
from tests.training.lengths import GIANT, deeploc_like_lengths

WIDTH = 1024


def plan(num_tokens: Integers, budget: int, world_size: int, limit: int = 0) -> list[Step]:
    return plan_epoch(
        num_tokens,
        tokens_per_batch=budget,
        tokens_per_pass=limit,
        seed=5,
        epoch=1,
        world_size=world_size,
        hidden_size=WIDTH,
    )


def unevenness(steps: list[Step], num_tokens: Integers) -> Integers:
    """Of each step: how much more work the most loaded rank has than the least loaded, as a share."""
    work = work_of(num_tokens, WIDTH)
    loads = [[sum(work[batch].sum() for batch in passes) for passes in step.passes] for step in steps]
    return np.array([max(load) / min(load) - 1 for load in loads])


@given(
    lengths=st.lists(st.integers(3, 2000), min_size=1, max_size=80),
    budget=st.integers(64, 4096),
    limit=st.one_of(st.just(0), st.integers(64, 4096)),
    world_size=st.integers(1, 9),
)
def test_every_protein_is_read_exactly_once_an_epoch_in_the_same_steps_whatever_the_number_of_ranks(
    lengths: list[int], budget: int, limit: int, world_size: int
) -> None:
    num_tokens = np.array(lengths)
    steps = plan(num_tokens, budget, world_size, limit)
    alone = compose_steps(num_tokens, budget, 5, 1)
    assert [step.proteins.tolist() for step in steps] == [proteins.tolist() for proteins in alone]
    for step in steps:
        assert len(step.passes) == world_size, "all ranks take all steps"
        batches = [batch for passes in step.passes for batch in passes]
        assert sorted(np.concatenate(batches).tolist()) == sorted(step.proteins.tolist())
        for batch in batches:
            assert len(batch) == 1 or 0 < num_tokens[batch].sum() <= (limit or budget)
            assert (np.diff(num_tokens[batch]) <= 0).all(), "longest first"
        if not limit:
            assert max(map(len, step.passes)) == 1


@pytest.mark.parametrize("world_size", [2, 4, 8])
@pytest.mark.parametrize("longest", [1022, 6000])
def test_all_ranks_have_the_same_work_at_every_step(world_size: int, longest: int) -> None:
    num_tokens = deeploc_like_lengths(longest=longest)
    assert unevenness(plan(num_tokens, world_size * RANK_TOKENS, world_size), num_tokens).max() <= 0.005


def test_two_processes_of_a_small_machine_have_the_same_work_within_3_percent() -> None:
    num_tokens = deeploc_like_lengths(longest=510)
    assert unevenness(plan(num_tokens, 8192, 2), num_tokens).max() <= 0.03


@pytest.mark.parametrize("world_size", [2, 4, 8])
def test_beside_a_giant_all_other_ranks_have_as_much_work(world_size: int) -> None:
    num_tokens = np.append(deeploc_like_lengths(), GIANT)
    steps = plan(num_tokens, world_size * RANK_TOKENS, world_size)
    assert unevenness(steps, num_tokens).max() <= 0.005


def test_a_step_that_has_outgrown_the_budget_goes_in_passes_of_a_usual_share() -> None:
    num_tokens = np.append(deeploc_like_lengths(), GIANT)
    steps = plan(num_tokens, 8 * RANK_TOKENS, world_size=8)
    grown = next(step for step in steps if len(num_tokens) - 1 in step.proteins)
    tokens = [[int(num_tokens[batch].sum()) for batch in passes] for passes in grown.passes]
    assert sorted(len(each) for each in tokens) == [1, *[3] * 7], "the giant's rank has one pass"
    assert max(max(each) for each in tokens) <= RANK_TOKENS


def test_shares_are_sorted_and_one_may_stay_empty() -> None:
    assert [share.tolist() for share in deal(np.array([4, 2]), np.arange(1, 6), 3)] == [[4], [2], []]
    assert [share.tolist() for share in deal(np.array([1, 4, 2, 0]), np.arange(1, 6), 1)] == [[4, 2, 1, 0]]


def test_exchanges_even_out_what_longest_first_leaves_uneven() -> None:
    work = np.array([8, 7, 6, 5, 4])  # longest first: 8 + 5 + 4 = 17 against 7 + 6 = 13
    assert [work[share].sum() for share in deal(np.arange(5), work, 2)] == [15, 15]


def test_a_share_is_cut_into_as_few_passes_as_fit_of_about_equal_size() -> None:
    num_tokens = np.full(17, 1000)
    assert [len(batch) for batch in cut_into_passes(np.arange(17), num_tokens, 16_000)] == [9, 8]
    assert [len(batch) for batch in cut_into_passes(np.arange(17), num_tokens, 17_000)] == [17]
    assert cut_into_passes(np.arange(0), num_tokens, 100) == ()
    unlike = np.array([60, 60, 60, 40, 40])
    assert sorted(unlike[batch].sum() for batch in cut_into_passes(np.arange(5), unlike, 100)) == [
        60,
        100,
        100,
    ]


def test_in_passes_a_longer_protein_goes_alone() -> None:
    passes = cut_into_passes(np.arange(4), np.array([500, 60, 40, 30]), 100)
    assert [batch.tolist() for batch in passes] == [[0], [1], [2, 3]]
