"""The graphs as the files that a cluster is given: `pipelines/compiled/finetune.yaml` and `predict.yaml`."""

from dataclasses import dataclass
from pathlib import Path

from prottune.errors import ConfigError

GRAPHS = ("finetune", "predict")
"""The graphs; who names none means the first."""

_FOLDER = Path(__file__).parent / "compiled"


def compiled(graph: str) -> Path:
    """A graph's committed file; `python -m pipelines compile` writes it and a test keeps it current."""
    return _FOLDER / f"{graph}.yaml"


@dataclass(frozen=True, kw_only=True)
class CompileFlags:
    """Where a compiled graph goes."""

    target: Path | None = None
    """File to write one graph to, instead of all to their places."""


def compile_graph(target: Path, graph: str = GRAPHS[0]) -> Path:
    """Write a compiled graph; equal sources give equal bytes.

    Raises: ConfigError for a file that Kubeflow Pipelines would not take for a graph.
    """
    if target.suffix not in (".yaml", ".yml"):
        raise ConfigError(f"{target}: expected a name that ends with .yaml")
    from kfp import compiler

    from pipelines.finetune import finetune
    from pipelines.predict import predict

    target.parent.mkdir(parents=True, exist_ok=True)
    compiler.Compiler().compile({"finetune": finetune, "predict": predict}[graph], str(target))
    return target
