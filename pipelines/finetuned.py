"""How a fine-tuning run ends for the person who started it: the decision, the pages, what to do now."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.endings import Ending, mlflow_page, read_json, short_name, shown
from pipelines.executing import STEPS_FOLDER
from pipelines.progress import step_outputs
from pipelines.runs import Run


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


def gather(run: Run) -> Findings:
    """Collect what the steps that ended have left."""
    steps = run.folder / STEPS_FOLDER
    verdict, champion = step_outputs(steps, "evaluate"), step_outputs(steps, "promote")
    folders = {
        name: str(short_name(run, place / name))
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
        metrics=read_json(Path(folders["report"]) / "metrics.json") if "report" in folders else {},
        endpoint=step_outputs(steps, "deploy")["metrics"],
    )


def _tell(run: Run, findings: Findings) -> list[str]:
    return [*_verdict(findings), "", *_where_to_look(run, findings)]


def _lines(path: Path) -> list[str]:
    return [line.removeprefix("- ") for line in path.read_text(encoding="utf-8").splitlines() if line]


def _verdict(findings: Findings) -> list[str]:
    if findings.decision == "same":
        return [
            "Nothing new: data, settings and code are those of the champion, of a model that was rolled "
            "back, or of one that the gate held against this champion; nothing was trained."
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
    lines += [f"  {name:6} {shown(Path(page))}" for name, page in findings.pages.items()]
    lines += ["Every run, its settings and curves", f"  {mlflow_page(run.tracking_uri)}"]
    if model := findings.folders.get("model"):
        program, model = shown(Path(sys.executable).with_name("prottune")), shown(Path(model))
        lines += [
            "Serve the model, or label a FASTA file with it",
            f"  {program} serve --model {model}",
            f"  {program} predict --model {model} --source proteins.fasta --output locations.csv",
        ]
    return [*lines, f"All of this for programs: {shown(run.summary_file)}"]


ENDING = Ending(gather, _tell, has_last_step=True)
