import ast
import inspect
import textwrap
from typing import Any

import pytest
from kfp.dsl import base_component

from components import (
    LIGHT_IMAGE,
    TORCH_IMAGE,
    deployment,
    endings,
    evaluation,
    ingestion,
    news,
    prediction,
    registration,
    tokenization,
    training,
)
from prottune import __version__

MODULES = (ingestion, news, registration, tokenization, training, evaluation, deployment, endings, prediction)
COMPONENTS: list[Any] = sorted(
    (
        value
        for module in MODULES
        for value in vars(module).values()
        if isinstance(value, base_component.BaseComponent)
    ),
    key=lambda component: component.name,
)
MAX_STATEMENTS = 15
ON_GPUS = ("train", "evaluate", "predict")


def test_the_steps_are_the_verbs_of_the_design() -> None:
    verbs = {"ingest", "compare", "tokenize", "train", "evaluate", "register", "deploy", "promote"}
    ends = {"hold", "stop_early", "finish"}
    labels = {"choose", "split", "predict", "merge"}
    assert {component.python_func.__name__ for component in COMPONENTS} == verbs | ends | labels


def test_image_names_carry_the_version_of_prottune() -> None:
    assert (f"prottune-light:{__version__}", f"prottune-torch:{__version__}") == (LIGHT_IMAGE, TORCH_IMAGE)


@pytest.mark.parametrize("component", COMPONENTS, ids=lambda component: component.name)
def test_a_component_is_a_call(component: Any) -> None:
    function = ast.parse(textwrap.dedent(inspect.getsource(component.python_func))).body[0]
    assert isinstance(function, ast.FunctionDef)
    docstring, *body = function.body
    assert isinstance(docstring, ast.Expr), "its first line says what it does"
    inside = [node for statement in body for node in ast.walk(statement)]
    assert sum(isinstance(node, ast.stmt) for node in inside) <= MAX_STATEMENTS
    assert not any(isinstance(node, ast.Import) for node in inside)
    imported = {
        node.module.split(".")[0] for node in inside if isinstance(node, ast.ImportFrom) and node.module
    }
    assert imported <= {"kfp", "prottune", "pathlib"}
    assert not function.args.defaults, "defaults live beside the settings"
    assert not function.args.kw_defaults, "defaults live beside the settings"


@pytest.mark.parametrize("component", COMPONENTS, ids=lambda component: component.name)
def test_nothing_is_installed_when_a_step_starts(component: Any) -> None:
    container = component.component_spec.implementation.container
    assert container.image == (TORCH_IMAGE if component.name in ON_GPUS else LIGHT_IMAGE)
    assert "pip install" not in " ".join(container.command)


@pytest.mark.parametrize("component", COMPONENTS, ids=lambda component: component.name)
def test_only_plain_values_cross_the_border(component: Any) -> None:
    parameters = {
        name: spec.type
        for name, spec in (component.component_spec.inputs or {}).items()
        if not spec.type.startswith("system.")
    }
    assert set(parameters.values()) <= {"String", "Integer", "Float", "Boolean", "PipelineTaskFinalStatus"}, (
        parameters
    )
