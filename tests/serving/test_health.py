"""Readiness: what a probe is told while the model answers, answers wrongly, hangs, or is busy."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import pytest
from letters import HeldPredictor, LettersPredictor, golden_entry

from prottune.serving import health
from prottune.serving.predictor import LocationPredictor
from prottune.serving.sdk import ModelNotReady
from prottune.serving.settings import ServeConfig


class Wavering(LettersPredictor):
    """Answers as asked by the test: rightly, wrongly, or not at all; and at once, or slowly."""

    mood = "right"
    seconds_per_residue = 0.0

    def predict(self, sequences: Sequence[str]) -> list[Any]:
        if self.mood == "broken":
            raise ZeroDivisionError("broken")
        time.sleep(self.seconds_per_residue * sum(map(len, sequences)))
        answers = super().predict(sequences)
        if self.mood in ("wrong", "nan"):
            for answer in answers:
                answer.probabilities = answer.probabilities + (0.5 if self.mood == "wrong" else float("nan"))
        return answers


def served(predictor: LettersPredictor, **settings: Any) -> LocationPredictor:
    model = LocationPredictor(predictor, ServeConfig(**settings), "7")
    model.load()
    return model


def checked(predictor: LettersPredictor, **settings: Any) -> LocationPredictor:
    """A model that passed its check when it was loaded."""
    model = served(predictor, **settings)
    model.check([golden_entry("SSLKKK"), golden_entry("KKL")])
    predictor.asked.clear()
    return model


def test_a_model_that_was_not_loaded_is_not_healthy() -> None:
    model = LocationPredictor(LettersPredictor(), ServeConfig(), "7")
    assert asyncio.run(model.healthy()) is False


def test_the_shortest_golden_sequence_is_asked_and_the_answer_counts_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    predictor = Wavering()
    model = checked(predictor)
    assert [asyncio.run(model.healthy()) for _ in range(3)] == [True] * 3
    assert predictor.asked == [["KKL"]]
    monkeypatch.setattr(health, "FRESH_SECONDS", 0.0)
    assert asyncio.run(model.healthy()) is True
    assert predictor.asked == [["KKL"]] * 2


@pytest.mark.parametrize("mood", ["wrong", "nan", "broken"])
def test_a_model_that_answers_wrongly_or_fails_is_not_healthy_until_it_answers_rightly(
    mood: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "FRESH_SECONDS", 0.0)
    predictor = Wavering()
    model = checked(predictor)
    predictor.mood = mood
    assert asyncio.run(model.healthy()) is False
    predictor.mood = "right"
    assert asyncio.run(model.healthy()) is True


def test_a_model_that_is_known_to_answer_wrongly_answers_nobody_until_it_answers_rightly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def location() -> str:
        answer = await model.predict({"instances": ["KKKK"]})
        return str(answer["predictions"][0]["location"])

    async def story() -> None:
        assert await model.healthy() is True
        predictor.mood = "wrong"
        assert await location() == "Nucleus"  # nobody knows yet
        monkeypatch.setattr(health, "FRESH_SECONDS", 0.0)
        assert await model.healthy() is False
        for body in ({"instances": ["KKKK"]}, {"instances": ["LL"]}):
            with pytest.raises(ModelNotReady, match="It gives a wrong answer to a protein"):
                await model.predict(body)
        with pytest.raises(ModelNotReady):
            await model.explain({"instances": ["KKKK"]})
        predictor.mood = "right"  # and no probe asks
        assert await location() == "Nucleus"

    predictor = Wavering()
    model = LocationPredictor(predictor, ServeConfig(), "7", attribute=lambda *_: pytest.fail("explained"))
    model.load()
    model.check([golden_entry("SSLKKK"), golden_entry("KKL")])
    asyncio.run(story())


def test_a_model_whose_check_failed_otherwise_is_still_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next request may be answered, and if not, hears why."""
    monkeypatch.setattr(health, "FRESH_SECONDS", 0.0)
    predictor = Wavering()
    model = checked(predictor)
    predictor.mood = "broken"
    assert asyncio.run(model.healthy()) is False
    with pytest.raises(ZeroDivisionError):
        asyncio.run(model.predict({"instances": ["KKKK"]}))


def test_the_first_batch_is_expected_to_take_as_long_as_the_check_at_the_start_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(health, "PATIENCE_SECONDS", 0.05)

    async def story() -> None:
        predictor = Wavering()
        predictor.seconds_per_residue = 0.002
        model = checked(predictor)
        asking = asyncio.ensure_future(model.predict({"instances": ["S" * 500]}))
        await asyncio.sleep(0.1)
        assert await model.healthy() is True  # 0.15 s into a batch of 1 s
        assert not asking.done()
        await asking

    asyncio.run(story())


def test_nobody_is_refused_by_the_speed_of_the_check_at_the_start() -> None:
    """A GPU's first batch is slow."""

    async def story() -> None:
        predictor = Wavering()
        predictor.seconds_per_residue = 0.01
        model = checked(predictor, queue_seconds=0.001)
        predictor.seconds_per_residue = 0.0
        bodies = [{"instances": ["S" * 1000 + "K" * n]} for n in range(5)]
        answers = await asyncio.gather(*(model.predict(body) for body in bodies))
        assert len(answers) == 5

    asyncio.run(story())


def test_a_model_that_hangs_is_not_healthy_and_no_probe_waits_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "PATIENCE_SECONDS", 0.05)

    async def story() -> None:
        predictor = HeldPredictor()
        model = served(predictor)
        predictor.let_go()
        model.check([golden_entry("KKL")])
        await predictor.begun()
        asking = asyncio.ensure_future(model.predict({"instances": ["SSS"]}))
        await predictor.begun()
        began = time.monotonic()
        assert await model.healthy() is False
        assert await model.healthy() is False
        assert time.monotonic() - began < 2
        predictor.let_go(2)
        await asking
        assert await model.healthy() is True

    asyncio.run(story())


def test_the_check_passes_all_that_users_wait_for() -> None:
    async def story() -> None:
        predictor = HeldPredictor()
        model = served(predictor)
        predictor.let_go()
        model.check([golden_entry("KKL")])
        await predictor.begun()
        users = [asyncio.ensure_future(model.predict({"instances": ["S" * 500]}))]
        await predictor.begun()
        users += [asyncio.ensure_future(model.predict({"instances": ["L" * (500 + n)]})) for n in range(20)]
        probe = asyncio.ensure_future(model.healthy())
        for _ in range(3):  # the users' questions, the probe, and the check that it begins: into the line
            await asyncio.sleep(0)
        predictor.let_go(2)
        assert await probe is True
        assert predictor.asked[1:3] == [["S" * 500], ["KKL"]]
        predictor.let_go(20)
        await asyncio.gather(*users)

    asyncio.run(story())


def test_while_users_get_answers_a_probe_waits_for_nothing() -> None:
    async def story() -> None:
        predictor = HeldPredictor()
        model = served(predictor)
        predictor.let_go(2)
        model.check([golden_entry("KKL")])
        await model.predict({"instances": ["KKK"]})
        assert await model.healthy() is True  # its check is not answered yet
        predictor.let_go()

    asyncio.run(story())


def test_a_model_that_is_busy_no_longer_than_expected_is_healthy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "PATIENCE_SECONDS", 0.02)

    async def story() -> None:
        predictor = HeldPredictor()
        model = served(predictor)
        predictor.let_go()
        model.check([golden_entry("KKL")])
        model._batcher.speed.saw(10, 1.0)
        asking = asyncio.ensure_future(model.predict({"instances": ["S" * 5000]}))
        assert await model.healthy() is True
        predictor.let_go(2)
        await asking

    asyncio.run(story())


def test_a_model_that_is_closed_is_not_healthy() -> None:
    async def story() -> None:
        model = checked(LettersPredictor())
        assert await model.healthy() is True
        await model.close()
        assert await model.healthy() is False

    asyncio.run(story())
