"""How a run ends for the person who started it: `summary.json`, and where to look next."""

import json
import os
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from signal import Signals
from typing import Any

from pipelines.progress import Progress
from pipelines.runs import Run

_TRACEBACK_LINES = 40


@dataclass(frozen=True)
class Ending:
    """What one graph's steps leave behind, and how that is told."""

    gather: Callable[[Run], Any]
    """Run -> a dataclass of what the steps left, for `summary.json`; whatever did not come to be is empty."""
    tell: Callable[[Run, Any], list[str]]
    """Run and what was gathered -> the lines that a person reads."""
    has_last_step: bool
    """Whether a task of the graph closes the MLflow run however the others end."""


def done(run: Run, progress: Progress, ending: Ending) -> int:
    """Say what came out and what to open; returns 0, also when a model was held."""
    findings = ending.gather(run)
    _summarize(run, progress, findings, status="FINISHED", exit_code=0)
    print("\n" + "\n".join(ending.tell(run, findings)))
    return 0


def failed(run: Run, progress: Progress, ending: Ending) -> int:
    """End with the failed stage's one line on stderr; returns the stage's exit code."""
    record = _failure(run, progress)
    exit_code, findings = record["exit_code"], ending.gather(run)
    _summarize(run, progress, findings, status="FAILED", exit_code=exit_code, failure=record)
    if record["exit_code"] == 1:  # a bug: what the step said last, with its traceback
        print("\n".join(progress.said[-_TRACEBACK_LINES:]), file=sys.stderr)
    print(f"step {record['stage']} failed; all it said is in {shown(run.log)}", file=sys.stderr)
    bug = f"{record['error']}: " if record["exit_code"] == 1 and record["error"] else ""
    print(f"error: {bug}{record['message']}", file=sys.stderr)
    return int(record["exit_code"])


def interrupted(run: Run, progress: Progress, signum: int, ending: Ending) -> int:
    """Say that the run was ended; returns 128 + the signal's number, as shells do."""
    exit_code = 128 + signum
    _summarize(run, progress, ending.gather(run), status="KILLED", exit_code=exit_code)
    ended_by = Signals(signum).name
    print(f"\nerror: run {run.name} was ended by {ended_by}; its log is {shown(run.log)}", file=sys.stderr)
    return exit_code


def short_name(run: Run, folder: Path) -> Path:
    """Give a step's output a name that can be typed: runs/NAME/model -> where kfp put it."""
    link = run.folder / folder.name
    if not link.is_symlink():
        link.symlink_to(folder.relative_to(run.folder))
    return link


def read_json(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def _failure(run: Run, progress: Progress) -> dict[str, Any]:
    """The record that the failed step left, or what can be said of one that was killed."""
    try:
        record = read_json(run.failure_file)
    except (OSError, ValueError):
        last = progress.said[-1] if progress.said else "it said nothing; was it killed for memory?"
        stage = progress.failed or "the graph"
        record = {"stage": stage, "error": "", "message": f"{stage}: {last}", "exit_code": 1}
    return record


def _summarize(
    run: Run,
    progress: Progress,
    findings: Any,
    *,
    status: str,
    exit_code: int,
    failure: dict[str, Any] | None = None,
) -> None:
    summary = {
        "run": run.name,
        "status": status,
        "exit_code": exit_code,
        **vars(findings),
        "seconds": progress.seconds,
        "tracking_uri": run.tracking_uri,
        "failure": failure,
    }
    scratch = run.summary_file.with_suffix(".partial")
    scratch.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    scratch.replace(run.summary_file)


def mlflow_page(tracking_uri: str) -> str:
    """How to open MLflow's page: an address, or the command that serves it on this machine only."""
    if tracking_uri.startswith(("http://", "https://")):
        return tracking_uri
    program = shown(Path(sys.executable).with_name("mlflow"))
    address = "--host 127.0.0.1 --port 5000 --workers 1"
    return f"{program} server --backend-store-uri {shlex.quote(tracking_uri)} {address}   then http://127.0.0.1:5000"


def shown(path: Path) -> str:
    """A path as one would type it here."""
    near = os.path.relpath(path)
    return shlex.quote(str(path) if near.startswith("..") else near)
