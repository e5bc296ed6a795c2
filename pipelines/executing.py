"""Execute a committed graph in this process: `python -m pipelines.executing RUN_FOLDER GRAPH`.

`pipelines.running` starts this as a child, so that one run has one process tree that can be ended whole. It
holds this program's standard input open; when that ends, the parent was killed, and the run ends with it.
"""

import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import yaml

from pipelines.compiling import compiled
from pipelines.processes import end_processes_of

PARAMETERS_FILE = "parameters.json"
STEPS_FOLDER = "steps"


def execute(folder: Path, graph: str) -> None:
    """Run a committed graph with the parameters in a run's folder; every step's outputs go below `steps`.

    Raises: RuntimeError if a step fails.
    """
    from kfp import components, local

    # kfp.local replaces the text "python3" in everything it hands to a step, paths and settings included, by
    # this name. With the same name nothing changes; PATH leads to this very environment.
    sys.executable = "python3"
    local.init(
        local.SubprocessRunner(use_venv=False),
        pipeline_root=str(folder / STEPS_FOLDER),
        workspace_root=str(folder / "workspace"),
    )
    committed = compiled(graph).read_text(encoding="utf-8")
    pipeline = components.load_component_from_text(without_retries(committed))
    pipeline(**json.loads((folder / PARAMETERS_FILE).read_text(encoding="utf-8")))


def without_retries(committed: str) -> str:
    """The compiled graph less its retries: they are for pods that vanish; a bad file stays bad here."""
    documents = list(yaml.safe_load_all(committed))
    graph = documents[0]
    for component in [graph["root"], *graph["components"].values()]:
        tasks: dict[str, dict[str, Any]] = component.get("dag", {}).get("tasks", {})
        for task in tasks.values():
            task.pop("retryPolicy", None)
    return yaml.safe_dump_all(documents)


def end_with_the_parent() -> None:
    """Wait for the end of standard input, then close the MLflow run and end every process of this run."""
    from prottune.tracking.step import close_run

    while os.read(sys.stdin.fileno(), 1):  # not sys.stdin.read(): it would hold a lock when Python ends
        pass
    try:
        close_run(
            "KILLED"
        )  # before the steps end: the graph would go on to its last step, and call it FAILED
    finally:
        end_processes_of(os.environ["PROTTUNE_PIPELINE_RUN"])
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    watcher = threading.Thread(target=end_with_the_parent, daemon=True)
    watcher.start()
    try:
        execute(Path(sys.argv[1]), sys.argv[2])
    except BrokenPipeError:  # nobody reads any more: the parent was killed
        watcher.join()
