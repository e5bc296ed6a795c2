import numpy as np
import pytest
import torch

from prottune.model.classifier import LocationModel, new_config
from prottune.model.presets import preset_config
from prottune.training.optimization import class_weights, make_optimizer, rate_factor, set_rates
from prottune.training.settings import TrainConfig


def test_rates_rise_to_the_peak_and_fall_to_almost_nothing() -> None:
    factors = [rate_factor(step, 10, 0.2) for step in range(10)]
    assert factors == pytest.approx([0.5, 1.0, 1.0, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8])


def test_without_warm_up_the_first_step_has_the_peak_rate() -> None:
    assert [rate_factor(step, 4, 0.0) for step in range(4)] == [1.0, 0.75, 0.5, 0.25]


@pytest.mark.parametrize("head", ["cls", "mean", "attention"])
def test_every_trained_parameter_is_in_one_group_with_its_rate_and_decay(head: str) -> None:
    model = LocationModel(new_config(preset_config("tiny"), head, ("a", "b"), 0.0))
    config = TrainConfig(learning_rate=1e-4, head_learning_rate=1e-2, weight_decay=0.1)
    optimizer = make_optimizer(model, config)
    set_rates(optimizer, 0.5)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = {
        names[id(parameter)]: (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    assert found.keys() == {name for name, _ in model.named_parameters()}
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(found)
    assert found["bert.encoder.layer.0.output.dense.weight"] == (0.5e-4, 0.1)
    assert found["bert.encoder.layer.0.output.dense.bias"] == (0.5e-4, 0.0)
    assert found["bert.embeddings.LayerNorm.weight"] == (0.5e-4, 0.0)
    assert found["classifier.weight"] == (0.5e-2, 0.1)
    assert found["classifier.bias"] == (0.5e-2, 0.0)


def test_rates_decay_from_the_top_layer_to_the_embeddings() -> None:
    model = LocationModel(new_config(preset_config("tiny"), "mean", ("a", "b"), 0.0))
    config = TrainConfig(learning_rate=1e-2, head_learning_rate=3e-2, layer_decay=0.1, weight_decay=0.5)
    groups = make_optimizer(model, config).param_groups
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    peaks = {
        names[id(p)]: (group["peak"], group["weight_decay"]) for group in groups for p in group["params"]
    }
    assert peaks.keys() == {name for name, _ in model.named_parameters()}
    rates = {
        "bert.embeddings.word_embeddings.weight": (1e-4, 0.5),
        "bert.embeddings.LayerNorm.weight": (1e-4, 0.0),
        "bert.encoder.layer.0.attention.self.query.weight": (1e-3, 0.5),
        "bert.encoder.layer.0.output.LayerNorm.bias": (1e-3, 0.0),
        "bert.encoder.layer.1.output.dense.weight": (1e-2, 0.5),
        "classifier.weight": (3e-2, 0.5),
    }
    assert {name: peaks[name] for name in rates} == {
        name: (pytest.approx(rate), decay) for name, (rate, decay) in rates.items()
    }
    assert len(groups) == 8, "a group for each rate and decay: embeddings, two layers, head"


def test_balanced_weights_make_locations_count_alike_and_leave_absent_ones_out() -> None:
    labels = np.array([0] * 6 + [2] * 2)
    weights = class_weights("balanced", labels, 4)
    assert weights.tolist() == pytest.approx([8 / 12, 0.0, 2.0, 0.0])
    assert float(weights[labels].sum()) == pytest.approx(8.0)


def test_sqrt_weights_go_half_the_way() -> None:
    labels = np.array([0] * 6 + [2] * 2)
    assert class_weights("sqrt", labels, 4).tolist() == pytest.approx([(8 / 12) ** 0.5, 0.0, 2**0.5, 0.0])


def test_without_class_weights_all_locations_weigh_one() -> None:
    assert torch.equal(class_weights("none", np.array([0, 1]), 3), torch.ones(3))
