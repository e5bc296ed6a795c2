"""What clients see of the batcher, on a real event loop with a model that answers when it is let go."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import pytest
from letters import HeldPredictor, LettersPredictor

from prottune.serving.batcher import Batcher, Overloaded, Speed, TooLate, TooMuch
from prottune.serving.settings import ServeConfig


def batcher(model: LettersPredictor, tokens: int = 20, **settings: Any) -> Batcher:
    return Batcher(model.predict, ServeConfig(**settings), tokens_per_batch=tokens)


async def arrived(*questions: Any) -> list[asyncio.Task[Any]]:
    """Start to ask, and come back when all stand in the line."""
    tasks = [asyncio.ensure_future(question) for question in questions]
    await asyncio.sleep(0)
    return tasks


def test_answers_come_in_the_order_of_the_sequences() -> None:
    async def story() -> None:
        answers = await batcher(LettersPredictor()).ask(["SSSS", "K", "LL", "K"])
        assert [answer.num_residues for answer in answers] == [4, 1, 2, 1]
        assert answers[1].location == answers[3].location == "Nucleus"
        assert await batcher(LettersPredictor()).ask([]) == []

    asyncio.run(story())


def test_what_arrives_while_the_model_computes_is_the_next_batch() -> None:
    async def story() -> None:
        model = HeldPredictor()
        ours = batcher(model)
        (first,) = await arrived(ours.ask(["K"]))
        await model.begun()
        others = await arrived(ours.ask(["LLL"]), ours.ask(["SS", "KKKK"]))
        model.let_go(2)
        assert [len(answers) for answers in await asyncio.gather(first, *others)] == [1, 1, 2]
        assert model.asked == [["K"], ["SS", "LLL", "KKKK"]]

    asyncio.run(story())


def test_a_batch_keeps_the_budget_but_for_one_long_sequence() -> None:
    async def story() -> None:
        model = LettersPredictor()
        await batcher(model, tokens=20).ask(["L" * 30, "K" * 8, "S" * 8, "K" * 9])
        assert model.asked == [["K" * 8, "S" * 8], ["K" * 9], ["L" * 30]]

    asyncio.run(story())


def test_identical_sequences_in_flight_are_computed_once_for_all_clients() -> None:
    async def story() -> None:
        model = HeldPredictor()
        ours = batcher(model)
        (first,) = await arrived(ours.ask(["K"]))
        await model.begun()
        others = await arrived(ours.ask(["K", "LL"]), ours.ask(["LL", "LL"]), ours.ask(["K"]))
        model.let_go(2)
        answers = await asyncio.gather(first, *others)
        assert [[answer.num_residues for answer in one] for one in answers] == [[1], [1, 2], [2, 2], [1]]
        assert model.asked == [["K"], ["LL"]]
        model.let_go()
        await ours.ask(["K"])  # no longer in flight: nothing is kept
        assert model.asked[2:] == [["K"]]

    asyncio.run(story())


def test_a_short_sequence_does_not_wait_for_a_large_request() -> None:
    async def story() -> None:
        model = HeldPredictor()
        ours = batcher(model)
        large, _ = await arrived(ours.ask(["L" * (18 + n) for n in range(50)]), asyncio.sleep(0))
        await model.begun()
        (small,) = await arrived(ours.ask(["KKK"]))
        model.let_go(2)
        await small
        assert model.asked[:2] == [["L" * 18], ["KKK"]]
        assert not large.done()
        model.let_go(49)
        assert len(await large) == 50

    asyncio.run(story())


def test_a_large_request_is_done_although_small_ones_never_cease() -> None:
    async def story() -> None:
        model = HeldPredictor()
        ours = batcher(model)
        (large,) = await arrived(ours.ask(["L" * 18, "L" * 19, "L" * 20]))
        small = []
        while not large.done():
            await model.begun()
            small += await arrived(ours.ask(["K" * 10 + "S" * len(small)]))
            model.let_go()
            assert len(small) < 15
            await asyncio.sleep(0.001)  # let the answer of the batch reach the large request
        model.let_go(20)
        await asyncio.gather(*small)

    asyncio.run(story())


def test_an_error_of_the_model_reaches_the_requests_of_its_batch_and_no_others() -> None:
    class BrokenByL(HeldPredictor):
        def predict(self, sequences: Sequence[str]) -> list[Any]:
            answers = super().predict(sequences)
            if any("L" in sequence for sequence in sequences):
                raise ZeroDivisionError("broken")
            return answers

    async def story() -> None:
        model = BrokenByL()
        ours = batcher(model)
        (first,) = await arrived(ours.ask(["KK"]))
        await model.begun()
        with_l, beside_l, after = await arrived(
            ours.ask(["LL", "K" * 40]), ours.ask(["SS"]), ours.ask(["K" * 30])
        )
        model.let_go(3)
        found = await asyncio.gather(first, with_l, beside_l, after, return_exceptions=True)
        assert [type(one).__name__ for one in found] == [
            "list", "ZeroDivisionError", "ZeroDivisionError", "list"
        ]  # fmt: skip
        model.let_go()
        await ours.ask(["S"])
        assert model.asked == [["KK"], ["LL", "SS"], ["K" * 30], ["S"]]

    asyncio.run(story())


def test_a_model_that_gives_too_few_answers_is_an_error_and_not_a_wrong_answer() -> None:
    async def story() -> None:
        ours = Batcher(lambda sequences: [], ServeConfig(), tokens_per_batch=20)
        with pytest.raises(RuntimeError, match="0 answers to 2 sequences"):
            await ours.ask(["K", "L"])

    asyncio.run(story())


def test_what_a_gone_client_asked_is_not_computed_unless_another_wants_it() -> None:
    async def story() -> None:
        model = HeldPredictor()
        ours = batcher(model, tokens=7)
        (first,) = await arrived(ours.ask(["KK"]))
        await model.begun()
        gone, stays = await arrived(ours.ask(["KKK", "LLLL", "SSSSS"]), ours.ask(["LLLL"]))
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        model.let_go(9)
        await asyncio.gather(first, stays)
        await ours.close()
        assert model.asked == [["KK"], ["LLLL"]]

    asyncio.run(story())


def test_after_its_deadline_a_request_is_given_up_and_what_was_not_begun_is_never_computed() -> None:
    async def story() -> None:
        model = HeldPredictor()
        ours = batcher(model, request_seconds=0.5)
        late = await asyncio.gather(ours.ask(["K" * 18, "L" * 18]), ours.ask(["S"]), return_exceptions=True)
        assert [type(one) for one in late] == [TooLate, TooLate]
        assert "not answered within 0.5 s" in str(late[0])
        model.let_go(9)
        await ours.ask(["LL"])
        assert model.asked[1:] == [["LL"]]

    asyncio.run(story())


def test_who_would_always_be_late_is_told_so_and_who_only_was_behind_others_may_ask_again() -> None:
    async def story() -> None:
        model = HeldPredictor()
        ours = batcher(model, request_seconds=0.05)
        ours.speed.saw(20, 0.01)
        late = await asyncio.gather(
            ours.ask(["K" * 90, "K" * 90]), ours.ask(["L" * 99]), ours.ask(["S"]), return_exceptions=True
        )
        assert [type(one) for one in late] == [TooLate, TooMuch, TooLate]
        assert "these sequences alone take about" in str(late[1])
        assert "not answered within 0.05 s: ask again" in str(late[0])
        model.let_go(9)

    asyncio.run(story())


def test_a_time_out_inside_the_model_is_its_own_error() -> None:
    def times_out(_: Sequence[str]) -> list[Any]:
        raise TimeoutError("inside")

    async def story() -> None:
        with pytest.raises(TimeoutError, match="inside"):
            await Batcher(times_out, ServeConfig(), tokens_per_batch=20).ask(["K"])

    asyncio.run(story())


async def waiting_behind(model: HeldPredictor, ours: Batcher, questions: Sequence[list[str]]) -> list[Any]:
    """One sequence in the model and these requests in the line."""
    tasks = await arrived(ours.ask(["K"]))
    await model.begun()
    return tasks + await arrived(*(ours.ask(question) for question in questions))


def test_before_a_speed_is_known_everybody_is_admitted() -> None:
    async def story() -> None:
        model = HeldPredictor()
        ours = batcher(model, queue_seconds=0.001)
        tasks = await waiting_behind(model, ours, [["L" * 100 + "K" * n] for n in range(20)])
        model.let_go(99)
        assert len(await asyncio.gather(*tasks)) == 21

    asyncio.run(story())


def test_a_request_that_would_wait_too_long_is_refused_at_once_and_not_queued() -> None:
    async def story() -> None:
        model = HeldPredictor()
        ours = batcher(model, queue_seconds=5)
        ours.speed.saw(10, 1.0)
        tasks = await waiting_behind(model, ours, [["L" * 18 + "K" * n] for n in range(3)])
        with pytest.raises(Overloaded, match="s of work before this request") as refused:
            await ours.ask(["K" * 50, "S" * 50])
        assert refused.value.retry_after_seconds == 2
        assert "try again in 2 s" in str(refused.value)
        model.let_go(9)
        await asyncio.gather(*tasks)
        assert sum(len(batch) for batch in model.asked) == 4

    asyncio.run(story())


def test_a_small_request_is_admitted_although_a_giant_waits() -> None:
    async def story() -> None:
        model = HeldPredictor()
        ours = batcher(model, queue_seconds=5)
        ours.speed.saw(20, 1.0)
        giant, small = ["L" * (100 + n) for n in range(50)], ["KKK"]
        tasks = await waiting_behind(model, ours, [giant, small])
        with pytest.raises(Overloaded):
            await ours.ask(["S" * (100 + n) for n in range(50)])
        model.let_go(99)
        await asyncio.gather(*tasks)
        assert model.asked[1] == ["KKK"]

    asyncio.run(story())


def test_an_idle_model_takes_any_request_however_slow_it_was() -> None:
    async def story() -> None:
        ours = batcher(LettersPredictor(), queue_seconds=0.001)
        ours.speed.saw(20, 1000.0)
        assert len(await ours.ask(["L" * 1000, "K" * 1000])) == 2

    asyncio.run(story())


def test_the_speed_is_that_of_large_batches_and_follows_the_last_ones() -> None:
    speed = Speed(tokens_per_batch=100)
    assert speed.seconds(1000) == 0.0
    for _ in range(5):
        speed.saw(3, 0.3)
    assert speed.seconds(10) == pytest.approx(1.0)
    speed.saw(100, 1.0)
    assert 90 < 1000 / speed.seconds(1000) < 100
    for _ in range(20):
        speed.saw(100, 4.0)
    assert 25 <= 1000 / speed.seconds(1000) < 26


def test_what_goes_first_passes_everybody_and_goes_alone() -> None:
    async def story() -> None:
        model = HeldPredictor()
        ours = batcher(model)
        tasks = await waiting_behind(model, ours, [["LL"], ["SS"]])
        tasks += await arrived(ours.ask(["KKKK"], first=True))
        model.let_go(3)
        await asyncio.gather(*tasks)
        assert model.asked == [["K"], ["KKKK"], ["LL", "SS"]]

    asyncio.run(story())


def test_closing_answers_what_was_asked_and_refuses_what_comes_after() -> None:
    async def story() -> None:
        model = HeldPredictor()
        ours = batcher(model)
        tasks = await waiting_behind(model, ours, [["LL"], ["SS"]])
        (closing,) = await arrived(ours.close())
        with pytest.raises(Overloaded, match="stopping"):
            await ours.ask(["KKK"])
        assert not closing.done()
        model.let_go(2)
        await closing
        assert [len(answers) for answers in await asyncio.gather(*tasks)] == [1, 1, 1]
        await ours.close()

    asyncio.run(story())


def test_one_batcher_serves_one_event_loop_after_another() -> None:
    model = LettersPredictor()
    ours = batcher(model)
    for sequence in ("K", "LL"):
        assert len(asyncio.run(ours.ask([sequence]))) == 1
    asyncio.run(ours.close())
    assert len(model.threads) == 1
    assert threading.get_ident() not in model.threads


@pytest.mark.parametrize("patience", [0.0, 1000.0])
def test_a_model_that_sits_on_a_batch_is_overdue(patience: float) -> None:
    async def story() -> None:
        model = HeldPredictor()
        ours = batcher(model)
        assert not ours.is_overdue(patience)
        tasks = await arrived(ours.ask(["K"]))
        await model.begun()
        assert ours.is_overdue(patience) == (patience == 0.0)
        model.let_go()
        await asyncio.gather(*tasks)

    asyncio.run(story())
