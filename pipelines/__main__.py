"""The operator's program: `python -m pipelines compile | run`."""

import sys
from collections.abc import Sequence
from pathlib import Path

from prottune.cli import guarded

VERBS = {
    "compile": "write the graph as the file that a cluster is given: pipelines/compiled/finetune.yaml",
    "run": "run that file on this machine: ingest, tokenize, train, evaluate, register, deploy, promote",
}
PROGRAM = "python -m pipelines"


def main(words: Sequence[str]) -> int:
    """Run one verb; returns the exit code."""
    from prottune.flags import parse_flags

    verb, rest = words[0], words[1:]
    if verb == "compile":
        from pipelines.compiling import CompileFlags, compile_graph

        flags = parse_flags(CompileFlags, rest, f"{PROGRAM} compile", VERBS["compile"])
        print(compile_graph(flags.target))
        return 0
    from pipelines.parameters import run_flags
    from pipelines.running import run

    values = vars(parse_flags(run_flags(), rest, f"{PROGRAM} run", VERBS["run"]))
    return run({name: value for name, value in values.items() if name != "runs"}, Path(values["runs"]))


if __name__ == "__main__":
    sys.exit(guarded(main, sys.argv[1:], PROGRAM, VERBS))
