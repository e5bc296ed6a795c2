"""How a run ends for the person who started it: `summary.json`, and where to look next."""

import json
import os
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from signal import Signals
from typing import Any

from pipelines.executing import STEPS_FOLDER
from pipelines.progress import Progress, step_outputs
from pipelines.runs import Run

_TRACEBACK_LINES = 40


@dataclass(frozen=True)
class Findings:
    """What the steps of a run left behind."""

    decision: str
    """promote, hold, same (nothing new), or empty if the run ended before one was taken."""
    promoted: bool
    reasons: list[str]
    model_version: str
    folders: dict[str, str]
    """records, model and report -> path."""
    pages: dict[str, str]
    """data and model -> the HTML report's path."""
    metrics: dict[str, Any]
    endpoint: dict[str, Any]


def done(run: Run, progress: Progress) -> int:
    """Say what was decided and what to open; returns 0, also when the model was held."""
    findings = gather(run)
    _summarize(run, progress, findings, status="FINISHED", exit_code=0)
    print("\n" + "\n".join([*_verdict(findings), "", *_where_to_look(run, findings)]))
    return 0


def failed(run: Run, progress: Progress) -> int:
    """End with the failed stage's one line on stderr; returns the stage's exit code."""
    record = _failure(run, progress)
    _summarize(run, progress, gather(run), status="FAILED", exit_code=record["exit_code"], failure=record)
    if record["exit_code"] == 1:  # a bug: what the step said last, with its traceback
        print("\n".join(progress.said[-_TRACEBACK_LINES:]), file=sys.stderr)
    print(f"step {record['stage']} failed; all it said is in {_shown(run.log)}", file=sys.stderr)
    bug = f"{record['error']}: " if record["exit_code"] == 1 and record["error"] else ""
    print(f"error: {bug}{record['message']}", file=sys.stderr)
    return int(record["exit_code"])


def interrupted(run: Run, progress: Progress, signum: int) -> int:
    """Say that the run was ended; returns 128 + the signal's number, as shells do."""
    exit_code = 128 + signum
    _summarize(run, progress, gather(run), status="KILLED", exit_code=exit_code)
    ended_by = Signals(signum).name
    print(f"\nerror: run {run.name} was ended by {ended_by}; its log is {_shown(run.log)}", file=sys.stderr)
    return exit_code


def gather(run: Run) -> Findings:
    """Collect what the steps that ended have left."""
    steps = run.folder / STEPS_FOLDER
    verdict, champion = step_outputs(steps, "evaluate"), step_outputs(steps, "promote")
    folders = {
        name: str(_short(run, place / name))
        for name, step in (("records", "ingest"), ("model", "train"), ("report", "evaluate"))
        if (place := step_outputs(steps, step)["folder"]) is not None
    }
    pages = {"data": folders.get("records"), "model": folders.get("report")}
    is_same = step_outputs(steps, "compare")["parameters"].get("Output") == "same"
    reasons = _lines(verdict["folder"] / "reasons") if verdict["folder"] else []
    if reason := champion["parameters"].get("Output"):
        reasons.append(str(reason))
    return Findings(
        decision="same" if is_same else str(verdict["parameters"].get("Output", "")),
        promoted=bool(champion["metrics"].get("promoted", False)),
        reasons=reasons,
        model_version=str(step_outputs(steps, "register")["parameters"].get("Output", "")),
        folders=folders,
        pages={name: str(Path(folder) / "report.html") for name, folder in pages.items() if folder},
        metrics=_read_json(Path(folders["report"]) / "metrics.json") if "report" in folders else {},
        endpoint=step_outputs(steps, "deploy")["metrics"],
    )


def _short(run: Run, folder: Path) -> Path:
    """Give a step's output a name that can be typed: runs/NAME/model -> where kfp put it."""
    link = run.folder / folder.name
    if not link.is_symlink():
        link.symlink_to(folder.relative_to(run.folder))
    return link


def _read_json(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def _lines(path: Path) -> list[str]:
    return [line.removeprefix("- ") for line in path.read_text(encoding="utf-8").splitlines() if line]


def _failure(run: Run, progress: Progress) -> dict[str, Any]:
    """The record that the failed step left, or what can be said of one that was killed."""
    try:
        record = _read_json(run.failure_file)
    except (OSError, ValueError):
        last = progress.said[-1] if progress.said else "it said nothing; was it killed for memory?"
        stage = progress.failed or "the graph"
        record = {"stage": stage, "error": "", "message": f"{stage}: {last}", "exit_code": 1}
    return record


def _summarize(
    run: Run,
    progress: Progress,
    findings: Findings,
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


def _verdict(findings: Findings) -> list[str]:
    if findings.decision == "same":
        return [
            "Nothing new: data, settings and code are those of the champion, or of a model that was "
            "rolled back; nothing was trained."
        ]
    if findings.promoted:
        first = f"Promoted: version {findings.model_version} is the champion now."
    else:
        first = "Held: the new model was not promoted; the champion stays as it is."
    scores, floor = findings.metrics, findings.metrics.get("baseline", {})
    lines = [first, *(f"  - {reason}" for reason in findings.reasons)]
    if "accuracy" in scores and "accuracy" in floor:
        lines.append(f"  official test: accuracy {scores['accuracy']:.3f}, floor {floor['accuracy']:.3f}")
    return lines


def _where_to_look(run: Run, findings: Findings) -> list[str]:
    lines = ["Reports"]
    lines += [f"  {name:6} {_shown(Path(page))}" for name, page in findings.pages.items()]
    lines += ["Every run, its settings and curves", f"  {mlflow_page(run.tracking_uri)}"]
    if model := findings.folders.get("model"):
        program, model = _shown(Path(sys.executable).with_name("prottune")), _shown(Path(model))
        lines += [
            "Serve the model, or label a FASTA file with it",
            f"  {program} serve --model {model}",
            f"  {program} predict --model {model} --source proteins.fasta --output locations.csv",
        ]
    return [*lines, f"All of this for programs: {_shown(run.summary_file)}"]


def mlflow_page(tracking_uri: str) -> str:
    """How to open MLflow's page: an address, or the command that serves it on this machine only."""
    if tracking_uri.startswith(("http://", "https://")):
        return tracking_uri
    program = _shown(Path(sys.executable).with_name("mlflow"))
    address = "--host 127.0.0.1 --port 5000 --workers 1"
    return f"{program} server --backend-store-uri {shlex.quote(tracking_uri)} {address}   then http://127.0.0.1:5000"


def _shown(path: Path) -> str:
    """A path as one would type it here."""
    near = os.path.relpath(path)
    return shlex.quote(str(path) if near.startswith("..") else near)
