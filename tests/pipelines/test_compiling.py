"""The compiled graphs: current, wired, and given what they need on a cluster."""

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.compiling import GRAPHS, compile_graph, compiled
from pipelines.resources import (
    CA_CONFIG_MAP,
    CA_FOLDER,
    FROM_CONFIG_MAP,
    FROM_SECRET,
    LONG_SECONDS,
    NUM_RETRIES,
    PARALLEL_SHARDS,
    PREDICT_SECONDS,
    SHORT_SECONDS,
    TRAIN_SECONDS,
    USER,
)
from prottune import __version__


class Graph:
    """A committed graph, looked at from its tasks."""

    def __init__(self, name: str) -> None:
        documents = list(yaml.safe_load_all(compiled(name).read_text(encoding="utf-8")))
        self.spec, self.platforms = documents

    def dags(self) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
        """Every group of tasks: its name, what it is given, and its tasks."""
        yield "root", self.spec["root"].get("inputDefinitions", {}), self.spec["root"]["dag"]["tasks"]
        for name, component in self.spec["components"].items():
            if "dag" in component:
                yield name, component.get("inputDefinitions", {}), component["dag"]["tasks"]

    def leaf_tasks(self) -> dict[str, dict[str, Any]]:
        """Name -> every task that runs a container."""
        return {
            name: task
            for _, _, tasks in self.dags()
            for name, task in tasks.items()
            if "executorLabel" in self.spec["components"][task["componentRef"]["name"]]
        }

    def platform(self, task: str) -> dict[str, Any]:
        executors = self.platforms["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
        settings: dict[str, Any] = executors[self._executor(task)]
        return settings

    def container(self, task: str) -> dict[str, Any]:
        settings: dict[str, Any] = self.spec["deploymentSpec"]["executors"][self._executor(task)]["container"]
        return settings

    def _executor(self, task: str) -> str:
        name = self.leaf_tasks()[task]["componentRef"]["name"]
        return str(self.spec["components"][name]["executorLabel"])


graph_of = cache(Graph)

MAIN_PATH = ("ingest", "compare", "tokenize", "train", "evaluate", "register", "deploy", "promote")
TASKS = {
    "finetune": {*MAIN_PATH, "hold", "stop-early", "finish"},
    "predict": {"choose", "split", "predict", "merge"},
}
EVERY_TASK = [(graph, task) for graph, tasks in TASKS.items() for task in sorted(tasks)]
ON_GPUS = [("finetune", "train"), ("finetune", "evaluate"), ("predict", "predict")]
SECONDS = {
    "train": TRAIN_SECONDS,
    "predict": PREDICT_SECONDS,
    **dict.fromkeys(("ingest", "evaluate", "deploy", "split", "merge"), LONG_SECONDS),
}


@pytest.mark.parametrize("graph", GRAPHS)
def test_the_committed_graph_is_current(graph: str, tmp_path: Path) -> None:
    fresh = compile_graph(tmp_path / "graph.yaml", graph)
    assert fresh.read_bytes() == compiled(graph).read_bytes(), (
        "run `make compile`, and say in the commit what changed"
    )


@pytest.mark.parametrize("graph", GRAPHS)
def test_the_graph_has_all_tasks_and_no_other(graph: str) -> None:
    assert set(graph_of(graph).leaf_tasks()) == TASKS[graph]


@pytest.mark.parametrize("graph", GRAPHS)
def test_every_parameter_that_a_task_names_reaches_it(graph: str) -> None:
    """kfp 2.17 drops a parameter that only a resource names inside a group: then this fails."""
    for group, given, tasks in graph_of(graph).dags():
        for task, spec in tasks.items():
            for name, source in spec.get("inputs", {}).get("parameters", {}).items():
                named = source.get("componentInputParameter")
                assert named is None or named in given.get("parameters", {}), (group, task, name)
            component = graph_of(graph).spec["components"][spec["componentRef"]["name"]]
            handed = {*spec.get("inputs", {}).get("parameters", {}), _item_of_loop(spec)}
            for name, definition in component.get("inputDefinitions", {}).get("parameters", {}).items():
                assert name in handed or definition.get("isOptional"), (group, task, name)


def _item_of_loop(task: dict[str, Any]) -> str:
    """What a loop hands to each round; empty for a task that is no loop."""
    return str(task.get("parameterIterator", {}).get("itemInput", ""))


@pytest.mark.parametrize("graph", GRAPHS)
def test_every_placeholder_of_a_container_is_an_input_of_its_task(graph: str) -> None:
    for name, task in graph_of(graph).leaf_tasks().items():
        handed = set(task.get("inputs", {}).get("parameters", {}))
        for part in json.dumps(graph_of(graph).container(name)).split("inputs.parameters['")[1:]:
            assert part.split("'")[0] in handed, name


@pytest.mark.parametrize("graph", GRAPHS)
def test_every_parameter_of_a_pod_setting_reaches_the_group_of_its_task(graph: str) -> None:
    for group, given, tasks in graph_of(graph).dags():
        for name in set(tasks) & TASKS[graph]:
            for channel in _component_inputs(graph_of(graph).platform(name)):
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


@pytest.mark.parametrize(("graph", "task"), EVERY_TASK)
def test_no_task_is_cached(graph: str, task: str) -> None:
    cached = graph_of(graph).leaf_tasks()[task]["cachingOptions"]
    assert cached == {}, "KFP's cache keys are strings, not contents"


@pytest.mark.parametrize(("graph", "task"), [entry for entry in EVERY_TASK if entry[1] != "finish"])
def test_every_task_survives_a_lost_pod(graph: str, task: str) -> None:
    assert graph_of(graph).leaf_tasks()[task]["retryPolicy"]["maxRetryCount"] == NUM_RETRIES


@pytest.mark.parametrize(("graph", "task"), EVERY_TASK)
def test_every_task_runs_in_the_image_of_its_weight(graph: str, task: str) -> None:
    parameter = "torch_image" if (graph, task) in ON_GPUS else "light_image"
    image = graph_of(graph).container(task)["image"]
    assert image == f"{{{{$.inputs.parameters['pipelinechannel--{parameter}']}}}}"


@pytest.mark.parametrize("graph", GRAPHS)
def test_image_parameters_default_to_this_version(graph: str) -> None:
    parameters = graph_of(graph).spec["root"]["inputDefinitions"]["parameters"]
    assert parameters["light_image"]["defaultValue"] == f"prottune-light:{__version__}"
    assert parameters["torch_image"]["defaultValue"] == f"prottune-torch:{__version__}"


@pytest.mark.parametrize("graph", GRAPHS)
def test_the_form_says_what_each_parameter_means(graph: str) -> None:
    parameters = graph_of(graph).spec["root"]["inputDefinitions"]["parameters"]
    assert [name for name, entry in parameters.items() if len(entry.get("description", "")) < 15] == []


@pytest.mark.parametrize(("graph", "task"), EVERY_TASK)
def test_every_task_has_a_time_limit(graph: str, task: str) -> None:
    limit = graph_of(graph).platform(task)["activeDeadlineSeconds"]
    assert limit == str(SECONDS.get(task, SHORT_SECONDS))


@pytest.mark.parametrize(("graph", "task"), EVERY_TASK)
def test_no_step_runs_as_root(graph: str, task: str) -> None:
    context = graph_of(graph).platform(task)["securityContext"]
    assert context == {"runAsUser": str(USER), "runAsGroup": str(USER), "runAsNonRoot": True}
    image = (Path(__file__).parents[2] / "components/Dockerfile").read_text()
    assert image.count("\nUSER ") == image.count(f"\nUSER {USER}:{USER}\n") > 0


@pytest.mark.parametrize(("graph", "task"), EVERY_TASK)
def test_settings_come_from_one_config_map_and_one_secret(graph: str, task: str) -> None:
    (config_map,) = graph_of(graph).platform(task)["configMapAsEnv"]
    (secret,) = graph_of(graph).platform(task)["secretAsEnv"]
    assert (config_map["configMapName"], config_map["optional"]) == ("prottune", True)
    assert {entry["envVar"] for entry in config_map["keyToEnv"]} == set(FROM_CONFIG_MAP)
    assert (secret["secretName"], secret["optional"]) == ("prottune-s3", True)
    assert {entry["envVar"] for entry in secret["keyToEnv"]} == set(FROM_SECRET)
    (mounted,) = graph_of(graph).platform(task)["configMapAsVolume"]
    assert (mounted["configMapName"], mounted["mountPath"], mounted["optional"]) == (
        CA_CONFIG_MAP,
        CA_FOLDER,
        True,
    )


@pytest.mark.parametrize(("graph", "task"), EVERY_TASK)
def test_every_task_knows_its_pipeline_run(graph: str, task: str) -> None:
    assert graph_of(graph).platform(task)["fieldPathAsEnv"] == [
        {"name": "PROTTUNE_PIPELINE_RUN", "fieldPath": "metadata.labels['pipeline/runid']"}
    ]


@pytest.mark.parametrize(("graph", "task"), ON_GPUS)
def test_gpu_tasks_get_gpus_nodes_tolerations_and_shared_memory(graph: str, task: str) -> None:
    accelerator = graph_of(graph).container(task)["resources"]["accelerator"]
    platform = graph_of(graph).platform(task)
    assert accelerator["resourceType"] == "nvidia.com/gpu"
    parameter = "evaluate_gpus" if task == "evaluate" else "num_gpus"
    assert accelerator["resourceCount"] == f"{{{{$.inputs.parameters['pipelinechannel--{parameter}']}}}}"
    assert platform["nodeSelector"]["nodeSelectorJson"] == {
        "componentInputParameter": "pipelinechannel--node_selector"
    }
    assert platform["tolerations"] == [
        {"tolerationJson": {"componentInputParameter": "pipelinechannel--tolerations"}}
    ]
    (memory,) = platform["emptyDirMounts"]
    assert (memory["mountPath"], memory["medium"]) == ("/dev/shm", "Memory")


@pytest.mark.parametrize(("graph", "task"), [entry for entry in EVERY_TASK if entry not in ON_GPUS])
def test_no_other_task_holds_a_gpu(graph: str, task: str) -> None:
    assert "accelerator" not in graph_of(graph).container(task)["resources"]


def test_both_ends_of_every_condition_are_written() -> None:
    """kfp.local skips a lone If on a named output without a word and reports success."""
    conditions = [
        task["triggerPolicy"]["condition"]
        for _, _, tasks in graph_of("finetune").dags()
        for task in tasks.values()
        if "condition" in task.get("triggerPolicy", {})
    ]
    negated = {condition for condition in conditions if condition.startswith("!(")}
    assert len(conditions) == 4
    assert {f"!({condition})" for condition in conditions if not condition.startswith("!(")} == negated


def test_promotion_follows_the_rollout() -> None:
    assert {"deploy", "register"} <= set(graph_of("finetune").leaf_tasks()["promote"]["dependentTasks"])


def test_the_last_task_runs_however_the_others_end() -> None:
    finish = graph_of("finetune").spec["root"]["dag"]["tasks"]["finish"]
    assert finish["triggerPolicy"] == {"strategy": "ALL_UPSTREAM_TASKS_COMPLETED"}


def loop() -> dict[str, Any]:
    tasks: dict[str, dict[str, Any]] = graph_of("predict").spec["root"]["dag"]["tasks"]
    (found,) = (task for task in tasks.values() if "parameterIterator" in task)
    return found


def test_shards_are_answered_some_at_a_time_outside_of_any_exit_handler() -> None:
    """`loop` looks at the root only: KFP's backend runs no loop inside an exit handler."""
    assert loop()["iteratorPolicy"] == {"parallelismLimit": PARALLEL_SHARDS}
    assert loop()["dependentTasks"] == ["choose", "split"]


def test_nothing_but_the_shard_comes_to_the_loop_as_another_tasks_parameter() -> None:
    """kfp.local hands the loop's item to every input of a loop that is a parameter of another task."""
    from_tasks = [
        source["taskOutputParameter"]["producerTask"]
        for source in loop()["inputs"]["parameters"].values()
        if "taskOutputParameter" in source
    ]
    assert from_tasks == ["split"]


def test_the_answers_of_all_shards_are_merged() -> None:
    merge = graph_of("predict").leaf_tasks()["merge"]
    source = merge["inputs"]["artifacts"]["answers"]["taskOutputArtifact"]
    assert source["producerTask"] in merge["dependentTasks"]
    assert graph_of("predict").spec["root"]["dag"]["tasks"][source["producerTask"]] == loop()
