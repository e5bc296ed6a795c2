"""Real servers are replaced behind one address while a load in a process of its own asks it."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from tiny_model import write_tiny_model

from benchmarks.http_client import PREDICT_PATH, Reply, ask_locations
from benchmarks.load import Outcome, open_loop
from benchmarks.proteins import deeploc_like_sequences
from benchmarks.rollout import damaged_copy
from prottune.deployment.local_rollout import Rollout, rolling
from prottune.deployment.settings import DeployConfig
from prottune.errors import DeploymentError

pytestmark = pytest.mark.integration

RATE, MOST_REQUESTS = 25, 25 * 120


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_tiny_model(tmp_path / "model")


@pytest.fixture
def rollout(model: Path) -> Iterator[Rollout]:
    with rolling(model, DeployConfig(), "1") as running:
        yield running


def version_at(client: httpx.Client) -> str:
    reply = client.post(PREDICT_PATH, json={"instances": ["MKTAYIAKQR"]})
    assert reply.status_code == 200
    return str(reply.json()["model_version"])


def test_no_request_fails_while_the_model_is_replaced(rollout: Rollout, tmp_path: Path) -> None:
    proteins = [protein[:100] for protein in deeploc_like_sequences(200)]
    versions: Counter[str] = Counter()

    def check(_: int, reply: Reply) -> None:
        versions[json.loads(reply.body).get("model_version", "none")] += 1

    def load() -> Outcome:
        requests = [ask_locations([protein]) for protein in proteins]
        return asyncio.run(
            open_loop(
                rollout.url, requests, RATE, MOST_REQUESTS, check=check, told=lambda _: versions["2"] > 99
            )
        )

    with ThreadPoolExecutor(1) as thread:
        loading = thread.submit(load)
        report = rollout.replace(write_tiny_model(tmp_path / "better", seed=44), "2")
        outcome = loading.result()
    assert (report.model_version, report.url, report.still_running) == ("2", rollout.url, True)
    assert outcome.statuses == {"200": outcome.num_requests}
    assert set(versions) == {"1", "2"}
    assert versions.total() == outcome.num_requests


def test_a_model_that_fails_its_check_does_not_take_over(
    rollout: Rollout, model: Path, tmp_path: Path
) -> None:
    with httpx.Client(base_url=rollout.url, trust_env=False) as client:
        with pytest.raises(DeploymentError, match=r"ended with exit code 2: .*model\.safetensors"):
            rollout.replace(damaged_copy(model, tmp_path / "damaged"), "2")
        assert version_at(client) == "1"
        other = write_tiny_model(tmp_path / "other", seed=44)
        with pytest.raises(DeploymentError, match="a probability differs by"):  # no server is that exact
            rollout.replace(other, "2", DeployConfig(max_probability_difference=1e-12))
        assert version_at(client) == "1"
