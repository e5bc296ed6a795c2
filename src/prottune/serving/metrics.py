"""What the endpoint tells Prometheus: how long, how much, how sure, and how strange the proteins are.

Registered once a process, beside KServe's own; `GET /metrics` gives both. No sequence and no accession is
ever a label.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import TYPE_CHECKING

from prometheus_client import Counter, Gauge, Histogram

if TYPE_CHECKING:
    from prottune.model.inference import Prediction

LENGTHS = (128, 256, 512, 1024, 2048)
"""Longest protein of each class of length but the last, in residues."""
LONGER = "longer"

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 60.0)
_TOKENS = tuple(2.0**power for power in range(5, 18))
_TENTHS = tuple(tenth / 10 for tenth in range(1, 11))

REQUEST_SECONDS = Histogram(
    "prottune_request_seconds",
    "From a request to its answer, by the length of its longest protein (residues, at most).",
    ["length"],
    buckets=_SECONDS,
)
EXPLANATION_SECONDS = Histogram(
    "prottune_explanation_seconds",
    "How long the explanations of a request took to compute.",
    buckets=_SECONDS,
)
QUEUE_SEQUENCES = Gauge("prottune_queue_sequences", "Sequences that wait for the model.")
QUEUE_TOKENS = Gauge("prottune_queue_tokens", "Tokens of the sequences that wait for the model.")
QUEUE_SECONDS = Histogram(
    "prottune_queue_seconds", "How long a sequence waited for the model.", buckets=_SECONDS
)
MODEL_SECONDS = Histogram("prottune_model_seconds", "How long the model took for a batch.", buckets=_SECONDS)
BATCH_TOKENS = Histogram("prottune_batch_tokens", "Tokens of a batch.", buckets=_TOKENS)
REFUSED = Counter("prottune_refused_requests", "Requests that load kept from an answer.", ["reason"])
PREDICTIONS = Counter("prottune_predictions", "Answers by location.", ["location"])
PROBABILITY = Histogram("prottune_probability", "Probability of the answered location.", buckets=_TENTHS)
UNLIKE_TRAINING = Counter("prottune_unlike_training", "Answers about proteins unlike those of the training.")
TRUNCATED = Counter("prottune_truncated", "Answers about proteins that the model did not read whole.")


def length_class(num_residues: int) -> str:
    """The class of length that a protein is counted in, as "512": at most so many residues."""
    place = bisect_left(LENGTHS, num_residues)
    return str(LENGTHS[place]) if place < len(LENGTHS) else LONGER


def count_answers(answers: Sequence[Prediction]) -> None:
    """Count what was answered; drift of the proteins or of the model shows here first."""
    for answer in answers:
        PREDICTIONS.labels(answer.location).inc()
        PROBABILITY.observe(answer.probability)
        if answer.unlike_training:
            UNLIKE_TRAINING.inc()
        if answer.truncated:
            TRUNCATED.inc()
