from __future__ import annotations

import asyncio

import pytest
from letters import LettersPredictor
from prometheus_client import REGISTRY, generate_latest

from prottune.serving.batcher import Overloaded
from prottune.serving.metrics import length_class
from prottune.serving.predictor import LocationPredictor
from prottune.serving.settings import ServeConfig

COUNTED = (
    'prottune_predictions_total{location="Nucleus"}',
    'prottune_predictions_total{location="Cell.membrane"}',
    'prottune_probability_bucket{le="0.7"}',
    'prottune_probability_bucket{le="0.9"}',
    "prottune_probability_count",
    "prottune_unlike_training_total",
    "prottune_truncated_total",
    'prottune_request_seconds_count{length="128"}',
    'prottune_request_seconds_count{length="longer"}',
    "prottune_queue_seconds_count",
    "prottune_model_seconds_count",
    'prottune_batch_tokens_bucket{le="32.0"}',
    "prottune_batch_tokens_sum",
    'prottune_refused_requests_total{reason="overloaded"}',
)


def scrape() -> dict[str, float]:
    lines = generate_latest(REGISTRY).decode().splitlines()
    values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name: float(values.get(name, 0)) for name in COUNTED}


def test_what_was_asked_and_answered_can_be_read_from_the_metrics() -> None:
    before = scrape()

    async def story() -> None:
        model = LocationPredictor(LettersPredictor(), ServeConfig(), "7")
        instances = ["KKK", {"accession": "P1", "sequence": "K" * 21 + "WWW"}]
        await model.predict({"instances": instances})
        await model.predict({"instances": ["L" * 3000]})
        await model.close()
        with pytest.raises(Overloaded):
            await model.predict({"instances": ["K"]})

    asyncio.run(story())
    assert {name: value - before[name] for name, value in scrape().items()} == {
        'prottune_predictions_total{location="Nucleus"}': 2,
        'prottune_predictions_total{location="Cell.membrane"}': 1,
        'prottune_probability_bucket{le="0.7"}': 1,
        'prottune_probability_bucket{le="0.9"}': 1,
        "prottune_probability_count": 3,
        "prottune_unlike_training_total": 1,
        "prottune_truncated_total": 1,
        'prottune_request_seconds_count{length="128"}': 1,
        'prottune_request_seconds_count{length="longer"}': 1,
        "prottune_queue_seconds_count": 3,
        "prottune_model_seconds_count": 2,
        'prottune_batch_tokens_bucket{le="32.0"}': 1,
        "prottune_batch_tokens_sum": 5 + 26 + 3002,
        'prottune_refused_requests_total{reason="overloaded"}': 1,
    }
    assert "KKK" not in generate_latest(REGISTRY).decode()


@pytest.mark.parametrize(
    ("residues", "expected"),
    [(1, "128"), (128, "128"), (129, "256"), (2048, "2048"), (2049, "longer"), (20_000, "longer")],
)
def test_a_length_belongs_to_the_class_that_ends_with_it(residues: int, expected: str) -> None:
    assert length_class(residues) == expected
