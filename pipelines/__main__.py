"""The operator's program: `python -m pipelines compile | run | submit | schedule | doctor`."""

import sys
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path

from pipelines.compiling import GRAPHS
from prottune.cli import guarded, overview
from prottune.errors import ConfigError

VERBS = {
    "compile": "write the graphs, or the one named, as the files that a cluster is given: pipelines/compiled",
    "run": "run a graph on this machine: finetune (if none is named) or predict",
    "submit": "run a graph on Kubeflow Pipelines: finetune (if none is named) or predict",
    "schedule": "make Kubeflow Pipelines run graphs again and again: "
    "schedule apply | preview | list | pause | resume | delete",
    "doctor": "look at this machine, the cluster and its servers before a long run, and say what to do",
}
PROGRAM = "python -m pipelines"
_RUNS = {
    "finetune": "run it on this machine: ingest, tokenize, train, evaluate, register, deploy, promote",
    "predict": "label a proteome on this machine: choose the model, split, predict the shards, merge",
}


_SCHEDULE_VERBS = {  # what the verb takes, and what it does
    "apply": "[FILE ...]: put the schedules of the files, or of pipelines/schedules, on the server",
    "preview": "[FILE ...]: show the next times of each file's schedule; the server is not asked",
    "list": "show the server's schedules",
    "pause": "NAME: let a schedule start no further runs",
    "resume": "NAME: let a schedule go on",
    "delete": "NAME: remove a schedule; runs that it started stay",
}


def main(words: Sequence[str]) -> int:
    """Run one verb; returns the exit code."""
    if words[0] == "schedule":
        return _schedule(words[1:])
    if words[0] == "doctor":
        return _doctor(words[1:])
    verb, graph, rest = _named(words)
    if verb == "compile":
        return _compile(graph, rest)
    return (_submit if verb == "submit" else _run)(graph or GRAPHS[0], rest)


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


def _submit(graph: str, rest: Sequence[str]) -> int:
    from pipelines.parameters import submit_flags, values_of
    from pipelines.submitting import SubmitFlags, submit
    from prottune.flags import parse_flags

    described = f"run {graph} on Kubeflow Pipelines"
    flags = parse_flags(submit_flags(graph, SubmitFlags), rest, f"{PROGRAM} submit {graph}", described)
    return submit(graph, flags, values_of(flags, graph))


def _schedule(words: Sequence[str]) -> int:
    """Run `schedule VERB [FILES | NAME] [flags]`.

    Raises: ConfigError for a verb that there is not, and for a name that is missing.
    """
    from pipelines import scheduling
    from pipelines.backend import BackendFlags
    from prottune.flags import parse_flags

    verb = words[0] if words else ""
    if verb in ("-h", "--help"):
        print(overview(f"{PROGRAM} schedule", _SCHEDULE_VERBS))
        return 0
    if verb not in _SCHEDULE_VERBS:
        raise ConfigError(f"schedule: got {verb!r}, expected one of {', '.join(_SCHEDULE_VERBS)}")
    named = list(takewhile(lambda word: not word.startswith("-"), words[1:]))
    takes, _, meaning = _SCHEDULE_VERBS[verb].rpartition(": ")
    program = f"{PROGRAM} schedule {verb} {takes}".rstrip()
    flags = parse_flags(BackendFlags, words[1 + len(named) :], program, meaning)
    if verb == "list":
        if named:
            raise ConfigError(f"schedule list: unexpected word {named[0]!r}")
        lines = scheduling.listed(flags)
    elif verb in ("apply", "preview"):
        paths = scheduling.files([Path(word) for word in named])
        lines = scheduling.preview(paths) if verb == "preview" else scheduling.apply(paths, flags)
    elif len(named) == 1:
        lines = [scheduling.change(named[0], verb, flags)]
    else:
        raise ConfigError(f"schedule {verb}: expected the name of one schedule, got {len(named)}")
    print("\n".join(lines))
    return 0


def _doctor(words: Sequence[str]) -> int:
    from pipelines.checks.surroundings import DoctorFlags
    from pipelines.doctor import doctor
    from prottune.flags import parse_flags

    return doctor(parse_flags(DoctorFlags, words, f"{PROGRAM} doctor", VERBS["doctor"]))


if __name__ == "__main__":
    sys.exit(guarded(main, sys.argv[1:], PROGRAM, VERBS))
