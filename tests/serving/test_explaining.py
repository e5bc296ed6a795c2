"""V1's :explain: what is refused, who waits, what ends the work, and a real model's scores."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from letters import LettersPredictor
from tiny_model import LABELS, write_tiny_model

from prottune.serving.batcher import Overloaded, TooLate
from prottune.serving.explaining import MAX_WAITING, Explainer
from prottune.serving.predictor import LocationPredictor
from prottune.serving.sdk import InvalidInput
from prottune.serving.settings import ServeConfig


class Endless:
    """An explanation that goes on until it is told to end, or let go."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.begun = threading.Semaphore(0)
        self.go = threading.Event()
        self.ended: list[str] = []

    def __call__(self, sequence: str, location: str, before_each: Callable[[], None]) -> Any:
        self.asked.append((sequence, location))
        self.begun.release()
        try:
            while not self.go.wait(0.005):
                before_each()
        finally:
            self.ended.append(sequence)
        return sequence


def explainer(endless: Endless, **settings: Any) -> Explainer:
    return Explainer(endless, LABELS, ServeConfig(**settings))


async def explained(ours: Explainer, *asked: tuple[str, str], seconds: float = 60) -> Any:
    with ours.place():
        return await ours.explain(asked, seconds)


def test_one_is_explained_at_a_time_few_wait_and_more_are_refused_at_once() -> None:
    async def story() -> None:
        endless = Endless()
        ours = explainer(endless)
        tasks = [asyncio.ensure_future(explained(ours, ("K" * n, ""))) for n in range(1, MAX_WAITING + 2)]
        await asyncio.to_thread(endless.begun.acquire)
        with pytest.raises(Overloaded, match="5 requests for explanations are in the house") as refused:
            await explained(ours, ("S", ""))
        assert refused.value.retry_after_seconds >= 1
        assert endless.asked == [("K", "")]
        endless.go.set()
        assert await asyncio.gather(*tasks) == [["K" * n] for n in range(1, MAX_WAITING + 2)]
        assert await explained(ours, ("S", "Nucleus"), ("L", "")) == ["S", "L"]
        assert endless.asked[-2:] == [("S", "Nucleus"), ("L", "")]
        ours.close()

    asyncio.run(story())


def test_after_the_deadline_the_work_ends() -> None:
    async def story() -> None:
        endless = Endless()
        ours = explainer(endless, request_seconds=0.05)
        with pytest.raises(TooLate, match=r"not answered and explained within 0\.05 s: ask again"):
            await explained(ours, ("K", ""), ("S", ""), seconds=0.05)
        endless.go.set()
        assert await explained(ours, ("LL", "")) == ["LL"]
        assert endless.asked == [("K", ""), ("LL", "")]
        ours.close()

    asyncio.run(story())


def test_what_a_client_asked_who_went_away_while_waiting_is_never_begun() -> None:
    async def story() -> None:
        endless = Endless()
        ours = explainer(endless)
        tasks = [asyncio.ensure_future(explained(ours, (sequence, ""))) for sequence in ("K", "S", "L")]
        await asyncio.to_thread(endless.begun.acquire)
        tasks[1].cancel()
        await asyncio.wait([tasks[1]])
        endless.go.set()
        await asyncio.gather(tasks[0], tasks[2])
        assert endless.asked == [("K", ""), ("L", "")]
        ours.close()

    asyncio.run(story())


def test_when_the_client_goes_away_the_work_ends() -> None:
    async def story() -> None:
        endless = Endless()
        ours = explainer(endless)
        task = asyncio.ensure_future(explained(ours, ("K", "")))
        await asyncio.to_thread(endless.begun.acquire)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        following = asyncio.ensure_future(explained(ours, ("S", "")))
        await asyncio.to_thread(endless.begun.acquire)  # the one thread is free again
        assert endless.ended == ["K"]
        ours.close()
        with pytest.raises(TooLate):
            await following

    asyncio.run(story())


def test_where_no_place_is_left_the_model_is_not_even_asked() -> None:
    async def story() -> None:
        endless, predictor = Endless(), LettersPredictor()
        model = LocationPredictor(predictor, ServeConfig(), "7", attribute=endless)
        model.load()
        tasks = [
            asyncio.ensure_future(model.explain({"instances": ["K" * n]})) for n in range(1, MAX_WAITING + 2)
        ]
        await asyncio.to_thread(endless.begun.acquire)
        predictor.asked.clear()
        with pytest.raises(Overloaded, match="5 requests for explanations are in the house"):
            await model.explain({"instances": ["SSS"]})
        assert predictor.asked == []
        await model.close()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(story())


def test_an_explanation_has_what_the_answer_left_of_the_deadline() -> None:
    class Slow(LettersPredictor):
        def predict(self, sequences: Sequence[str]) -> list[Any]:
            time.sleep(0.2)
            return super().predict(sequences)

    class GivenUp(Explainer):
        async def explain(self, asked: Sequence[tuple[str, str]], seconds: float) -> Any:
            left.append(seconds)
            raise TooLate("enough is known")

    left: list[float] = []
    config = ServeConfig(request_seconds=30)
    model = LocationPredictor(Slow(), config, "7", attribute=Endless())
    model._explainer = GivenUp(Endless(), LABELS, config)
    with pytest.raises(TooLate):
        asyncio.run(model.explain({"instances": ["KKK"]}))
    assert 10 < left[0] <= 29.8


def test_answers_do_not_wait_for_an_explanation() -> None:
    async def story() -> None:
        endless = Endless()
        model = LocationPredictor(LettersPredictor(), ServeConfig(), "7", attribute=endless)
        model.load()
        explaining = asyncio.ensure_future(model.explain({"instances": ["KKK"]}))
        await asyncio.to_thread(endless.begun.acquire)
        answers = await model.predict({"instances": ["LLL"]})
        assert answers["predictions"][0]["location"] == "Cell.membrane"
        assert not explaining.done()
        assert endless.asked == [("KKK", "Nucleus")]  # the location that the endpoint answered
        await model.close()
        with pytest.raises(TooLate):
            await explaining

    asyncio.run(story())


@pytest.mark.parametrize(
    ("instances", "words"),
    [
        (["K" * 100, "K" * 101], r"instances\[1\]\.sequence: 101 residues, expected at most 100 for an expl"),
        (
            [{"sequence": "K", "location": "Moon"}],
            r"instances\[0\]\.location: expected one of .*, got 'Moon'",
        ),
        (["K", "L", "S", "KK", "LL"], "instances: expected at most 4 proteins to explain, got 5"),
        (["K1"], r"instances\[0\]: '1' at residue 2 is no amino acid"),
    ],
)
def test_what_cannot_be_explained_is_refused_with_its_field(instances: list[Any], words: str) -> None:
    endless, predictor = Endless(), LettersPredictor()
    config = ServeConfig(max_explained_residues=100)
    model = LocationPredictor(predictor, config, "7", attribute=endless)
    with pytest.raises(InvalidInput, match=words):
        asyncio.run(model.explain({"instances": instances}))
    assert endless.asked == predictor.asked == []


def test_switched_off_nothing_is_explained() -> None:
    model = LocationPredictor(LettersPredictor(), ServeConfig(), "7")
    with pytest.raises(NotImplementedError, match="switched off"):
        asyncio.run(model.explain({"instances": ["KKK"]}))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("explained") / "model")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_real_models_explanation_has_the_documented_fields_and_adds_up(
    folder: Path, precision: str
) -> None:
    model = LocationPredictor.from_folder(folder, ServeConfig(precision=precision), "7")
    instances = ["MKRLLVVAAF", {"accession": "P1", "sequence": "MKRLLVVAAF", "location": LABELS[2]}]
    found = asyncio.run(model.explain({"instances": instances}))
    answer = asyncio.run(model.predict({"instances": instances[:1]}))["predictions"][0]
    assert found["model_version"] == "7"
    first, second = found["explanations"]
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert set(first) == {
        "accession", "location", "probability", "probabilities", "confident", "unlike_training", "truncated",
        "num_residues", "explained", "method", "sequence", "scores", "left_out", "difference", "sum", "error",
        "complete", "steps", "max_steps",
    }  # fmt: skip
    assert (first["accession"], second["accession"]) == (None, "P1")
    assert first["explained"] == first["location"] == answer["location"]
    assert first["probability"] == answer["probability"]
    assert second["explained"] == LABELS[2]
    assert sum(first["scores"]) == pytest.approx(first["sum"])
    assert first["sum"] == pytest.approx(first["difference"], abs=0.02 * max(abs(first["difference"]), 1))
    asyncio.run(model.close())
