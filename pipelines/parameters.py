"""The graph's parameters as flags of `python -m pipelines run`, checked before anything starts."""

import ast
import inspect
import textwrap
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, make_dataclass
from itertools import pairwise
from typing import Annotated, Any

import tyro

from pipelines.finetune import finetune
from prottune.deployment.settings import DeployConfig
from prottune.evaluation.settings import EvaluateConfig
from prottune.ingestion.settings import IngestConfig
from prottune.tokenization import TokenizeConfig
from prottune.training.settings import TrainConfig

SETTINGS = (IngestConfig, TokenizeConfig, TrainConfig, EvaluateConfig, DeployConfig)
"""Where the pipeline's settings live, in the order of its stages."""

RENAMED = {"deploy_to": "to"}
"""Pipeline parameter -> setting, where the setting's own name says too little in a list of twenty."""

ADDRESSES = {
    "source": "File, folder, http(s):// or s3:// address of the labelled proteins.",
    "checkpoints": "Folder or s3:// prefix of all runs' checkpoints; empty: each run's own folder.",
}
"""Parameters that say where things lie -> what they mean to who runs the graph here; no stage's settings."""

CLUSTER_ONLY = ("light_image", "torch_image", "num_gpus", "evaluate_gpus", "node_selector", "tolerations")
"""Parameters that say nothing on a laptop."""


def run_flags() -> type[Any]:
    """A dataclass with one field for each parameter that means something on a laptop, and `runs`."""
    help_of = ADDRESSES | {name: text for kind in SETTINGS for name, text in field_docs(kind).items()}
    entries: list[tuple[str, Any, Any]] = []
    for name, parameter in inspect.signature(finetune.pipeline_func).parameters.items():
        if name not in CLUSTER_ONLY:
            hint = tyro.conf.arg(help=help_of[RENAMED.get(name, name)])
            described = Annotated[parameter.annotation, hint]  # type: ignore[name-defined]
            default = MISSING if parameter.default is inspect.Parameter.empty else parameter.default
            entries.append((name, described, field(default=default)))
    return make_dataclass("RunFlags", entries, bases=(_RunsFolder,), frozen=True, kw_only=True)


def check(values: Mapping[str, Any]) -> None:
    """Refuse settings that a stage would refuse, before anything runs.

    Raises: ConfigError.
    """
    settings = {RENAMED.get(name, name): value for name, value in values.items()}
    for kind in SETTINGS:
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
