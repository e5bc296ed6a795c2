"""The graph that labels a proteome, run whole on this machine: it ends with its table, or with one line."""

import csv
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient
from small_store import Store, serving
from tiny_model import write_tiny_model
from toy_proteins import steps_run

from prottune.artifacts import read_manifest

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

NUM_PROTEINS = 40


@pytest.fixture
def source(tmp_path: Path) -> Path:
    draws = random.Random(43)
    path = tmp_path / "proteome.fasta"
    proteins = (
        f">sp|Q{number:05d}|X_YEAST\n{''.join(draws.choices('ACDEFGHIKLMNPQRSTVWY', k=20 + number))}\n"
        for number in range(NUM_PROTEINS)
    )
    path.write_text("".join(proteins) + ">odd\nK1\n")
    return path


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "python3-runs"  # kfp.local would rewrite the name if we let it


def run(runs: Path, source: Path, model: str, **environment: str) -> subprocess.CompletedProcess[str]:
    small = ["--num-shards", "3", "--on-bad", "skip", "--precision", "fp32"]
    words = ["run", "predict", "--runs", str(runs), "--source", str(source), "--model", model, *small]
    return subprocess.run(
        [sys.executable, "-m", "pipelines", *words],
        capture_output=True, text=True, check=False, env=os.environ | environment,
    )  # fmt: skip


def summary_of(runs: Path) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads((runs / "latest" / "summary.json").read_text(encoding="utf-8"))
    return summary


def mlflow_run(runs: Path) -> Any:
    client = MlflowClient(f"sqlite:///{runs / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("prottune")
    assert experiment is not None
    (found,) = client.search_runs([experiment.experiment_id])
    return found


def test_every_protein_has_its_row_once_and_in_its_place(runs: Path, source: Path, tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "model")
    ended = run(runs, source, str(model))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert steps_run(runs) == {"choose", "split", "merge"}
    shards = list((runs / "latest").glob("steps/*/*/predict/executor_output.json"))
    assert len(shards) == 3

    summary = summary_of(runs)
    with Path(summary["table"]).open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["accession"] for row in rows] == [f"Q{number:05d}" for number in range(NUM_PROTEINS)]
    assert [int(row["num_residues"]) for row in rows] == [20 + number for number in range(NUM_PROTEINS)]
    manifest = read_manifest(Path(summary["folders"]["predictions"]), "merge")
    assert manifest.inputs["model"] == read_manifest(model).digest

    assert (summary["status"], summary["model"], summary["model_version"]) == ("FINISHED", str(model), "")
    assert (summary["metrics"]["num_proteins"], summary["metrics"]["num_skipped"]) == (NUM_PROTEINS, 1)
    assert f"Labelled: {NUM_PROTEINS} proteins in 3 shards" in ended.stdout
    assert ended.stderr == ""
    tracked = mlflow_run(runs)
    assert tracked.info.status == "FINISHED"
    assert tracked.data.metrics["merge/num_proteins"] == NUM_PROTEINS
    assert tracked.data.tags["prottune.model"] == str(model)


class Vanishing(dict[str, bytes]):
    """Objects of a store that loses them after the model was fetched some times."""

    def __init__(self, folder: Path, key: str, times: int) -> None:
        files = (path for path in folder.rglob("*") if path.is_file())
        super().__init__(
            {f"{key}/{path.relative_to(folder).as_posix()}": path.read_bytes() for path in files}
        )
        self.left = times

    def __getitem__(self, key: str) -> bytes:
        content = super().__getitem__(key)
        if key.endswith("/model.safetensors"):
            self.left -= 1
            if not self.left:
                self.clear()
        return content


def test_a_shard_that_fails_ends_the_run_with_its_line_and_its_exit_code(
    runs: Path, source: Path, tmp_path: Path
) -> None:
    model = write_tiny_model(tmp_path / "model")
    with serving(Store(objects=Vanishing(model, "bucket/model", times=2))) as store:
        keys = {"S3_ENDPOINT": store.url, "S3_ACCESS_KEY": "access", "S3_SECRET_KEY": "secret"}
        ended = run(runs, source, "s3://bucket/model", **keys)
    summary = summary_of(runs)
    assert ended.returncode == summary["exit_code"] == 3, ended.stdout + ended.stderr
    assert (summary["status"], summary["failure"]["stage"], summary["table"]) == ("FAILED", "predict", "")
    assert ended.stderr.splitlines()[-1] == f"error: {summary['failure']['message']}"
    assert "s3://bucket/model" in summary["failure"]["message"]
    assert steps_run(runs) == {"choose", "split"}
    assert mlflow_run(runs).info.status == "FAILED"


def test_without_a_champion_the_run_says_what_to_do(runs: Path, source: Path) -> None:
    ended = run(runs, source, "registry")
    assert ended.returncode == 2
    assert "has no champion; promote a version, or name a model" in ended.stderr.splitlines()[-1]
    assert summary_of(runs)["failure"]["stage"] == "choose"
