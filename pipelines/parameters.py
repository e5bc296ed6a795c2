"""The graph's parameters as flags of `python -m pipelines run`, checked before anything starts."""

import contextlib
import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, make_dataclass
from typing import Annotated, Any, TypeVar, get_origin

import tyro

from pipelines.compiling import GRAPHS
from pipelines.finetune import finetune
from pipelines.images import images
from pipelines.meanings import IN_A_CLUSTER, RENAMED, SETTINGS, meanings
from pipelines.predict import predict
from prottune.errors import ConfigError

Settings = TypeVar("Settings")

CLUSTER_ONLY = tuple(IN_A_CLUSTER)
"""Parameters that say nothing on a laptop."""

_JSON: dict[Any, str] = {dict: "an object", list: "a list"}
"""Types of parameters that are written as JSON on a command line."""


def parameters(graph: str) -> dict[str, inspect.Parameter]:
    """All parameters of a graph."""
    pipeline: Any = {"finetune": finetune, "predict": predict}[graph]
    return dict(inspect.signature(pipeline.pipeline_func).parameters)


def run_flags(graph: str = GRAPHS[0]) -> type[Any]:
    """A dataclass with one field for each parameter that means something on a laptop, and `runs`."""
    return _flags(graph, [name for name in parameters(graph) if name not in CLUSTER_ONLY], _RunsFolder)


def submit_flags(graph: str, base: type[Any]) -> type[Any]:
    """The fields of a dataclass, and one for each parameter of a graph; lists and objects are JSON."""
    return _flags(graph, list(parameters(graph)), base)


def values_of(flags: Any, graph: str) -> dict[str, Any]:
    """The graph's parameters among flags that were read.

    Raises: ConfigError for what is not the JSON that a parameter takes.
    """
    return {
        name: _from_json(name, getattr(flags, name), kind) if kind in _JSON else getattr(flags, name)
        for name, each in parameters(graph).items()
        if hasattr(flags, name)
        for kind in [get_origin(each.annotation)]
    }


def _flags(graph: str, names: Sequence[str], base: type[Any]) -> type[Any]:
    help_of, named = meanings(graph), images()
    entries: list[tuple[str, Any, Any]] = []
    for name in names:
        parameter = parameters(graph)[name]
        is_json = get_origin(parameter.annotation) in _JSON
        hint = tyro.conf.arg(help=help_of[name])
        kind: Any = str if is_json else parameter.annotation
        described = Annotated[kind, hint]
        default = named.get(name, parameter.default)
        default = MISSING if default is inspect.Parameter.empty else default
        entries.append((name, described, field(default=json.dumps(default) if is_json else default)))
    return make_dataclass("GraphFlags", entries, bases=(base,), frozen=True, kw_only=True)


def _from_json(name: str, text: str, kind: type[Any]) -> Any:
    with contextlib.suppress(ValueError):
        value = json.loads(text)
        if isinstance(value, kind):
            return value
    raise ConfigError(f"{name}: got {text!r}, expected JSON of {_JSON[kind]}")


def check(values: Mapping[str, Any], graph: str = GRAPHS[0]) -> None:
    """Refuse settings that a stage would refuse, before anything runs.

    Raises: ConfigError.
    """
    for kind in SETTINGS[graph]:
        settings_of(kind, values)


def settings_of(kind: type[Settings], values: Mapping[str, Any]) -> Settings:
    """A stage's settings, as a run with these parameters has them.

    Raises: ConfigError for what the stage would refuse.
    """
    settings = {RENAMED.get(name, name): value for name, value in values.items()}
    wanted: Any = kind
    return kind(**{entry.name: settings[entry.name] for entry in fields(wanted) if entry.name in settings})


def with_defaults(values: Mapping[str, Any], graph: str) -> dict[str, Any]:
    """Some parameters of a graph, and the graph's own defaults for the others that have one."""
    defaults = {name: each.default for name, each in parameters(graph).items()}
    chosen = {**defaults, **values}
    return {name: value for name, value in chosen.items() if value is not inspect.Parameter.empty}


@dataclass(frozen=True, kw_only=True)
class _RunsFolder:
    runs: str = "runs"
    """Folder that keeps every run and, unless MLFLOW_TRACKING_URI says otherwise, MLflow's database."""
