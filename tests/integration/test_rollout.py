"""Real servers are replaced behind one address while a load in a process of its own asks it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tiny_model import write_tiny_model

from benchmarks.http_client import PREDICT_PATH
from benchmarks.rollout import damaged_copy
from prottune.deployment.rollout import Rollout, rolling
from prottune.deployment.settings import DeployConfig
from prottune.errors import DeploymentError

pytestmark = pytest.mark.integration

RATE, NUM_REQUESTS = 50, 600


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
    command = [sys.executable, "-m", "benchmarks.serve", "--url", rollout.url]
    command += ["--rate", str(RATE), "--requests", str(NUM_REQUESTS), "--max-residues", "500"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as load:
        report = rollout.replace(write_tiny_model(tmp_path / "better", seed=44), "2")
        under_way = load.poll() is None
        said, _ = load.communicate(timeout=60)
    assert (report.model_version, report.url, report.still_running) == ("2", rollout.url, True)
    assert under_way, "the load was over before the model was replaced"
    assert load.returncode == 0, said
    assert f"by status 200: {NUM_REQUESTS}\n" in said
    by_version = dict(part.split(" ") for part in said.splitlines()[-1].split(": ")[1].split(", "))
    assert set(by_version) == {"1", "2"}
    assert sum(map(int, by_version.values())) == NUM_REQUESTS


def test_a_model_that_fails_its_check_does_not_take_over(
    rollout: Rollout, model: Path, tmp_path: Path
) -> None:
    with httpx.Client(base_url=rollout.url, trust_env=False) as client:
        with pytest.raises(DeploymentError, match=r"ended with exit code 2: .*model\.safetensors"):
            rollout.replace(damaged_copy(model, tmp_path / "damaged"), "2")
        assert version_at(client) == "1"
        other = write_tiny_model(tmp_path / "other", seed=44)
        with pytest.raises(DeploymentError, match="not ready in time"):
            rollout.replace(other, "2", DeployConfig(ready_timeout_seconds=1))
        with pytest.raises(DeploymentError, match="a probability differs by"):  # no server is that exact
            rollout.replace(other, "2", DeployConfig(max_probability_difference=1e-12))
        assert version_at(client) == "1"
