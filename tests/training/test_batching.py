import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prottune.training.batching import count_steps, deal, epoch_batches, fill_batches, work_of

LENGTHS = np.random.default_rng(0).integers(10, 512, 300)


def test_batches_are_filled_greedily_and_a_long_protein_stands_alone() -> None:
    batches = fill_batches(np.arange(6), np.array([40, 60, 1, 500, 99, 1]), budget=100)
    assert [batch.tolist() for batch in batches] == [[0, 1], [2], [3], [4, 5]]


def test_the_order_depends_on_seed_and_epoch_and_comes_again() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        return np.concatenate(epoch_batches(LENGTHS, 4096, seed, epoch)).tolist()

    assert order(1, 1) == order(1, 1)
    assert order(1, 1) != order(1, 2)
    assert order(1, 1) != order(2, 1)
    assert order(1, 1) != list(range(300))


def test_num_steps_counts_the_batches_of_all_epochs() -> None:
    expected = len(epoch_batches(LENGTHS, 4096, 5, 1)) + len(epoch_batches(LENGTHS, 4096, 5, 2))
    assert count_steps(LENGTHS, 4096, 5, 2) == expected


@given(
    lengths=st.lists(st.integers(3, 2000), min_size=1, max_size=80),
    budget=st.integers(64, 4096),
    seed=st.integers(0, 2**31),
    world_size=st.integers(1, 7),
)
def test_every_protein_is_read_exactly_once_an_epoch_whatever_the_number_of_ranks(
    lengths: list[int], budget: int, seed: int, world_size: int
) -> None:
    num_tokens = np.array(lengths)
    work = work_of(num_tokens, 64)
    batches = epoch_batches(num_tokens, budget, seed, 1)
    read = [share.tolist() for batch in batches for share in deal(batch, work, world_size)]
    assert len(read) == len(batches) * world_size, "all ranks take all steps"
    assert sorted(protein for share in read for protein in share) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or num_tokens[batch].sum() <= budget


def test_work_is_dealt_evenly_and_the_longest_come_first() -> None:
    work = work_of(LENGTHS, 128)
    for batch in epoch_batches(LENGTHS, 8192, 3, 1)[:-1]:
        shares = deal(batch, work, 2)
        loads = [work[share].sum() for share in shares]
        assert max(loads) / np.mean(loads) < 1.05
        for share in shares:
            assert (np.diff(LENGTHS[share]) <= 0).all()


def test_a_rank_may_get_no_protein() -> None:
    shares = deal(np.array([4]), np.arange(1.0, 6.0), 3)
    assert [share.tolist() for share in shares] == [[4], [], []]


def test_attention_makes_twice_the_length_more_than_twice_the_work() -> None:
    assert work_of(np.array([768, 1536]), 128).tolist() == pytest.approx([768 * 2, 1536 * 3])
