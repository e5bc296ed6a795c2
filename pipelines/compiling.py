"""The graph as the file that a cluster is given: `pipelines/compiled/finetune.yaml`."""

from dataclasses import dataclass
from pathlib import Path

COMPILED = Path(__file__).parent / "compiled" / "finetune.yaml"
"""Committed; `python -m pipelines compile` writes it and a test keeps it current."""


@dataclass(frozen=True, kw_only=True)
class CompileFlags:
    """Where the compiled graph goes."""

    target: Path = COMPILED
    """File to write."""


def compile_graph(target: Path = COMPILED) -> Path:
    """Write the compiled graph; equal sources give equal bytes."""
    from kfp import compiler

    from pipelines.finetune import finetune

    target.parent.mkdir(parents=True, exist_ok=True)
    compiler.Compiler().compile(finetune, str(target))
    return target
