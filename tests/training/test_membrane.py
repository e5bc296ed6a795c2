"""The membrane flag as a second task: what it adds to the loss, who has a say in it, and what is kept."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from small_runs import ALONE, LABELS, new_model, run, splits_of

from prottune.errors import ConfigError, DivergedError
from prottune.model.classifier import LocationModel
from prottune.model.folder import load_model
from prottune.model.golden import read_golden
from prottune.model.inference import Predictor
from prottune.training.dealing import plan_epoch
from prottune.training.examples import Examples
from prottune.training.features import with_features
from prottune.training.losses import JointLoss, figures
from prottune.training.settings import TrainConfig
from prottune.training.stage import train
from tests.training.test_resume import assert_same
from tests.training.test_resume import run as resumable_run

FLAGS = "MSUX" * 4 + "UX" * 4
"""Of location 0 some are bound and nothing is known of the others; of location 1 some are soluble. Of a third
of the proteins, in a row, nothing is known, so that some batches have no flag at all."""
CONFIG = TrainConfig(
    base_model="tiny",
    learning_rate=1e-3,
    epochs=2,
    tokens_per_batch=256,
    precision="fp32",
    membrane_weight=0.5,
)


@pytest.fixture
def tokens(make_token_folder: Callable[..., Path]) -> Path:
    return make_token_folder(membrane=FLAGS)


def points(curve: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in curve.read_text().splitlines()]


def test_u_and_x_are_unknown_and_only_m_and_s_are_flags(tokens: Path) -> None:
    flags = splits_of(tokens)[0].membrane_N[:6].tolist()
    assert flags == pytest.approx([1, 0, float("nan"), float("nan"), 1, 0], nan_ok=True)
    assert splits_of(tokens)[0].has_flag[:6].tolist() == [True, True, False, False, True, True]


def joint(train_set: Examples, weight: float) -> JointLoss:
    return JointLoss(train_set, len(LABELS), replace(CONFIG, membrane_weight=weight))


def test_the_loss_is_the_locations_mean_and_the_weighted_mean_over_known_flags(tokens: Path) -> None:
    train_set, _ = splits_of(tokens)
    batch = np.array([0, 1, 2, 3, 4])  # M S U X M
    logits = torch.tensor([[2.0, 0, 0, 3], [0, 1, 0, 1], [1, 0, 0, 9], [0, 0, 0, -9], [0, 0, 1, -2]])
    location = float(F.cross_entropy(logits[:, :3], torch.tensor([0, 1, 0, 1, 0])))
    # -log p of what is true: sigmoid(3), 1 - sigmoid(1), sigmoid(-2); two of five proteins have no flag.
    membrane = (0.0485874 + 1.3132617 + 2.1269280) / 3
    found = joint(train_set, 0.5).part(logits, batch, batch)
    assert float(found) == pytest.approx(location + 0.5 * membrane, rel=1e-5)
    assert float(joint(train_set, 0.0).part(logits[:, :3], batch, batch)) == pytest.approx(location)


def test_parts_add_up_to_the_loss_however_a_batch_is_dealt(tokens: Path) -> None:
    train_set, _ = splits_of(tokens)
    batch = np.array([0, 1, 2, 3, 4, 5, 6])
    logits = torch.randn(7, 4, generator=torch.Generator().manual_seed(0))
    loss = joint(train_set, 2.0)
    whole = float(loss.part(logits, batch, batch))
    for dealt in ([[0, 1, 4, 5], [2, 3, 6]], [[6], [0, 2], [5, 1, 3, 4]]):
        parts = [loss.part(logits[places], batch[places], batch) for places in map(np.array, dealt)]
        assert float(sum(parts)) == pytest.approx(whole, rel=1e-6)


def test_a_batch_without_a_flag_teaches_the_second_output_nothing_but_reaches_it(tokens: Path) -> None:
    train_set, _ = splits_of(tokens)
    unknown = np.flatnonzero(~train_set.has_flag)[:3]
    model = new_model(replace(CONFIG, base_model="tiny"))
    joint(train_set, 0.5).part(model(train_set.batch(unknown)), unknown, unknown).backward()
    assert model.membrane is not None
    assert torch.equal(model.membrane.weight.grad, torch.zeros(1, 64))
    assert torch.equal(model.membrane.bias.grad, torch.zeros(1))
    assert model.classifier.weight.grad.abs().max() > 0


def test_figures_of_the_membrane_are_of_known_flags_and_left_out_where_there_are_none(tokens: Path) -> None:
    _, validation = splits_of(tokens)
    logits = torch.zeros(len(validation), 4)
    logits[:, 3] = torch.from_numpy(np.nan_to_num(validation.membrane_N * 2 - 1, nan=50.0))  # right by 1
    wrong = np.flatnonzero(validation.has_flag)[0]
    logits[wrong, 3] *= -1
    num_known = validation.has_flag.sum()
    found = figures(logits, validation, 3)
    assert found["membrane_accuracy"] == pytest.approx((num_known - 1) / num_known)
    assert found["membrane_loss"] == pytest.approx((0.3132617 * (num_known - 1) + 1.3132617) / num_known)
    assert set(figures(logits[:, :3], validation, 3)) == {"loss", "calibrated_loss", "accuracy"}
    nobody_knows = replace(validation, membrane_N=np.full(len(validation), np.nan, np.float32))
    assert figures(logits, nobody_knows, 3) == figures(logits[:, :3], validation, 3)


def test_both_tasks_are_learned_and_the_location_alone_chooses_the_epoch(
    tokens: Path, tmp_path: Path
) -> None:
    config = replace(CONFIG, epochs=4, patience=0, learning_rate=3e-3)
    splits = splits_of(tokens)
    outcome = run(new_model(config), splits, config, tmp_path / "curve")
    epochs = [point for point in points(tmp_path / "curve") if "epoch" in point]
    assert epochs[-1]["validation/accuracy"] == epochs[-1]["validation/membrane_accuracy"] == 1.0
    assert epochs[-1]["validation/membrane_loss"] < 0.5 * epochs[0]["validation/membrane_loss"]
    calibrated = [point["validation/calibrated_loss"] for point in epochs]
    assert outcome.best.epoch == int(np.argmin(calibrated)) + 1
    assert outcome.best.logits_NO.shape == (len(splits[1]), 4)
    assert {"membrane.weight", "membrane.bias"} < set(outcome.best.weights)


def test_without_weight_nothing_is_measured_and_there_is_no_second_output(
    tokens: Path, tmp_path: Path
) -> None:
    config = replace(CONFIG, membrane_weight=0.0, epochs=1)
    outcome = run(new_model(config), splits_of(tokens), config, tmp_path / "curve")
    assert outcome.best.logits_NO.shape[1] == len(LABELS)
    assert not any("membrane" in name for point in points(tmp_path / "curve") for name in point)


def test_a_membrane_loss_that_is_not_finite_stops_training_by_name(tokens: Path, tmp_path: Path) -> None:
    class Blind(LocationModel):
        def forward(self, batch):
            return super().forward(batch) * torch.tensor([1.0, 1, 1, 1 if self.training else float("inf")])

    model = new_model(CONFIG)
    model.__class__ = Blind
    with pytest.raises(DivergedError, match=r"validation after epoch 1: the membrane loss is (nan|inf)"):
        run(model, splits_of(tokens), CONFIG, tmp_path / "curve")


@pytest.mark.parametrize("head", ["mean", "attention"])
def test_a_frozen_encoder_reads_once_for_both_tasks(
    tokens: Path, make_base_folder: Callable[..., Path], tmp_path: Path, head: str
) -> None:
    config = replace(
        CONFIG, base_model=str(make_base_folder()), freeze_layers=-1, head=head, head_learning_rate=1e-2
    )
    splits = splits_of(tokens)
    every_epoch = run(new_model(config), splits, config, tmp_path / "every")
    model = new_model(config)
    features = with_features(model, splits, config, ALONE, torch.float32)
    asked: list[int] = []
    model.layers()[0].register_forward_hook(lambda *_: asked.append(1))
    once = run(model, features, config, tmp_path / "once")
    assert asked == []
    timeless = [
        [
            {name: n for name, n in point.items() if name != "train/tokens_per_second"}
            for point in points(path)
        ]
        for path in (tmp_path / "once", tmp_path / "every")
    ]
    for found, expected in zip(*timeless, strict=True):
        assert found == pytest.approx(expected, rel=1e-4, abs=1e-5)
    assert "validation/membrane_loss" in timeless[0][-1]
    torch.testing.assert_close(once.best.logits_NO, every_epoch.best.logits_NO, rtol=1e-4, atol=1e-4)


@pytest.mark.integration
def test_two_processes_learn_what_one_does_and_the_folder_says_so(
    tokens: Path, make_base_folder: Callable[..., Path], tmp_path: Path
) -> None:
    """One takes each step at once, two in passes: steps, shares and passes without any flag, and no share."""
    config = replace(
        CONFIG, base_model=str(make_base_folder()), head_dropout=0.0, head="cls", tokens_per_batch=192
    )
    of_two = replace(config, num_processes=2, tokens_per_pass=64)
    one = run(new_model(config), splits_of(tokens), config, tmp_path / "curve")
    flags = flags_of_steps(of_two, splits_of(tokens)[0])
    assert any(not sum(map(sum, shares)) for shares in flags), "a step without a flag"
    assert any(
        sum(map(sum, shares)) and any(share and not sum(share) for share in shares) for shares in flags
    )
    assert any([] in shares for shares in flags), "a rank without a share"
    report = train(tokens, tmp_path / "two", of_two)
    curve, curve_of_two = points(tmp_path / "curve"), points(tmp_path / "two" / "history.jsonl")
    assert len(curve) == len(curve_of_two)
    for expected, found in zip(curve, curve_of_two, strict=True):
        timeless = expected.keys() - {"train/tokens_per_second"}
        assert {name: found[name] for name in timeless} == pytest.approx(
            {name: expected[name] for name in timeless}, rel=1e-4, abs=1e-5
        )
    assert report.facts["membrane_flags"] == "12 of 36"

    model, description = load_model(tmp_path / "two")
    assert model.membrane is not None
    assert description.membrane_temperature is not None
    torch.testing.assert_close(
        model.membrane.weight * description.membrane_temperature,
        one.best.weights["membrane.weight"],
        rtol=1e-3,
        atol=1e-3,
    )
    golden = read_golden(tmp_path / "two")
    answers = Predictor.load(tmp_path / "two", "fp32").predict([entry["sequence"] for entry in golden])
    assert [entry["membrane"] for entry in golden] == pytest.approx(
        [answer.membrane for answer in answers], abs=1e-5
    )


def test_a_run_that_is_resumed_ends_with_the_same_bits(tokens: Path, tmp_path: Path) -> None:
    whole = resumable_run(tokens, tmp_path / "whole", CONFIG)
    moment = next(moment for moment in whole.moments if (moment.place.epoch, moment.place.position) == (2, 2))
    (tmp_path / "kept").mkdir()
    moment.write(tmp_path / "kept")
    assert moment.outcome.best.logits_NO.shape[1] == 4
    assert_same(resumable_run(tokens, tmp_path / "resumed", CONFIG, tmp_path / "kept"), whole)


def flags_of_steps(config: TrainConfig, train_set: Examples) -> list[list[list[int]]]:
    """How many flags each pass of each rank has in each step of the first epoch."""
    steps = plan_epoch(
        train_set.num_tokens_N,
        tokens_per_batch=config.tokens_per_batch,
        tokens_per_pass=config.tokens_per_pass,
        seed=config.seed,
        epoch=1,
        world_size=config.num_processes,
        hidden_size=16,
    )
    return [
        [[int(train_set.has_flag[proteins].sum()) for proteins in share] for share in step.passes]
        for step in steps
    ]


@pytest.mark.parametrize(
    ("flags", "words"), [("U", "0 are .* and 0 soluble"), ("MU", "18 are .* and 0 soluble")]
)
def test_flags_that_are_not_of_both_kinds_are_refused_before_a_process_starts(
    make_token_folder: Callable[..., Path], tmp_path: Path, flags: str, words: str
) -> None:
    with pytest.raises(ConfigError, match=rf"membrane_weight=0\.5: of the training proteins in .*, {words}"):
        train(make_token_folder(membrane=flags), tmp_path / "model", CONFIG)
    assert not (tmp_path / "model").exists()
