"""The compiled graph: current, wired, and given what it needs on a cluster."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.compiling import COMPILED, compile_graph
from pipelines.resources import (
    FROM_CONFIG_MAP,
    FROM_SECRET,
    LONG_SECONDS,
    NUM_RETRIES,
    SHORT_SECONDS,
    TRAIN_SECONDS,
)
from prottune import __version__

GRAPH, PLATFORMS = yaml.safe_load_all(COMPILED.read_text(encoding="utf-8"))
MAIN_PATH = ("ingest", "compare", "tokenize", "train", "evaluate", "register", "deploy", "promote")
TASKS = {*MAIN_PATH, "hold", "stop-early", "finish"}
ON_GPUS = {"train", "evaluate"}


def dags() -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Every group of tasks: its name, what it is given, and its tasks."""
    yield "root", GRAPH["root"].get("inputDefinitions", {}), GRAPH["root"]["dag"]["tasks"]
    for name, component in GRAPH["components"].items():
        if "dag" in component:
            yield name, component.get("inputDefinitions", {}), component["dag"]["tasks"]


def leaf_tasks() -> dict[str, dict[str, Any]]:
    """Name -> every task that runs a container."""
    return {
        name: task
        for _, _, tasks in dags()
        for name, task in tasks.items()
        if "executorLabel" in GRAPH["components"][task["componentRef"]["name"]]
    }


def platform(task: str) -> dict[str, Any]:
    label = GRAPH["components"][leaf_tasks()[task]["componentRef"]["name"]]["executorLabel"]
    settings: dict[str, Any] = PLATFORMS["platforms"]["kubernetes"]["deploymentSpec"]["executors"][label]
    return settings


def container(task: str) -> dict[str, Any]:
    label = GRAPH["components"][leaf_tasks()[task]["componentRef"]["name"]]["executorLabel"]
    settings: dict[str, Any] = GRAPH["deploymentSpec"]["executors"][label]["container"]
    return settings


def test_the_committed_graph_is_current(tmp_path: Path) -> None:
    fresh = compile_graph(tmp_path / "finetune.yaml")
    assert fresh.read_bytes() == COMPILED.read_bytes(), (
        "run `make compile`, and say in the commit what changed"
    )


def test_the_graph_has_all_tasks_and_no_other() -> None:
    assert set(leaf_tasks()) == TASKS


def test_every_parameter_that_a_task_names_reaches_it() -> None:
    """kfp 2.17 drops a parameter that only a resource names inside a group: then this fails."""
    for group, given, tasks in dags():
        for task, spec in tasks.items():
            for name, source in spec.get("inputs", {}).get("parameters", {}).items():
                named = source.get("componentInputParameter")
                assert named is None or named in given.get("parameters", {}), (group, task, name)
            component = GRAPH["components"][spec["componentRef"]["name"]]
            for name, definition in component.get("inputDefinitions", {}).get("parameters", {}).items():
                handed = spec.get("inputs", {}).get("parameters", {})
                assert name in handed or definition.get("isOptional"), (group, task, name)


def test_every_placeholder_of_a_container_is_an_input_of_its_task() -> None:
    for name, task in leaf_tasks().items():
        handed = set(task.get("inputs", {}).get("parameters", {}))
        for part in json.dumps(container(name)).split("inputs.parameters['")[1:]:
            assert part.split("'")[0] in handed, name


def test_every_parameter_of_a_pod_setting_reaches_the_group_of_its_task() -> None:
    for group, given, tasks in dags():
        for name in set(tasks) & TASKS:
            for channel in _component_inputs(platform(name)):
                assert channel in given["parameters"], (group, name)


def _component_inputs(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(named := node.get("componentInputParameter"), str):
            yield named
        for value in node.values():
            yield from _component_inputs(value)
    elif isinstance(node, list):
        for value in node:
            yield from _component_inputs(value)


@pytest.mark.parametrize("task", sorted(TASKS))
def test_no_task_is_cached(task: str) -> None:
    assert leaf_tasks()[task]["cachingOptions"] == {}, "KFP's cache keys are strings, not contents"


@pytest.mark.parametrize("task", sorted(TASKS - {"finish"}))
def test_every_task_survives_a_lost_pod(task: str) -> None:
    assert leaf_tasks()[task]["retryPolicy"]["maxRetryCount"] == NUM_RETRIES


@pytest.mark.parametrize("task", sorted(TASKS))
def test_every_task_runs_in_the_image_of_its_weight(task: str) -> None:
    parameter = "torch_image" if task in ON_GPUS else "light_image"
    assert container(task)["image"] == f"{{{{$.inputs.parameters['pipelinechannel--{parameter}']}}}}"


def test_image_parameters_default_to_this_version() -> None:
    parameters = GRAPH["root"]["inputDefinitions"]["parameters"]
    assert parameters["light_image"]["defaultValue"] == f"prottune-light:{__version__}"
    assert parameters["torch_image"]["defaultValue"] == f"prottune-torch:{__version__}"


@pytest.mark.parametrize("task", sorted(TASKS))
def test_every_task_has_a_time_limit(task: str) -> None:
    long = {"train": TRAIN_SECONDS} | dict.fromkeys(("ingest", "evaluate", "deploy"), LONG_SECONDS)
    assert platform(task)["activeDeadlineSeconds"] == str(long.get(task, SHORT_SECONDS))


@pytest.mark.parametrize("task", sorted(TASKS))
def test_settings_come_from_one_config_map_and_one_secret(task: str) -> None:
    (config_map,) = platform(task)["configMapAsEnv"]
    (secret,) = platform(task)["secretAsEnv"]
    assert (config_map["configMapName"], config_map["optional"]) == ("prottune", True)
    assert {entry["envVar"] for entry in config_map["keyToEnv"]} == set(FROM_CONFIG_MAP)
    assert (secret["secretName"], secret["optional"]) == ("prottune-s3", True)
    assert {entry["envVar"] for entry in secret["keyToEnv"]} == set(FROM_SECRET)


@pytest.mark.parametrize("task", sorted(TASKS))
def test_every_task_knows_its_pipeline_run(task: str) -> None:
    assert platform(task)["fieldPathAsEnv"] == [
        {"name": "PROTTUNE_PIPELINE_RUN", "fieldPath": "metadata.labels['pipeline/runid']"}
    ]


@pytest.mark.parametrize("task", sorted(ON_GPUS))
def test_gpu_tasks_get_gpus_nodes_tolerations_and_shared_memory(task: str) -> None:
    accelerator = container(task)["resources"]["accelerator"]
    assert accelerator["resourceType"] == "nvidia.com/gpu"
    parameter = {"train": "num_gpus", "evaluate": "evaluate_gpus"}[task]
    assert accelerator["resourceCount"] == f"{{{{$.inputs.parameters['pipelinechannel--{parameter}']}}}}"
    assert platform(task)["nodeSelector"]["nodeSelectorJson"] == {
        "componentInputParameter": "pipelinechannel--node_selector"
    }
    assert platform(task)["tolerations"] == [
        {"tolerationJson": {"componentInputParameter": "pipelinechannel--tolerations"}}
    ]
    (memory,) = platform(task)["emptyDirMounts"]
    assert (memory["mountPath"], memory["medium"]) == ("/dev/shm", "Memory")


def test_no_other_task_holds_a_gpu() -> None:
    for task in TASKS - ON_GPUS:
        assert "accelerator" not in container(task)["resources"], task


def test_both_ends_of_every_condition_are_written() -> None:
    """kfp.local skips a lone If on a named output without a word and reports success."""
    conditions = [
        task["triggerPolicy"]["condition"]
        for _, _, tasks in dags()
        for task in tasks.values()
        if "condition" in task.get("triggerPolicy", {})
    ]
    negated = {condition for condition in conditions if condition.startswith("!(")}
    assert len(conditions) == 4
    assert {f"!({condition})" for condition in conditions if not condition.startswith("!(")} == negated


def test_promotion_follows_the_rollout() -> None:
    assert {"deploy", "register"} <= set(leaf_tasks()["promote"]["dependentTasks"])


def test_the_last_task_runs_however_the_others_end() -> None:
    finish = GRAPH["root"]["dag"]["tasks"]["finish"]
    assert finish["triggerPolicy"] == {"strategy": "ALL_UPSTREAM_TASKS_COMPLETED"}
