import pytest

from prottune.errors import ConfigError
from prottune.flags import parse_flags
from prottune.training.settings import TrainConfig


@pytest.mark.parametrize(
    ("setting", "value", "expected"),
    [
        ("head", "pooler", "expected one of cls, mean, attention"),
        ("class_weights", "inverse", "expected one of none, sqrt, balanced"),
        ("precision", "fp16", "expected one of auto, bf16, fp32"),
        ("epochs", 0, "expected at least 1"),
        ("seed", -1, r"expected at least 0, below 2\^63"),
        ("num_processes", 0, "expected at least 1"),
        ("num_nodes", -1, "expected at least 1"),
        ("checkpoint_every", 0, "expected at least 1"),
        ("keep_checkpoints", 0, "expected at least 1"),
        ("rank_timeout_seconds", 0, "expected at least 1"),
        ("learning_rate", 0.0, "expected a number above 0"),
        ("head_learning_rate", float("inf"), "expected a number above 0"),
        ("max_grad_norm", float("nan"), "expected a number above 0"),
        ("warmup_share", 1.0, "expected at least 0, below 1"),
        ("head_dropout", -0.1, "expected at least 0, below 1"),
        ("confident_accuracy", 0.0, "expected above 0, at most 1"),
        ("confident_accuracy", 1.1, "expected above 0, at most 1"),
        ("weight_decay", -1.0, "expected at least 0"),
        ("membrane_weight", -0.5, "expected at least 0"),
        ("membrane_weight", float("nan"), "expected at least 0"),
        ("patience", -1, "expected at least 0"),
        ("tokens_per_batch", 63, "expected at least 64"),
        ("tokens_per_pass", 63, "expected 0 or at least 64"),
        ("tokens_per_pass", -1, "expected 0 or at least 64"),
        ("freeze_layers", -2, "expected a number of layers, or -1 for all"),
        ("lora_rank", -1, "expected at least 0"),
        ("lora_alpha", 0, "expected at least 1"),
        ("lora_targets", "query,,value", "expected names with commas between them"),
        ("lora_targets", "", "expected names with commas between them"),
        ("layer_decay", 0.0, "expected above 0, at most 1"),
        ("layer_decay", 1.1, "expected above 0, at most 1"),
    ],
)
def test_a_setting_that_cannot_work_is_refused_with_its_value(
    setting: str, value: object, expected: str
) -> None:
    with pytest.raises(ConfigError, match=rf"{setting}='?{value}'?: {expected}"):
        TrainConfig(**{setting: value})


def test_minus_one_freezes_all_layers_on_the_command_line_too() -> None:
    flags = parse_flags(TrainConfig, ["--freeze-layers", "-1", "--lora-targets", "q, v"], "train", "")
    assert [flags.num_frozen(num_layers) for num_layers in (2, 30)] == [2, 30]
    assert flags.lora_target_names == ("q", "v")


def test_a_misspelt_setting_is_refused() -> None:
    with pytest.raises(TypeError, match="lerning_rate"):
        TrainConfig(lerning_rate=0.1)
