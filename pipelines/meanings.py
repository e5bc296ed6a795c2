"""What each parameter of a graph means: the strings under the settings' fields, and the words for the rest.

They are the help of `run` and `submit`, and the descriptions in the form of Kubeflow Pipelines.
"""

import ast
import inspect
import textwrap
from collections.abc import Callable
from itertools import pairwise
from typing import Any, TypeVar

from prottune.deployment.settings import DeployConfig
from prottune.evaluation.settings import EvaluateConfig
from prottune.ingestion.settings import IngestConfig
from prottune.prediction.settings import MergeConfig, PredictConfig, ReadConfig, SplitConfig
from prottune.tokenization import TokenizeConfig
from prottune.training.settings import TrainConfig

Graph = TypeVar("Graph", bound=Callable[..., Any])

SETTINGS: dict[str, tuple[type[Any], ...]] = {
    "finetune": (IngestConfig, TokenizeConfig, TrainConfig, EvaluateConfig, DeployConfig),
    "predict": (ReadConfig, SplitConfig, PredictConfig, MergeConfig),
}
"""Graph -> where its settings live, in the order of its stages."""

RENAMED = {"deploy_to": "to"}
"""Pipeline parameter -> setting, where the setting's own name says too little in a list of twenty."""

ADDRESSES = {
    "finetune": {
        "source": "http(s):// or s3:// address of the labelled proteins; on a laptop a file or folder.",
        "checkpoints": "s3:// prefix of all runs' checkpoints, on a laptop a folder; empty: none, on a "
        "laptop the run's own folder.",
    },
    "predict": {
        "source": "http(s):// or s3:// address of the proteins, FASTA, also .gz; on a laptop a file.",
        "model": "registry (the model that serves now) or a model's s3:// address, on a laptop a folder.",
    },
}
"""Parameters that say where things lie -> what they mean to who runs the graph here; no stage's settings."""

IN_A_CLUSTER = {
    "light_image": "Image of the steps without torch.",
    "torch_image": "Image of the steps with torch.",
    "num_gpus": "GPUs of the pod that trains, or predicts; 0 computes on processors, and with several nodes.",
    "evaluate_gpus": "GPUs of the pod that evaluates; 0 computes on processors.",
    "node_selector": 'Labels of the nodes that compute, as JSON: {"pool": "gpu"}.',
    "tolerations": "Taints that pods which compute tolerate, as JSON: a list as in a pod.",
}


def meanings(graph: str) -> dict[str, str]:
    """Name of each parameter, and of each setting that may be one -> what it means, in one line."""
    found = ADDRESSES[graph] | IN_A_CLUSTER
    for settings in SETTINGS[graph]:
        found |= field_docs(settings)
    return found | {name: found[setting] for name, setting in RENAMED.items() if setting in found}


def described(graph: str) -> Callable[[Graph], Graph]:
    """Put the meaning of each parameter into a graph's docstring, from where kfp takes its descriptions."""

    def with_parameters(function: Graph) -> Graph:
        words = meanings(graph)
        lines = [f"    {name}: {words[name]}" for name in inspect.signature(function).parameters]
        function.__doc__ = "\n".join([inspect.getdoc(function) or "", "", "Args:", *lines])
        return function

    return with_parameters


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
