"""What learns and what stays: weights, gradients, activations and optimizer state, counted."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import torch.distributed
import torch.nn.functional as F  # noqa: N812
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.parallel import DistributedDataParallel

from prottune.alphabet import encode
from prottune.artifacts import new_folder
from prottune.errors import ConfigError
from prottune.model.base import build_model, find_base
from prottune.model.classifier import LocationModel
from prottune.model.folder import load_model
from prottune.model.inference import Predictor
from prottune.model.packed import PackedBatch
from prottune.training.adaptation import (
    adapt,
    adaptation_facts,
    merge_adapters,
    predicted_speed_up,
    rest_frozen_parts,
    trained_weights,
)
from prottune.training.job import Job
from prottune.training.optimization import make_optimizer
from prottune.training.ranks import Ranks
from prottune.training.settings import TrainConfig
from prottune.training.worker import run_rank
from tests.model.small_models import LABELS, random_sequence, small_model

CONFIG = TrainConfig(learning_rate=1e-2, head_learning_rate=1e-2)
LORA = replace(CONFIG, lora_rank=4)
NUM_LAYERS = 3


def new_model(config: TrainConfig, head: str = "attention", **changes: object) -> LocationModel:
    model = small_model(head, num_hidden_layers=NUM_LAYERS, **changes)
    adapt(model, config)
    return to_training(model, config)


def to_training(model: LocationModel, config: TrainConfig) -> LocationModel:
    model.train()
    rest_frozen_parts(model, config)
    return model


def proteins() -> PackedBatch:
    flat, offsets = encode([random_sequence(length) for length in (30, 7, 1)])
    return PackedBatch.from_ids([flat[start:end] for start, end in pairwise(offsets)])


def loss_of(model: torch.nn.Module) -> torch.Tensor:
    return F.cross_entropy(model(proteins()), torch.tensor([0, 1, 2]))


def train_steps(model: LocationModel, config: TrainConfig, num_steps: int = 3) -> torch.optim.Optimizer:
    optimizer = make_optimizer(model, config)
    for _ in range(num_steps):
        optimizer.zero_grad()
        torch.autograd.backward(loss_of(model))
        optimizer.step()
    return optimizer


def part_of(name: str) -> int:
    """0 for the embeddings, then the number of the layer, and one more for the head."""
    words = name.split(".")
    if words[0] != "bert":
        return NUM_LAYERS + 1
    return 0 if words[1] == "embeddings" else int(words[3]) + 1


@pytest.mark.parametrize(("freeze_layers", "first_that_learns"), [(0, 0), (1, 2), (2, 3), (3, 4), (-1, 4)])
def test_frozen_weights_are_the_same_bit_for_bit_and_all_others_learn(
    freeze_layers: int, first_that_learns: int
) -> None:
    config = replace(CONFIG, freeze_layers=freeze_layers, weight_decay=0.1)
    model = new_model(config)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimizer = train_steps(model, config)
    learned = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert learned == {name for name in before if part_of(name) >= first_that_learns}
    assert trained_weights(model).keys() == learned
    state = {id(parameter) for parameter in optimizer.state}
    assert state == {id(parameter) for name, parameter in model.named_parameters() if name in learned}
    assert all(p.grad is None for name, p in model.named_parameters() if name not in learned)


def saved_by_part(model: LocationModel) -> list[int]:
    """How many tensors autograd keeps from the embeddings, from each layer, and from the head."""
    kept = [0] * (NUM_LAYERS + 2)
    place = 0

    def count(tensor: torch.Tensor) -> torch.Tensor:
        kept[place] += 1
        return tensor

    def next_part(*_: object) -> None:
        nonlocal place
        place += 1

    for part in (model.embeddings(), *model.layers()):
        part.register_forward_hook(next_part)
    with saved_tensors_hooks(count, lambda tensor: tensor):
        loss_of(model)
    return kept


def test_autograd_keeps_nothing_of_frozen_layers() -> None:
    everything = saved_by_part(new_model(CONFIG, hidden_dropout_prob=0.1))
    assert all(everything)
    for frozen in range(1, NUM_LAYERS + 1):
        kept = saved_by_part(new_model(replace(CONFIG, freeze_layers=frozen), hidden_dropout_prob=0.1))
        assert kept[: frozen + 1] == [0] * (frozen + 1)
        assert all(kept[frozen + 1 :])
        assert kept[frozen + 2 :] == everything[frozen + 2 :]


def test_dropout_is_off_in_frozen_parts_and_on_above_them() -> None:
    model = new_model(replace(CONFIG, freeze_layers=2), hidden_dropout_prob=0.5)
    assert [part.training for part in (model.embeddings(), *model.layers())] == [False, False, False, True]
    answers = []
    model.layers()[1].register_forward_hook(lambda _, __, output: answers.append(output))
    assert not torch.equal(model(proteins()), model(proteins()))
    assert torch.equal(*answers)


def test_more_frozen_layers_than_there_are_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"freeze_layers=4: the base model has 3 layers; expected at most 3"
    ):
        new_model(replace(CONFIG, freeze_layers=4))


@pytest.mark.parametrize(
    "setting", [{"lora_rank": 2}, {"gradient_checkpointing": True}, {"layer_decay": 0.9}]
)
def test_a_setting_for_layers_that_learn_is_refused_where_none_does(setting: dict[str, float]) -> None:
    line = rf"{next(iter(setting))}=.*: freeze_layers={{}} leaves no layer that it could act on"
    with pytest.raises(ConfigError, match=line.format("-1")):
        TrainConfig(freeze_layers=-1, **setting)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=line.format("3")):
        new_model(TrainConfig(freeze_layers=3, **setting))  # type: ignore[arg-type]


def test_the_predicted_speed_up_is_that_of_the_formula() -> None:
    speed_ups = [predicted_speed_up(30, frozen) for frozen in (0, 10, 15, 20, 25, 30)]
    assert speed_ups == pytest.approx([1.0, 90 / 70, 1.5, 1.8, 2.25, 3.0])
    assert predicted_speed_up(30, 0, goes_again=True) == pytest.approx(0.75)
    assert predicted_speed_up(30, 15, goes_again=True) == pytest.approx(1.2)


def test_facts_say_what_learns() -> None:
    config = replace(CONFIG, freeze_layers=2)
    model = new_model(config)
    learning = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    assert adaptation_facts(model, config) == {
        "trained_parameters": f"{learning:,}",
        "frozen_layers": "2 of 3",
        "predicted_speed_up": "1.80",
    }
    assert adaptation_facts(new_model(CONFIG), CONFIG) == {}


def test_adapters_start_without_effect_and_only_they_and_the_head_learn() -> None:
    model = new_model(LORA)
    plain = small_model("attention", num_hidden_layers=NUM_LAYERS)
    assert torch.equal(model.eval()(proteins()), plain(proteins()))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    train_steps(to_training(model, LORA), LORA)
    learned = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    adapters = {
        f"bert.encoder.layer.{layer}.attention.self.{matrix}.lora_{side}.default.weight"
        for layer in range(NUM_LAYERS)
        for matrix in ("query", "value")
        for side in "AB"
    }
    assert learned == adapters | {name for name in before if part_of(name) > NUM_LAYERS}


@pytest.mark.parametrize("targets", ["query,value", "query, key, value, dense"])
def test_a_merged_model_answers_as_with_adapters_and_has_none(targets: str) -> None:
    config = replace(LORA, lora_targets=targets, lora_alpha=8)
    model = new_model(config)
    train_steps(model, config)
    plain = small_model("attention", num_hidden_layers=NUM_LAYERS)
    with torch.no_grad():
        with_adapters = model.eval()(proteins())
        merge_adapters(model)
        merged = model(proteins())
    torch.testing.assert_close(merged, with_adapters, rtol=0, atol=1e-5)
    assert (with_adapters - plain(proteins())).abs().max() > 0.1
    assert list(model.state_dict()) == list(plain.state_dict())
    assert [type(module) for module in model.modules()] == [type(module) for module in plain.modules()]
    changed = {
        name.split(".")[-2]
        for name, tensor in model.state_dict().items()
        if part_of(name) <= NUM_LAYERS and not torch.equal(tensor, plain.state_dict()[name])
    }
    assert changed == {name.strip() for name in targets.split(",")}


def test_frozen_layers_get_no_adapters() -> None:
    model = new_model(replace(LORA, freeze_layers=2))
    adapted = {part_of(name) for name in trained_weights(model)}
    assert adapted == {NUM_LAYERS, NUM_LAYERS + 1}
    assert saved_by_part(model)[:NUM_LAYERS] == [0, 0, 0]


def test_an_adapter_for_a_matrix_that_layers_do_not_have_is_refused() -> None:
    line = r"lora_targets='q,value': .* no matrix q; they have dense, key, query, value"
    with pytest.raises(ConfigError, match=line):
        new_model(replace(LORA, lora_targets="q,value"))


def gradients(model: LocationModel, precision: torch.dtype) -> dict[str, torch.Tensor]:
    torch.manual_seed(5)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == torch.bfloat16):
        loss = loss_of(model)
    torch.autograd.backward(loss)
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("settings", [{}, {"freeze_layers": 1}, {"lora_rank": 4}])
def test_gradients_are_the_same_when_activations_are_computed_again(
    settings: dict[str, int], precision: torch.dtype
) -> None:
    config = replace(CONFIG, **settings)  # type: ignore[arg-type]
    again = replace(config, gradient_checkpointing=True)
    expected = gradients(new_model(config, hidden_dropout_prob=0.1), precision)
    found = gradients(new_model(again, hidden_dropout_prob=0.1), precision)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=0, atol=0, msg=name)


def test_layers_that_compute_activations_again_keep_little_and_frozen_ones_nothing() -> None:
    kept = saved_by_part(new_model(CONFIG))
    again = saved_by_part(new_model(replace(CONFIG, gradient_checkpointing=True)))
    assert max(again[1 : NUM_LAYERS + 1]) * 5 < min(kept[1 : NUM_LAYERS + 1])
    frozen = saved_by_part(new_model(replace(CONFIG, gradient_checkpointing=True, freeze_layers=2)))
    assert frozen[:3] == [0, 0, 0]


@pytest.fixture
def alone() -> Iterator[None]:
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def exchanged(model: LocationModel) -> int:
    """How many numbers the ranks of a training would send each other in one step."""
    shared = DistributedDataParallel(model, broadcast_buffers=False, gradient_as_bucket_view=True)
    sent = []

    def note(_, bucket):  # type: ignore[no-untyped-def]
        sent.append(bucket.buffer().numel())
        answer: torch.futures.Future[torch.Tensor] = torch.futures.Future()
        answer.set_result(bucket.buffer())
        return answer

    shared.register_comm_hook(None, note)
    torch.autograd.backward(loss_of(shared))
    return sum(sent)


@pytest.mark.parametrize("head", ["cls", "mean", "attention"])
@pytest.mark.parametrize(
    "settings",
    [{}, {"freeze_layers": 2}, {"freeze_layers": -1}, {"lora_rank": 2}, {"gradient_checkpointing": True}],
)
def test_ranks_exchange_what_learns_and_every_one_of_it_has_a_gradient(
    alone: None, head: str, settings: dict[str, int]
) -> None:
    model = new_model(replace(CONFIG, **settings), head)  # type: ignore[arg-type]
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert exchanged(model) == sum(parameter.numel() for parameter in learning)
    assert all(parameter.grad is not None for parameter in learning)


def test_a_position_table_of_40000_rows_is_neither_exchanged_nor_optimised(alone: None) -> None:
    model = new_model(CONFIG, max_position_embeddings=40_000)
    table = model.embeddings().position_embeddings.weight
    others = sum(parameter.numel() for parameter in model.parameters()) - table.numel()
    assert table.shape == (40_000, 32)
    optimizer = make_optimizer(model, CONFIG)
    assert sum(p.numel() for group in optimizer.param_groups for p in group["params"]) == others
    assert exchanged(model) == others


def test_a_folder_trained_with_adapters_loads_as_any_other(
    make_token_folder, make_base_folder, tmp_path: Path
) -> None:
    config = TrainConfig(
        base_model=str(make_base_folder(num_hidden_layers=2)),
        freeze_layers=1,
        lora_rank=2,
        learning_rate=1e-2,
        gradient_checkpointing=True,
        layer_decay=0.5,
        epochs=2,
        tokens_per_batch=512,
        precision="fp32",
    )
    with new_folder(tmp_path / "model", "train", config) as draft:
        base_folder = find_base(config.base_model, "", tmp_path)
        job = Job(
            str(make_token_folder()), str(draft.path), config, base_folder, "", "custom", LABELS, 0, "head"
        )
        report = run_rank(job, Ranks(0, 1, torch.device("cpu")))
    assert report is not None
    assert report.facts["frozen_layers"] == "1 of 2"
    assert report.facts["predicted_speed_up"] == "1.20"
    model, _ = load_model(tmp_path / "model")
    torch.manual_seed(config.seed)
    base = build_model(base_folder, config.head, LABELS, 0.0)
    assert sum(parameter.numel() for parameter in base.parameters()) == report.num_parameters
    started_from = base.state_dict()
    changed = {
        name
        for name, tensor in model.state_dict().items()
        if name.startswith("bert.") and not torch.equal(tensor, started_from[name])
    }
    weights = "bert.encoder.layer.1.attention.self.{}.weight"
    assert changed == {weights.format("query"), weights.format("value")}
    assert len(Predictor.load(tmp_path / "model", "fp32").predict(["MKT"])) == 1
