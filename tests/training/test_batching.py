import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prottune.training.batching import (
    MAX_BUDGETS,
    RANK_TOKENS,
    Integers,
    Step,
    compose_steps,
    count_steps,
    cut_into_passes,
    deal,
    fill_batches,
    plan_epoch,
    work_of,
)

WIDTH = 1024


def deeploc_like_lengths(num_proteins: int, longest: int) -> Integers:
    """Tokens of random proteins with DeepLoc's lengths (log-normal), cut to `longest` residues."""
    lengths = np.random.default_rng(43).lognormal(5.993, 0.762, num_proteins)
    return np.clip(lengths, 40, longest).astype(np.int64) + 2


WHOLE = deeploc_like_lengths(13_704, 6000)
LONGEST = 13_102
WITH_A_GIANT = np.append(WHOLE[:-1], LONGEST)
FEW = deeploc_like_lengths(300, 510)


def plan(
    num_tokens: Integers, budget: int, world_size: int = 1, limit: int = 0, epoch: int = 1
) -> list[Step]:
    return plan_epoch(
        num_tokens,
        tokens_per_batch=budget,
        tokens_per_pass=limit,
        seed=5,
        epoch=epoch,
        world_size=world_size,
        hidden_size=WIDTH,
    )


def read_by(passes: tuple[Integers, ...]) -> list[int]:
    return [protein for batch in passes for protein in batch.tolist()]


def unevenness(steps: list[Step], num_tokens: Integers) -> Integers:
    """Of each step: how much more work the most loaded rank has than the least loaded, as a share."""
    work = work_of(num_tokens, WIDTH)
    loads = [[work[read_by(passes)].sum() for passes in step.passes] for step in steps]
    return np.array([max(load) / min(load) - 1 for load in loads])


def test_attention_makes_twice_the_length_more_than_twice_the_work() -> None:
    assert work_of(np.array([768, 1536]), 128).tolist() == [768 * 1536, 1536 * 2304]


def test_the_order_depends_on_seed_and_epoch_and_comes_again() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        return np.concatenate(compose_steps(FEW, 4096, seed, epoch)).tolist()

    assert order(1, 1) == order(1, 1)
    assert order(1, 1) != order(1, 2)
    assert order(1, 1) != order(2, 1)
    assert order(1, 1) != list(range(300))


def test_steps_mix_lengths_at_random() -> None:
    """A step of 15 proteins drawn at random has the set's mean length but for 1 / sqrt(15) of its spread."""
    whole = WHOLE[WHOLE <= 2048]
    means = np.array([whole[proteins].mean() for proteins in compose_steps(whole, 8192, 1, 1)])
    counts = np.array([len(proteins) for proteins in compose_steps(whole, 8192, 1, 1)])
    expected = whole.std() / np.sqrt(counts.mean())
    assert means.std() == pytest.approx(expected, rel=0.15)
    first_half, second_half = np.array_split(means, 2)
    assert abs(first_half.mean() - second_half.mean()) < 3 * expected / np.sqrt(len(first_half))


@given(
    lengths=st.lists(st.integers(3, 2000), min_size=1, max_size=80),
    budget=st.integers(64, 4096),
    limit=st.one_of(st.just(0), st.integers(64, 4096)),
    seed=st.integers(0, 2**31),
    world_size=st.integers(1, 9),
)
def test_every_protein_is_read_exactly_once_an_epoch_in_the_same_steps_whatever_the_number_of_ranks(
    lengths: list[int], budget: int, limit: int, seed: int, world_size: int
) -> None:
    num_tokens = np.array(lengths)
    steps = plan_epoch(
        num_tokens,
        tokens_per_batch=budget,
        tokens_per_pass=limit,
        seed=seed,
        epoch=1,
        world_size=world_size,
        hidden_size=16,
    )
    alone = compose_steps(num_tokens, budget, seed, 1)
    assert [step.proteins.tolist() for step in steps] == [proteins.tolist() for proteins in alone]
    assert sorted(np.concatenate(alone).tolist()) == list(range(len(lengths)))
    for step in steps:
        assert len(step.passes) == world_size, "all ranks take all steps"
        assert sorted(protein for passes in step.passes for protein in read_by(passes)) == sorted(
            step.proteins.tolist()
        )
        assert len(step.proteins) == 1 or num_tokens[step.proteins].sum() <= budget
        for batch in (batch for passes in step.passes for batch in passes):
            assert len(batch) == 1 or num_tokens[batch].sum() <= (limit or budget)
            assert (np.diff(num_tokens[batch]) <= 0).all(), "longest first"


@given(
    lengths=st.lists(st.integers(3, 35_002), min_size=1, max_size=80),
    budget=st.integers(2, 8).map(lambda num_ranks: num_ranks * RANK_TOKENS),
    world_size=st.integers(1, 9),
)
def test_among_very_long_proteins_each_is_still_read_once_and_steps_and_passes_keep_their_bounds(
    lengths: list[int], budget: int, world_size: int
) -> None:
    num_tokens = np.array(lengths)
    steps = plan(num_tokens, budget, world_size)
    assert sorted(p for step in steps for passes in step.passes for p in read_by(passes)) == list(
        range(len(lengths))
    )
    for step in steps:
        assert num_tokens[step.proteins].sum() <= MAX_BUDGETS * budget + num_tokens.max()
        for batch in (batch for passes in step.passes for batch in passes):
            assert len(batch) == 1 or num_tokens[batch].sum() <= budget


@pytest.mark.parametrize("budget", [8192, 16_384, 131_072])
@pytest.mark.parametrize("longest", [510, 1022, 6000])
def test_steps_are_filled_to_97_percent(budget: int, longest: int) -> None:
    num_tokens = deeploc_like_lengths(13_704, longest)
    for epoch in (1, 2):
        filled = np.sort(
            [num_tokens[proteins].sum() / budget for proteins in compose_steps(num_tokens, budget, 3, epoch)]
        )
        assert filled[1] >= 0.97, "only one step may hold less: what the others leave"
        assert filled[-1] <= 1


def test_what_fits_into_one_step_is_one_step() -> None:
    assert len(compose_steps(np.array([50, 30, 20]), 100, 1, 1)) == 1
    assert len(compose_steps(np.array([50, 30, 21]), 100, 1, 1)) == 2


def test_a_protein_longer_than_the_budget_stands_alone() -> None:
    steps = compose_steps(np.append(FEW, 5000), 4096, 1, 1)
    assert [300] in [proteins.tolist() for proteins in steps]


def test_num_steps_counts_the_steps_of_all_epochs() -> None:
    expected = len(plan(FEW, 4096, epoch=1)) + len(plan(FEW, 4096, epoch=2))
    assert count_steps(FEW, 4096, 5, 2) == expected


@pytest.mark.parametrize("world_size", [2, 4, 8])
@pytest.mark.parametrize("longest", [1022, 6000])
def test_all_ranks_have_the_same_work_at_every_step(world_size: int, longest: int) -> None:
    num_tokens = deeploc_like_lengths(13_704, longest)
    steps = plan(num_tokens, world_size * RANK_TOKENS, world_size)
    assert unevenness(steps, num_tokens).max() <= 0.005


def test_two_processes_of_a_small_machine_have_the_same_work_within_3_percent() -> None:
    num_tokens = deeploc_like_lengths(13_704, 510)
    assert unevenness(plan(num_tokens, 8192, 2), num_tokens).max() <= 0.03


@pytest.mark.parametrize("world_size", [1, 2, 4, 8])
def test_a_step_grows_around_a_giant_until_all_ranks_have_as_much_work(world_size: int) -> None:
    budget = world_size * RANK_TOKENS
    steps = plan(WITH_A_GIANT, budget, world_size)
    assert unevenness(steps, WITH_A_GIANT).max() <= 0.005
    tokens = np.array([WITH_A_GIANT[step.proteins].sum() for step in steps])
    has_giant = np.array([len(WITH_A_GIANT) - 1 in step.proteins for step in steps])
    assert (tokens[~has_giant] <= budget).all()
    least, most = (1.3, 2.3) if world_size > 1 else (0.97, 1)
    assert least * budget <= tokens[has_giant] <= most * budget


def test_a_step_that_has_grown_goes_in_passes_of_a_usual_share() -> None:
    steps = plan(WITH_A_GIANT, 8 * RANK_TOKENS, world_size=8)
    grown = next(step for step in steps if len(WITH_A_GIANT) - 1 in step.proteins)
    tokens = [[int(WITH_A_GIANT[batch].sum()) for batch in passes] for passes in grown.passes]
    assert sorted(len(each) for each in tokens) == [1, *[3] * 7], "the giant's rank has one pass"
    assert max(max(each) for each in tokens) <= RANK_TOKENS


def test_a_giant_grows_no_step_beyond_four_budgets_and_not_where_one_rank_is_enough() -> None:
    titin = np.append(WHOLE, 34_352)
    for budget, most in ((4 * RANK_TOKENS, MAX_BUDGETS * 4 * RANK_TOKENS), (RANK_TOKENS, 34_352)):
        tokens = max(int(titin[step.proteins].sum()) for step in plan(titin, budget))
        assert most <= tokens <= most + 6000


def test_each_share_is_sorted_and_a_rank_may_get_no_protein() -> None:
    shares = deal(np.array([4, 2]), np.arange(1, 6), 3)
    assert [share.tolist() for share in shares] == [[4], [2], []]
    assert [share.tolist() for share in deal(np.array([1, 4, 2, 0]), np.arange(1, 6), 1)] == [[4, 2, 1, 0]]


def test_exchanges_even_out_what_longest_first_leaves_uneven() -> None:
    work = np.array([8, 7, 6, 5, 4])  # longest first: 8 + 5 + 4 = 17 against 7 + 6 = 13
    assert sorted(work[share].sum() for share in deal(np.arange(5), work, 2)) == [15, 15]


def test_a_share_is_cut_into_as_few_passes_as_fit_of_about_equal_size() -> None:
    num_tokens = np.full(17, 1000)
    passes = cut_into_passes(np.arange(17), num_tokens, 16_000)
    assert [len(batch) for batch in passes] == [9, 8]
    assert len(cut_into_passes(np.arange(17), num_tokens, 17_000)) == 1
    assert cut_into_passes(np.arange(0), num_tokens, 100) == ()
    three = cut_into_passes(np.arange(5), np.array([60, 60, 60, 40, 40]), 100)
    assert sorted(batch.tolist() for batch in three) in ([[0, 3], [1, 4], [2]], [[0, 4], [1, 3], [2]])


def test_in_passes_a_longer_protein_goes_alone() -> None:
    passes = cut_into_passes(np.arange(4), np.array([500, 60, 40, 30]), 100)
    assert [batch.tolist() for batch in passes] == [[0], [1], [2, 3]]


def test_batches_are_filled_greedily_and_a_long_protein_stands_alone() -> None:
    batches = fill_batches(np.arange(6), np.array([40, 60, 1, 500, 99, 1]), budget=100)
    assert [batch.tolist() for batch in batches] == [[0, 1], [2], [3], [4, 5]]
