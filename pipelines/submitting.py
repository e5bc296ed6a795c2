"""Send a graph to Kubeflow Pipelines, start a run of it, and follow the run if asked to."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pipelines.backend import Backend, BackendFlags, NotLetInError
from pipelines.compiling import compiled
from pipelines.parameters import check, settings_of, with_defaults
from prottune.addresses import local_path, s3_uri
from prottune.errors import ConfigError, ServiceError
from prottune.training.order import check_nodes
from prottune.training.settings import TrainConfig

ENDED = ("SUCCEEDED", "SKIPPED", "FAILED", "CANCELED")
POLL_SECONDS = 5.0
PATIENCE_SECONDS = 300.0
"""So long may the server be silent before a run is followed no further; the run itself goes on."""
_IN_REACH_OF_A_POD = {"source": ("s3://", "http://", "https://"), "checkpoints": ("s3://",)}
"""Parameter -> how addresses start that a pod can read; where checkpoints lie it must write, too."""
_GROUPS = ("root", "-driver")
"""Names, or ends of names, of tasks that are KFP's own: the graph itself and the drivers of its steps."""


@dataclass(frozen=True, kw_only=True)
class SubmitFlags(BackendFlags):
    """Where a run goes and how it is called."""

    experiment: str = "prottune"
    """Experiment that the run belongs to; made if it is not there."""
    run_name: str = ""
    """Name of the run; empty: the graph and the time."""
    service_account: str = "prottune-run"
    """Account of the run's pods; manifests/ makes it."""
    wait: bool = False
    """Follow the run until it ends, and end with its result."""


def submit(graph: str, flags: SubmitFlags, values: Mapping[str, Any]) -> int:
    """Start a run of a graph with these parameters; returns the exit code.

    Raises: ConfigError for parameters that a stage would refuse, before anything is sent; ServiceError if
        the server does not answer or, when followed, the run fails.
    """
    check_for_pods(graph, values)
    backend = Backend(flags)
    version = backend.version_of(compiled(graph))
    name = flags.run_name or f"{graph} {datetime.now(UTC):%Y-%m-%d %H:%M:%S}"
    experiment = backend.experiment(flags.experiment)
    run_id = backend.start(version, experiment, name, values, flags.service_account)
    print(f"{'uploaded' if version.is_new else 'already there'}: version {version.name} of the graph")
    print(f"run {name}: {backend.run_page(run_id)}")
    if flags.wait:
        _tell(follow(backend, run_id), name)
    return 0


def check_for_pods(graph: str, values: Mapping[str, Any]) -> None:
    """Refuse what a stage would refuse, and addresses that a pod cannot reach.

    Raises: ConfigError.
    """
    check(values, graph)
    for name, starts in _IN_REACH_OF_A_POD.items():
        address = str(values.get(name) or "")
        if address and not s3_uri(address).startswith(starts):
            act = "read" if len(starts) > 1 else "write"
            kinds = "an s3:// or https:// address" if len(starts) > 1 else "an s3:// prefix"
            raise ConfigError(f"{name}={address!r}: a pod cannot {act} that; give {kinds}")
    for name in ("base_model", "model"):
        address = str(values.get(name) or "")
        folder = local_path(address) if "/" in address else None  # `registry` and `tiny` are no folders
        if folder is not None and folder.expanduser().is_dir():
            raise ConfigError(
                f"{name}={address!r} is a folder of this machine: a pod cannot read that; put it into the "
                "store and name its s3:// prefix"
            )
    whole = with_defaults(values, graph)
    _check_node_words(whole)
    if "num_nodes" in whole:
        check_nodes(settings_of(TrainConfig, whole), str(whole["checkpoints"]), int(whole["num_gpus"]))
    _check_gpus(whole)
    if whole.get("deploy_to") == "local" and whole["light_image"] != whole["torch_image"]:
        raise ConfigError(
            "deploy_to='local': the step `deploy` has no torch to serve a model with; expected auto or "
            "kserve (or the torch image as light_image too)"
        )


def _check_gpus(whole: Mapping[str, Any]) -> None:
    """Refuse GPUs that would stay idle in a pod, and processes that would find none.

    Raises: ConfigError.
    """
    for name in ("num_gpus", "evaluate_gpus"):
        if whole.get(name, 0) < 0:
            raise ConfigError(f"{name}={whole[name]}: expected at least 0")
    if "num_processes" not in whole:
        alone = ("num_gpus",)
    elif whole["num_nodes"] == 1 and whole["num_gpus"] not in (0, whole["num_processes"]):
        raise ConfigError(
            f"num_gpus={whole['num_gpus']}, num_processes={whole['num_processes']}: expected one GPU for "
            "each process, or 0 GPUs to train on processors"
        )
    else:
        alone = ("evaluate_gpus",)
    for name in alone:
        if whole[name] > 1:
            raise ConfigError(f"{name}={whole[name]}: expected 1 or 0; one process computes there")


def _check_node_words(whole: Mapping[str, Any]) -> None:
    """Refuse what Kubernetes would refuse of labels and tolerations when the pod that trains is made.

    Raises: ConfigError.
    """
    for label, value in whole["node_selector"].items():
        if not (isinstance(label, str) and isinstance(value, str)):
            raise ConfigError(
                f"node_selector: {label!r} is {value!r}, expected words; quote numbers and true"
            )
    for entry in whole["tolerations"]:
        if not isinstance(entry, Mapping):
            raise ConfigError(f"tolerations: got {entry!r}, expected objects, as in a pod")


def follow(backend: Backend, run_id: str) -> Any:
    """Print every step's state as it changes; returns the run when it has ended.

    Raises: ServiceError if the server is silent for minutes, or lets us in no more.
    """
    shown: dict[str, str] = {}
    heard = time.monotonic()
    while True:
        try:
            run = backend.run(run_id)
        except (ServiceError, NotLetInError) as error:  # a token may end before its run does
            if isinstance(error, NotLetInError) or time.monotonic() - heard > PATIENCE_SECONDS:
                raise ServiceError(f"{error}; the run itself goes on: {backend.run_page(run_id)}") from None
        else:
            heard = time.monotonic()
            for line in _changes(run, shown):
                print(line, flush=True)
            if run.state in ENDED:
                return run
        time.sleep(POLL_SECONDS)


def _changes(run: Any, shown: dict[str, str]) -> list[str]:
    details = run.run_details.task_details if run.run_details else None
    lines = []
    for task in details or []:
        name, state = str(task.display_name), str(task.state or "")
        if not state or name.endswith(_GROUPS) or shown.get(task.task_id) == state:
            continue
        shown[task.task_id] = state
        lines.append(f"  {name}: {state.lower()}{_duration(task)}")
    return lines


def _duration(task: Any) -> str:
    if task.state not in ENDED or not task.start_time or not task.end_time:
        return ""
    seconds = (task.end_time - task.start_time).total_seconds()
    return f" after {seconds:.0f} s" if seconds >= 1 else ""


def _tell(run: Any, name: str) -> None:
    """Say how a run ended.

    Raises: ServiceError, with the steps that failed, if it did not end well.
    """
    if run.state in ("SUCCEEDED", "SKIPPED"):
        print(f"run {name}: {run.state.lower()}")
        return
    details = (run.run_details.task_details if run.run_details else None) or []
    failed = [
        f"{task.display_name} ({task.error.message})"
        if task.error and task.error.message
        else task.display_name
        for task in details
        if task.state == "FAILED" and not str(task.display_name).endswith(_GROUPS)
    ]
    why = f": {', '.join(failed)}" if failed else ""
    raise ServiceError(f"run {name} {run.state.lower()}{why}")
