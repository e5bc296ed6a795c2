"""The operator's program: `python -m pipelines compile | run`."""

import sys
from collections.abc import Sequence
from pathlib import Path

from pipelines.compiling import GRAPHS
from prottune.cli import guarded
from prottune.errors import ConfigError

VERBS = {
    "compile": "write the graphs, or the one named, as the files that a cluster is given: pipelines/compiled",
    "run": "run a graph on this machine: finetune (if none is named) or predict",
}
PROGRAM = "python -m pipelines"
_RUNS = {
    "finetune": "run it on this machine: ingest, tokenize, train, evaluate, register, deploy, promote",
    "predict": "label a proteome on this machine: choose the model, split, predict the shards, merge",
}


def main(words: Sequence[str]) -> int:
    """Run one verb; returns the exit code."""
    verb, graph, rest = _named(words)
    if verb == "compile":
        return _compile(graph, rest)
    return _run(graph or GRAPHS[0], rest)


def _named(words: Sequence[str]) -> tuple[str, str, Sequence[str]]:
    """The verb, the graph that is named behind it (or nothing), and the flags.

    Raises: ConfigError for a word that is no graph.
    """
    verb, *rest = words
    if not rest or rest[0].startswith("-"):
        return verb, "", rest
    if rest[0] not in GRAPHS:
        raise ConfigError(f"unknown graph {rest[0]!r}; expected one of {', '.join(GRAPHS)}")
    return verb, rest[0], rest[1:]


def _compile(graph: str, rest: Sequence[str]) -> int:
    from pipelines.compiling import CompileFlags, compile_graph, compiled
    from prottune.flags import parse_flags

    target = parse_flags(CompileFlags, rest, f"{PROGRAM} compile", VERBS["compile"]).target
    if target is not None:
        print(compile_graph(target, graph or GRAPHS[0]))
        return 0
    for name in [graph] if graph else GRAPHS:
        print(compile_graph(compiled(name), name))
    return 0


def _run(graph: str, rest: Sequence[str]) -> int:
    from pipelines.parameters import run_flags
    from pipelines.running import run
    from prottune.flags import parse_flags

    program = f"{PROGRAM} run" if graph == GRAPHS[0] else f"{PROGRAM} run {graph}"
    values = vars(parse_flags(run_flags(graph), rest, program, _RUNS[graph]))
    return run({name: value for name, value in values.items() if name != "runs"}, Path(values["runs"]), graph)


if __name__ == "__main__":
    sys.exit(guarded(main, sys.argv[1:], PROGRAM, VERBS))
