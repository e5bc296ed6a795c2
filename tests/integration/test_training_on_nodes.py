"""Training over two nodes whose pods are processes: the TrainJob's own command, gloo, a store over HTTP."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from small_cluster import SmallCluster, serving
from small_store import Store
from small_trainer import JOBS, RUN, STEP_POD, SmallTrainer, connected, train_for_real
from tiny_tokens import make_tokens

from prottune.artifacts import read_manifest
from prottune.errors import DivergedError
from prottune.training.launching import train_on_nodes
from prottune.training.order import Order
from prottune.training.settings import TrainConfig
from prottune.training.stage import train

pytestmark = pytest.mark.integration

CONFIG = TrainConfig(
    base_model="tiny",
    learning_rate=1e-3,
    epochs=2,
    tokens_per_batch=256,
    precision="fp32",
    num_processes=1,
    num_nodes=2,
    node_gpus=0,
    checkpoint_every=5,
)
SECRETS = {"AWS_ACCESS_KEY_ID": "access", "AWS_SECRET_ACCESS_KEY": "secret"}


@pytest.fixture
def trainer(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[SmallTrainer]:
    with serving(SmallCluster()) as cluster:
        trainer = SmallTrainer(cluster)
        trainer.begin()
        cluster.after_write = trainer.reconcile
        monkeypatch.setenv("KFP_POD_NAME", STEP_POD)
        monkeypatch.setenv("PROTTUNE_PIPELINE_RUN", RUN)
        yield trainer


def on_nodes(trainer: SmallTrainer, tokens: Path, folder: Path, config: TrainConfig = CONFIG) -> Path:
    """Train on two processes that are pods; returns the model's folder."""
    points: list[dict[str, float | int]] = []
    order = Order.of(read_manifest(tokens).digest, config, f"s3://bucket/{RUN}")
    with train_for_real(trainer, SECRETS, folder):
        report = train_on_nodes(order, tokens, folder / "model", points.append, connected(trainer))
    assert report.facts["processes"] == "2"
    assert [p["step"] for p in points if "train/loss" in p] == list(range(1, report.num_steps + 1))
    return folder / "model"


def test_two_nodes_make_the_model_that_two_processes_of_one_make(
    trainer: SmallTrainer, store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tokens, alone = make_tokens(tmp_path / "tokens"), tmp_path / "alone"
    with caplog.at_level(logging.INFO):
        model = on_nodes(trainer, tokens, tmp_path)
    assert "node 0: epoch 2 of 2" in caplog.text
    train(tokens, alone, replace(CONFIG, num_processes=2, num_nodes=1))
    theirs, ours = read_manifest(alone), read_manifest(model)
    differing = {name for name in theirs.files if ours.files[name] != theirs.files[name]}
    assert differing == {"history.jsonl"}, "only clocks differ"
    assert ours.files.keys() == theirs.files.keys()
    assert (ours.inputs, ours.facts) == (theirs.inputs, theirs.facts)
    assert trainer.cluster.named(JOBS) == []
    kept = {key.split("/")[2] for key in store.objects}
    assert all(name.startswith("step-") for name in kept), "only checkpoints stay"


def test_nodes_whose_step_is_asked_to_end_keep_their_last_step(
    trainer: SmallTrainer, store: Store, tmp_path: Path
) -> None:
    tokens, seen = make_tokens(tmp_path / "tokens"), []
    order = Order.of(read_manifest(tokens).digest, replace(CONFIG, epochs=100_000), f"s3://bucket/{RUN}")

    def terminate(point: dict[str, float | int]) -> None:
        seen.append(point["step"])
        if point["step"] >= 7:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(SystemExit), train_for_real(trainer, SECRETS, tmp_path) as pods:
        train_on_nodes(order, tokens, tmp_path / "model", terminate, connected(trainer))
    assert trainer.cluster.named(JOBS) == []
    assert [process.returncode for process in pods.running] != [0, 0]
    whole = sorted(key.split("/")[2] for key in store.objects if key.endswith("manifest.json"))
    steps = [int(name.split("-")[1]) for name in whole if name.startswith("step-")]
    assert steps[-1] >= seen[-1], "the newest checkpoint is of the last step that anyone saw, or later"
    assert steps[-1] % CONFIG.checkpoint_every != 0 or len(steps) > 1


def test_a_refusal_on_a_node_ends_the_step_as_what_it_is(
    trainer: SmallTrainer, store: Store, tmp_path: Path
) -> None:
    tokens = make_tokens(tmp_path / "tokens", num_proteins=20)
    config = replace(CONFIG, learning_rate=1e30, max_grad_norm=1e30)
    with pytest.raises(DivergedError, match="expected a finite number"):
        on_nodes(trainer, tokens, tmp_path, config)
    assert not (tmp_path / "model").exists()
    assert f"bucket/{RUN}/refused.json" in store.objects, "no later start tries it again"
