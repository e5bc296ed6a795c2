"""What may be set from outside: every setting of a stage is a pipeline parameter, or is not, for a reason."""

from dataclasses import fields
from typing import Any

import pytest

from pipelines.compiling import GRAPHS
from pipelines.meanings import ADDRESSES, RENAMED, SETTINGS, field_docs
from pipelines.parameters import CLUSTER_ONLY, check, parameters, run_flags
from prottune.errors import ConfigError
from prottune.flags import parse_flags
from prottune.training.settings import TrainConfig

NOT_OFFERED = {
    "on_crossing": "drop_train is the honest answer to contamination; who wants refuse runs prottune ingest",
    "on_cytoplasm_nucleus": "DeepLoc's own reading; another one makes figures that compare with nothing",
    "test_share": "the official test is kept as given; only collections without one are cut",
    "validation_share": "serves early stopping and the temperature; a tenth is enough of both",
    "gate_share": "a tenth; the least number of gate proteins is a parameter",
    "min_identity": "30 % is where the field draws the line; another one is another question",
    "min_coverage": "goes with min_identity",
    "max_unpacked_megabytes": "a guard, not a choice",
    "split_seed": "a seed of splits is a way to look for a lucky one",
    "warmup_share": "a tenth works for every base model tried; learning rates are what matters",
    "weight_decay": "goes with AdamW's usual value",
    "max_grad_norm": "a guard against single batches",
    "head_dropout": "moved nothing in the trials",
    "cache_features": "kept features give the same model in less time; no is for disks without room",
    "lora_alpha": "goes with lora_rank; a learning rate does the same",
    "lora_targets": "query and value, as in the paper; lora_rank is what matters",
    "layer_decay": "a refinement of learning_rate, for trials on one machine",
    "tokens_per_pass": "for cards with little memory, as gradient_checkpointing",
    "gradient_checkpointing": "for cards with little memory; the cluster's are chosen for the model",
    "compress_gradients": "for slow networks between nodes; processes of one node do not need it",
    "confident_accuracy": "nine of ten, as it is read everywhere; the rejection curve shows the others",
    "keep_checkpoints": "two: the newest, and the one before it if the newest is damaged",
    "rank_timeout_seconds": "a guard, not a choice",
    "max_known_share": "a guard: of the records that a model was trained from it knows no test protein",
    "explained_mistakes": "pictures of the page; prottune explain makes them for any protein",
    "num_bootstraps": "1000 resamples serve two digits; nobody should report fewer",
    "bootstrap_seed": "an interval does not depend on it in the digits shown",
    "max_location_loss": "a guard, wide on purpose; max_loss_to_champion is the choice",
    "min_location_proteins": "goes with max_location_loss",
    "max_calibration_error": "a guard: temperature is fitted, so more than this is a fault",
    "max_probability_difference": "what bf16 serving may differ by; more is a fault",
    "ready_timeout_seconds": "a guard, not a choice",
    "rollout_seconds": "a guard, not a choice",
    "cpu": "goes with the image and the kind of model: the ServingRuntime of manifests/ says it",
    "memory": "goes with cpu",
    "namespace": "a run serves in its own namespace, where its account has rights",
    "service_account": "comes with manifests/, as the name here does",
    "endpoint": "KServe tells it; for who deploys from outside the cluster",
}
NOT_OFFERED_IN_PREDICT = {
    "max_megabytes": "a guard, not a choice",
    "window": "goes with the memory of the pods, which is fixed",
}


def settings(graph: str) -> dict[str, Any]:
    return {field.name: field.default for kind in SETTINGS[graph] for field in fields(kind)}


def test_a_setting_has_one_meaning_across_all_stages() -> None:
    assert sum(len(fields(kind)) for kind in SETTINGS["finetune"]) == len(settings("finetune"))


@pytest.mark.parametrize(
    ("graph", "not_offered"), [("finetune", NOT_OFFERED), ("predict", NOT_OFFERED_IN_PREDICT)]
)
def test_every_setting_is_a_pipeline_parameter_or_deliberately_not(
    graph: str, not_offered: dict[str, str]
) -> None:
    named = {RENAMED.get(name, name) for name in parameters(graph)}
    offered = named - set(ADDRESSES[graph]) - set(CLUSTER_ONLY)
    assert set(settings(graph)) - offered == set(not_offered)
    assert offered <= set(settings(graph)), "a parameter that no stage knows"


@pytest.mark.parametrize("graph", GRAPHS)
def test_every_default_is_the_one_beside_the_setting(graph: str) -> None:
    for name, parameter in parameters(graph).items():
        if name not in {*ADDRESSES[graph], *CLUSTER_ONLY}:
            assert parameter.default == settings(graph)[RENAMED.get(name, name)], name


def test_both_graphs_call_a_parameter_of_both_the_same() -> None:
    one, other = map(parameters, GRAPHS)
    shared = set(one) & set(other)
    assert shared >= {"source", "precision", "light_image", "torch_image", "num_gpus", "node_selector"}
    for name in shared:
        assert one[name] == other[name], name


def test_run_takes_flags_by_the_names_of_the_parameters() -> None:
    words = ["--source", "x.fasta", "--epochs", "2", "--learning-rate", "0.25", "--deploy-to", "kserve"]
    flags = vars(parse_flags(run_flags(), words, "python -m pipelines run", ""))
    expected = {
        name: parameter.default
        for name, parameter in parameters("finetune").items()
        if name not in CLUSTER_ONLY
    }
    expected |= {
        "source": "x.fasta",
        "epochs": 2,
        "learning_rate": 0.25,
        "deploy_to": "kserve",
        "runs": "runs",
    }
    assert flags == expected


def test_run_predict_takes_the_flags_of_its_own_graph() -> None:
    words = ["--source", "x.fasta", "--model", "m", "--num-shards", "3", "--on-bad", "skip"]
    flags = vars(parse_flags(run_flags("predict"), words, "python -m pipelines run predict", ""))
    assert flags == {
        "source": "x.fasta",
        "model": "m",
        "num_shards": 3,
        "on_bad": "skip",
        "precision": "auto",
        "table_format": "csv",
        "runs": "runs",
    }


def test_run_refuses_a_flag_for_the_cluster() -> None:
    with pytest.raises(ConfigError, match="unknown flag --torch-image"):
        parse_flags(run_flags(), ["--source", "x", "--torch-image", "y"], "python -m pipelines run", "")


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("epochs", 0, "epochs=0: expected at least 1"),
        ("on_conflict", "maybe", "on_conflict='maybe': expected one of refuse, drop"),
        ("min_gate_proteins", 0, "min_gate_proteins=0"),
        ("deploy_to", "moon", "to='moon': expected one of auto, local, kserve"),
        ("cut", "middle", "cut"),
    ],
)
def test_a_setting_that_a_stage_would_refuse_is_refused_before_anything_runs(
    name: str, value: Any, line: str
) -> None:
    with pytest.raises(ConfigError, match=line):
        check({"source": "x.fasta", name: value})


def test_help_is_the_string_under_the_field() -> None:
    docs = field_docs(TrainConfig)
    assert docs["patience"] == (
        "Epochs without a better calibrated validation loss before training stops; 0 never stops early."
    )
    assert set(docs) == {field.name for field in fields(TrainConfig)}
