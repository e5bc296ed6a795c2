"""The graph's parameters as flags of `python -m pipelines run`, checked before anything starts."""

import ast
import contextlib
import inspect
import json
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, make_dataclass
from itertools import pairwise
from typing import Annotated, Any, get_origin

import tyro

from pipelines.compiling import GRAPHS
from pipelines.finetune import finetune
from pipelines.predict import predict
from prottune.deployment.settings import DeployConfig
from prottune.errors import ConfigError
from prottune.evaluation.settings import EvaluateConfig
from prottune.ingestion.settings import IngestConfig
from prottune.prediction.settings import MergeConfig, PredictConfig, ReadConfig, SplitConfig
from prottune.tokenization import TokenizeConfig
from prottune.training.settings import TrainConfig

SETTINGS: dict[str, tuple[type[Any], ...]] = {
    "finetune": (IngestConfig, TokenizeConfig, TrainConfig, EvaluateConfig, DeployConfig),
    "predict": (ReadConfig, SplitConfig, PredictConfig, MergeConfig),
}
"""Graph -> where its settings live, in the order of its stages."""

RENAMED = {"deploy_to": "to"}
"""Pipeline parameter -> setting, where the setting's own name says too little in a list of twenty."""

ADDRESSES = {
    "finetune": {
        "source": "File, folder, http(s):// or s3:// address of the labelled proteins.",
        "checkpoints": "Folder or s3:// prefix of all runs' checkpoints; empty: each run's own folder.",
    },
    "predict": {
        "source": "File, http(s):// or s3:// address of the proteins, FASTA; .gz is unpacked.",
        "model": "registry (the model that serves now), or a model's folder or s3:// address.",
    },
}
"""Parameters that say where things lie -> what they mean to who runs the graph here; no stage's settings."""

IN_A_CLUSTER = {
    "light_image": "Image of the steps without torch.",
    "torch_image": "Image of the steps with torch.",
    "num_gpus": "GPUs of a pod that computes; 0 computes on processors.",
    "node_selector": 'Labels of the nodes that compute, as JSON: {"pool": "gpu"}.',
    "tolerations": "Taints that pods which compute tolerate, as JSON: a list as in a pod.",
}
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
    help_of = ADDRESSES[graph] | IN_A_CLUSTER
    for settings in SETTINGS[graph]:
        help_of |= field_docs(settings)
    entries: list[tuple[str, Any, Any]] = []
    for name in names:
        parameter = parameters(graph)[name]
        is_json = get_origin(parameter.annotation) in _JSON
        hint = tyro.conf.arg(help=help_of[RENAMED.get(name, name)])
        kind: Any = str if is_json else parameter.annotation
        described = Annotated[kind, hint]
        default = MISSING if parameter.default is inspect.Parameter.empty else parameter.default
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
    settings = {RENAMED.get(name, name): value for name, value in values.items()}
    for kind in SETTINGS[graph]:
        kind(**{entry.name: settings[entry.name] for entry in fields(kind) if entry.name in settings})


def field_docs(kind: type[Any]) -> dict[str, str]:
    """The string under each field of a dataclass, in one line."""
    body = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]
    statements = body.body if isinstance(body, ast.ClassDef) else []
    found = {}
    for entry, below in pairwise(statements):
        match entry, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                found[name] = " ".join(text.split())
    return found


@dataclass(frozen=True, kw_only=True)
class _RunsFolder:
    runs: str = "runs"
    """Folder that keeps every run and, unless MLFLOW_TRACKING_URI says otherwise, MLflow's database."""
