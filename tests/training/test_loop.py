"""The loop in this very process, as the only rank; the same loop among several is in test_train_stage.py."""

import json
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
import torch.distributed
import torch.nn.functional as F  # noqa: N812
from torch.nn.parallel import DistributedDataParallel

from prottune.errors import DivergedError
from prottune.model.base import build_model, find_base
from prottune.model.calibration import calibrated_loss
from prottune.model.classifier import LocationModel
from prottune.model.folder import load_model
from prottune.model.packed import PackedBatch
from prottune.records import Split
from prottune.training.batching import compose_steps
from prottune.training.dealing import Step, plan_epoch
from prottune.training.examples import Examples, read_examples
from prottune.training.history import HistoryWriter
from prottune.training.loop import Loop, Outcome
from prottune.training.optimization import class_weights
from prottune.training.ranks import Ranks
from prottune.training.settings import TrainConfig
from prottune.training.stage import train

LABELS = ("Nucleus", "Cytoplasm", "Peroxisome")
CONFIG = TrainConfig(base_model="tiny", learning_rate=1e-3, epochs=2, tokens_per_batch=512, precision="fp32")


def new_model(config: TrainConfig) -> LocationModel:
    torch.manual_seed(config.seed)
    base = find_base(config.base_model, config.base_revision, Path())
    return build_model(base, config.head, LABELS, config.head_dropout)


def run(tokens: Path, config: TrainConfig, curve: Path, **changes: object) -> Outcome:
    parts: dict[str, object] = {
        "model": new_model(config),
        "train": read_examples(tokens, Split.TRAIN, len(LABELS)),
        "validation": read_examples(tokens, Split.VALIDATION, len(LABELS)),
        "ranks": Ranks(0, 1, torch.device("cpu")),
    }
    with HistoryWriter(curve) as history:
        loop = Loop(
            **(parts | changes),
            config=config,
            history=history,
            precision=torch.bfloat16 if config.precision == "bf16" else torch.float32,
        )
        return loop.run()


def logits(model: LocationModel, examples: Examples, proteins: object) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(PackedBatch.from_ids(examples.ids(proteins)))


def without_dropout(model: LocationModel) -> LocationModel:
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model


def points(curve: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in curve.read_text().splitlines()]


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(
    make_token_folder, tmp_path: Path
) -> None:
    tokens = make_token_folder()
    first, again = (run(tokens, CONFIG, tmp_path / name).best for name in ("a", "b"))
    other = run(tokens, replace(CONFIG, seed=44), tmp_path / "c").best
    assert all(torch.equal(first.weights[name], again.weights[name]) for name in first.weights)
    assert first.loss == again.loss != other.loss


@pytest.mark.parametrize("kind", ["none", "balanced"])
def test_the_first_loss_is_the_weighted_mean_over_the_proteins_of_the_first_batch(
    make_token_folder, tmp_path: Path, kind: str
) -> None:
    tokens = make_token_folder(num_proteins=59)  # an odd number, so that the locations differ in size
    config = replace(CONFIG, class_weights=kind)
    train = read_examples(tokens, Split.TRAIN, len(LABELS))
    batch = compose_steps(train.num_tokens_N, 512, config.seed, 1)[0]
    labels = torch.from_numpy(train.labels_N[batch])
    weights = class_weights(kind, train.labels_N, len(LABELS)).clone()
    expected = F.cross_entropy(logits(new_model(config), train, batch), labels, weight=weights)

    run(tokens, config, tmp_path / "curve", model=without_dropout(new_model(config)))
    assert points(tmp_path / "curve")[0]["train/loss"] == pytest.approx(float(expected), rel=1e-5)


def test_the_best_weights_are_those_whose_validation_loss_is_reported(
    make_token_folder, tmp_path: Path
) -> None:
    tokens = make_token_folder()
    best = run(tokens, CONFIG, tmp_path / "curve").best
    model = new_model(CONFIG)
    model.load_state_dict(best.weights)
    validation = read_examples(tokens, Split.VALIDATION, len(LABELS))
    answers = logits(model, validation, range(len(validation)))
    torch.testing.assert_close(best.logits_NO, answers, rtol=1e-4, atol=1e-5)
    labels = torch.from_numpy(validation.labels_N)
    assert best.loss == pytest.approx(calibrated_loss(answers, labels), rel=1e-4)
    assert best.accuracy == pytest.approx(float((answers.argmax(1) == labels).float().mean()))


def test_training_stops_when_patience_ends_and_keeps_the_best_epoch(
    make_token_folder, tmp_path: Path
) -> None:
    tokens = make_token_folder()
    validation = read_examples(tokens, Split.VALIDATION, len(LABELS))
    upside_down = replace(validation, labels_N=1 - validation.labels_N)  # the better it learns, the worse
    config = replace(CONFIG, epochs=9, patience=2, learning_rate=3e-3, warmup_share=0.0)
    outcome = run(tokens, config, tmp_path / "curve", validation=upside_down)
    losses = [point["validation/calibrated_loss"] for point in points(tmp_path / "curve") if "epoch" in point]
    assert outcome.best.loss == min(losses)
    assert outcome.best.epoch == int(np.argmin(losses)) + 1
    assert outcome.epochs_run == outcome.best.epoch + 2 < 9


def test_without_patience_all_epochs_are_run(make_token_folder, tmp_path: Path) -> None:
    tokens = make_token_folder()
    validation = read_examples(tokens, Split.VALIDATION, len(LABELS))
    upside_down = replace(validation, labels_N=1 - validation.labels_N)
    config = replace(CONFIG, epochs=6, patience=0, learning_rate=3e-3)
    assert run(tokens, config, tmp_path / "curve", validation=upside_down).epochs_run == 6


def test_a_rate_far_too_high_stops_by_name_and_the_curve_holds_finite_numbers_only(
    make_token_folder, tmp_path: Path
) -> None:
    config = replace(CONFIG, learning_rate=1e30, head_learning_rate=1e30, warmup_share=0.0)
    with pytest.raises(
        DivergedError, match=r"step \d+, .*expected a finite number.*learning_rate \(now 1e\+30"
    ):
        run(make_token_folder(), config, tmp_path / "curve")
    numbers = [number for point in points(tmp_path / "curve") for number in point.values()]
    assert np.isfinite(numbers).all()


def test_weights_are_not_touched_by_a_step_that_is_not_finite(make_token_folder, tmp_path: Path) -> None:
    model = new_model(CONFIG)
    with torch.no_grad():
        model.classifier.bias[2] = float("nan")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(DivergedError, match=r"step 1, rank 0: the loss is nan"):
        run(make_token_folder(), CONFIG, tmp_path / "curve", model=model)
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0, equal_nan=True)


def test_a_model_learns_in_bf16_as_well(make_token_folder, tmp_path: Path) -> None:
    outcome = run(make_token_folder(), replace(CONFIG, epochs=4, precision="bf16"), tmp_path / "curve")
    assert outcome.best.accuracy == 1.0
    assert all(tensor.dtype == torch.float32 for tensor in outcome.best.weights.values())


def without_chance(base: Path, **changes: object) -> TrainConfig:
    """Settings under which only rounding depends on how a step's proteins are cut up."""
    return replace(CONFIG, base_model=str(base), head_dropout=0.0, class_weights="balanced", **changes)


def test_several_passes_make_the_gradient_of_one_pass(
    make_token_folder, make_base_folder, tmp_path: Path
) -> None:
    config = without_chance(make_base_folder(), tokens_per_batch=4096, epochs=1)
    tokens = make_token_folder()
    assert [len(step.passes[0]) for step in plans(config, tokens)] == [1]
    assert [len(step.passes[0]) for step in plans(replace(config, tokens_per_pass=100), tokens)] == [14]
    gradients = []
    for tokens_per_pass in (0, 100):
        model = new_model(config)
        run(tokens, replace(config, tokens_per_pass=tokens_per_pass), tmp_path / "curve", model=model)
        gradients.append({name: weight.grad for name, weight in model.named_parameters()})
    for name, expected in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], expected, rtol=1e-5, atol=1e-7, msg=name)


class Wrapped(Ranks):
    """One rank whose model is wrapped as among many; counts the buckets of gradients it exchanges."""

    exchanged: ClassVar[list[int]] = []

    def share_gradients(self, model: torch.nn.Module, *, compress: bool = False) -> torch.nn.Module:
        assert not compress
        wrapped = DistributedDataParallel(model)
        wrapped.register_comm_hook(None, self._count)
        return wrapped

    @staticmethod
    def _count(_: None, bucket: torch.distributed.GradBucket) -> torch.futures.Future[torch.Tensor]:
        Wrapped.exchanged.append(bucket.index())
        done: torch.futures.Future[torch.Tensor] = torch.futures.Future()
        done.set_result(bucket.buffer())
        return done


def test_gradients_are_exchanged_once_a_step_however_many_passes_it_takes(
    make_token_folder, make_base_folder, tmp_path: Path
) -> None:
    config = without_chance(make_base_folder(), tokens_per_batch=512, tokens_per_pass=64, epochs=1)
    tokens = make_token_folder()
    steps = plans(config, tokens)
    assert sum(len(step.passes[0]) for step in steps) > 4 * len(steps)
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        Wrapped.exchanged.clear()
        run(tokens, config, tmp_path / "wrapped", ranks=Wrapped(0, 1, torch.device("cpu")))
    finally:
        torch.distributed.destroy_process_group()
    assert Wrapped.exchanged.count(0) == len(steps)
    run(tokens, replace(config, tokens_per_pass=0), tmp_path / "bare")
    assert_same_curve(points(tmp_path / "wrapped"), points(tmp_path / "bare"), rel=1e-6)


def test_two_processes_give_the_curve_and_the_weights_of_one(
    make_token_folder, make_base_folder, tmp_path: Path
) -> None:
    """One takes each step at once; two take it in passes, not always as many, and once a rank has none."""
    config = without_chance(make_base_folder(), tokens_per_batch=192)
    tokens = make_token_folder()
    one = run(tokens, config, tmp_path / "curve")
    of_two = replace(config, num_processes=2, tokens_per_pass=64)
    num_passes = [tuple(map(len, step.passes)) for step in plans(of_two, tokens)]
    assert any(first != second for first, second in num_passes if first and second)
    assert any(0 in each for each in num_passes)
    assert max(map(max, num_passes)) == 3
    two = train(tokens, tmp_path / "two", of_two)
    assert two.facts["processes"] == "2"

    curve = points(tmp_path / "curve")
    assert len(curve) == one.num_steps + 2
    assert_same_curve(points(tmp_path / "two" / "history.jsonl"), curve, rel=1e-4)
    model, _ = load_model(tmp_path / "two")
    for name, tensor in model.state_dict().items():
        if name.endswith(
            "key.bias"
        ):  # softmax does not see it: its gradient is rounding, which Adam enlarges
            continue
        folded = two.temperature if name.startswith("classifier.") else 1.0
        # Biases under a softmax have no gradient but rounding, of which Adam makes whole steps: hence 1e-3.
        torch.testing.assert_close(tensor * folded, one.best.weights[name], rtol=1e-3, atol=1e-3)


def plans(config: TrainConfig, tokens: Path) -> list[Step]:
    """All steps that a run of the base folder's model takes."""
    return [
        step
        for epoch in range(1, config.epochs + 1)
        for step in plan_epoch(
            read_examples(tokens, Split.TRAIN, len(LABELS)).num_tokens_N,
            tokens_per_batch=config.tokens_per_batch,
            tokens_per_pass=config.tokens_per_pass,
            seed=config.seed,
            epoch=epoch,
            world_size=config.num_processes,
            hidden_size=16,
        )
    ]


def assert_same_curve(found: list[dict[str, float]], expected: list[dict[str, float]], rel: float) -> None:
    """All points are alike but for the clock."""
    for one, other in zip(found, expected, strict=True):
        timeless = other.keys() - {"train/tokens_per_second"}
        assert one.keys() == other.keys()
        assert {name: one[name] for name in timeless} == pytest.approx(
            {name: other[name] for name in timeless}, rel=rel
        )
