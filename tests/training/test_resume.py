"""A run that goes on from a kept moment ends bit for bit as the run that was never interrupted."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from prottune.model.base import build_model, find_base
from prottune.records import Split
from prottune.training.examples import read_examples
from prottune.training.history import HistoryWriter
from prottune.training.keeping import NoKeeper
from prottune.training.loop import Loop
from prottune.training.ranks import Ranks
from prottune.training.settings import TrainConfig
from prottune.training.snapshots import Outcome, Place, Snapshot, optimizer_tensors

LABELS = ("Nucleus", "Cytoplasm", "Peroxisome")
CONFIG = TrainConfig(base_model="tiny", learning_rate=1e-3, epochs=3, tokens_per_batch=512, precision="fp32")


class Recorder(NoKeeper):
    """Takes every moment that a run passes."""

    def __init__(self) -> None:
        self.moments: list[Snapshot] = []

    def at_border(self, place: Place, take: Callable[[], Snapshot]) -> None:
        self.moments.append(take())

    at_end = at_border


@dataclass
class End:
    """All that a run ends with."""

    outcome: Outcome
    weights: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    random_state: Tensor
    curve: list[dict[str, float]]
    """Less the speed, which no two runs share."""
    moments: list[Snapshot] = field(default_factory=list)


def run(tokens: Path, curve: Path, config: TrainConfig = CONFIG, kept: Path | None = None) -> End:
    """Run the loop, from the beginning or from a kept moment."""
    torch.manual_seed(config.seed if kept is None else 99)
    base, membrane = find_base("tiny", "", Path()), config.membrane_weight > 0
    model = build_model(base, config.head, LABELS, config.head_dropout, membrane=membrane)
    recorder = Recorder()
    with HistoryWriter(curve) as history:
        loop = Loop(
            model=model,
            train=read_examples(tokens, Split.TRAIN, 3),
            validation=read_examples(tokens, Split.VALIDATION, 3),
            config=config,
            ranks=Ranks(0, 1, torch.device("cpu")),
            history=history,
            precision=torch.float32,
            keeper=recorder,
        )
        if kept is not None:
            moment = Snapshot.read(kept, leads=True)
            history.go_on_from(moment.history)
            loop.restore(moment)
        outcome = loop.run()
    points = [json.loads(line) for line in curve.read_text().splitlines()]
    return End(
        outcome,
        {name: tensor.clone() for name, tensor in model.state_dict().items()},
        optimizer_tensors(loop._optimizer, model),
        torch.get_rng_state(),
        [{name: value for name, value in point.items() if "per_second" not in name} for point in points],
        recorder.moments,
    )


def assert_same(found: End, expected: End) -> None:
    """Bit for bit: 0 and -0 differ, no tolerance."""
    for ours, theirs in (
        (found.weights, expected.weights),
        (found.optimizer, expected.optimizer),
        (found.outcome.best.weights, expected.outcome.best.weights),
    ):
        assert ours.keys() == theirs.keys()
        assert [name for name in ours if ours[name].numpy().tobytes() != theirs[name].numpy().tobytes()] == []
    assert torch.equal(found.random_state, expected.random_state)
    assert torch.equal(found.outcome.best.logits_NO, expected.outcome.best.logits_NO)
    assert found.curve == expected.curve
    for name in ("num_steps", "epochs_run", "num_tokens"):
        assert getattr(found.outcome, name) == getattr(expected.outcome, name)
    for name in ("epoch", "loss", "accuracy"):
        assert getattr(found.outcome.best, name) == getattr(expected.outcome.best, name)


@pytest.fixture(scope="module")
def whole(shared_tokens: Path, tmp_path_factory: pytest.TempPathFactory) -> End:
    """The run that nobody interrupts."""
    return run(shared_tokens, tmp_path_factory.mktemp("whole") / "curve")


def test_the_run_under_test_has_dropout_and_several_steps_an_epoch(whole: End) -> None:
    steps = max(moment.place.position for moment in whole.moments)
    assert steps >= 3
    assert whole.moments[-1].place == Place(step=3 * steps, epoch=4, position=0, ended=True)
    assert CONFIG.head_dropout > 0
    first, second = (moment.model["classifier.weight"] for moment in whole.moments[:2])
    assert not torch.equal(first, second)


@pytest.mark.parametrize(
    "where",
    [
        "before the first step",
        "in the first epoch",
        "before validation",
        "after validation",
        "in epoch 2",
        "at the end",
    ],
)
def test_from_any_moment_a_run_ends_as_if_it_had_not_been_interrupted(
    shared_tokens: Path, whole: End, tmp_path: Path, where: str
) -> None:
    steps = max(moment.place.position for moment in whole.moments)
    step, epoch, position = {
        "before the first step": (0, 1, 0),
        "in the first epoch": (2, 1, 2),
        "before validation": (steps, 1, steps),
        "after validation": (steps, 2, 0),
        "in epoch 2": (steps + 1, 2, 1),
        "at the end": (3 * steps, 4, 0),
    }[where]
    place = Place(step, epoch, position, ended=where == "at the end")
    moment = next(moment for moment in whole.moments if moment.place == place)
    (tmp_path / "kept").mkdir()
    moment.write(tmp_path / "kept")
    assert_same(run(shared_tokens, tmp_path / "curve", kept=tmp_path / "kept"), whole)


def test_the_curve_may_have_points_that_are_means_over_an_interruption(
    shared_tokens: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prottune.training.loop._MAX_POINTS", 3)
    whole = run(shared_tokens, tmp_path / "whole")
    moment = next(moment for moment in whole.moments if moment.place.position == 1 and moment.pace.steps)
    (tmp_path / "kept").mkdir()
    moment.write(tmp_path / "kept")
    assert_same(run(shared_tokens, tmp_path / "curve", kept=tmp_path / "kept"), whole)


def test_a_moment_is_a_copy_that_training_does_not_write_to(whole: End) -> None:
    first, *_, last = whole.moments
    assert first.outcome.best.epoch == 0
    assert first.history == b""
    assert last.outcome.best.epoch > 0
    assert not torch.equal(first.model["classifier.weight"], last.model["classifier.weight"])
    assert first.optimizer == {}
    assert set(last.optimizer) >= {"classifier.weight/exp_avg", "classifier.weight/step"}


def test_patience_counts_across_an_interruption(shared_tokens: Path, tmp_path: Path) -> None:
    config = replace(CONFIG, epochs=9, patience=1, learning_rate=1e-12, head_learning_rate=1e-12)
    whole = run(shared_tokens, tmp_path / "whole", config)
    assert 1 < whole.outcome.epochs_run < 9
    moment = next(moment for moment in whole.moments if moment.place.epoch == whole.outcome.epochs_run)
    (tmp_path / "kept").mkdir()
    moment.write(tmp_path / "kept")
    assert_same(run(shared_tokens, tmp_path / "curve", config, tmp_path / "kept"), whole)


def test_random_numbers_depend_on_seed_step_and_rank_alone() -> None:
    def draw(seed: int, step: int, rank: int) -> float:
        torch.rand(7)
        Ranks(rank, 4, torch.device("cpu")).seed_generators(seed, step)
        return float(torch.rand(1))

    assert draw(1, 2, 3) == draw(1, 2, 3)
    others = {
        draw(1, 2, 3),
        draw(2, 2, 3),
        draw(1, 3, 3),
        draw(1, 2, 0),
        draw(1, 3, 2),
        draw(1, 0, 0),
        draw(1, 0, 1),
    }
    assert len(others) == 7


def test_only_rank_0_reads_the_best_weights(whole: End, tmp_path: Path) -> None:
    whole.moments[-1].write(tmp_path)
    lead, other = (Snapshot.read(tmp_path, leads=leads).outcome.best for leads in (True, False))
    assert set(lead.weights) == set(whole.weights)
    assert other.weights == {}
    assert torch.equal(lead.logits_NO, other.logits_NO)
    assert (lead.loss, lead.epoch) == (other.loss, other.epoch)
