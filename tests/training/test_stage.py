"""The train stage as others call it: real processes, real folders."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pyarrow.parquet
import pytest
import safetensors.torch

from prottune.artifacts import read_manifest
from prottune.errors import ArtifactError, ConfigError, DataError, DivergedError
from prottune.model.folder import load_model
from prottune.model.golden import read_golden
from prottune.model.inference import Predictor
from prottune.training.settings import TrainConfig
from prottune.training.stage import train

CONFIG = TrainConfig(
    base_model="tiny",
    learning_rate=1e-3,
    epochs=3,
    tokens_per_batch=256,
    precision="fp32",
)


def children() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


def test_a_trained_folder_is_whole_and_answers_what_its_golden_file_says(make_token_folder, tmp_path: Path) -> None:
    tokens = make_token_folder()
    points: list[dict[str, float | int]] = []
    report = train(tokens, tmp_path / "model", CONFIG, points.append)

    manifest = read_manifest(tmp_path / "model", "train")
    assert manifest.inputs["tokens"] == read_manifest(tokens).digest
    assert report.model_digest == manifest.digest
    history = [json.loads(line) for line in (tmp_path / "model" / "history.jsonl").read_text().splitlines()]
    assert points == history
    assert [point["step"] for point in history if "train/loss" in point] == list(range(1, report.num_steps + 1))
    epochs = [point for point in history if "epoch" in point]
    assert [point["epoch"] for point in epochs] == [1, 2, 3]
    assert report.validation_loss == min(point["validation/loss"] for point in epochs)
    assert report.validation_accuracy == 1.0, "the two compositions are easy to tell apart"
    assert report.epochs_run == 3
    assert report.facts["precision"] == "float32"

    model, description = load_model(tmp_path / "model")
    assert sum(parameter.numel() for parameter in model.parameters()) == report.num_parameters
    assert description.temperature == report.temperature
    assert description.dataset_digest == "digest-of-the-records"
    seen = pyarrow.parquet.read_table(tmp_path / "model" / "training_proteins.parquet")
    assert seen.num_rows == 48
    golden = read_golden(tmp_path / "model")
    answers = Predictor.load(tmp_path / "model", "fp32").predict([entry["sequence"] for entry in golden])
    for entry, answer in zip(golden, answers, strict=True):
        assert answer.location == entry["location"]
        assert answer.probabilities.tolist() == pytest.approx(list(entry["probabilities"].values()), abs=1e-5)
    assert children() == []
