"""How a labelling run ends for the person who started it: the table, its page, how many proteins."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.endings import Ending, mlflow_page, short_name, shown
from pipelines.executing import STEPS_FOLDER
from pipelines.progress import step_outputs
from pipelines.runs import Run
from prottune.prediction.sharding import TABLE_NAME


@dataclass(frozen=True)
class Findings:
    """What the steps of a run left behind."""

    model: str
    """Address of the model that answered."""
    model_version: str
    """Its version, if the registry named it."""
    folders: dict[str, str]
    """predictions -> path."""
    table: str
    """The table's path; empty if the run ended before it was whole."""
    pages: dict[str, str]
    """predictions -> the HTML report's path."""
    metrics: dict[str, Any]


def gather(run: Run) -> Findings:
    """Collect what the steps that ended have left."""
    steps = run.folder / STEPS_FOLDER
    chosen, joined = step_outputs(steps, "choose"), step_outputs(steps, "merge")
    folders, pages, table = {}, {}, ""
    if joined["folder"] is not None:
        folder = short_name(run, joined["folder"] / "predictions")
        folders, pages = {"predictions": str(folder)}, {"predictions": str(folder / "report.html")}
        table = str(next(folder.glob(f"{TABLE_NAME}.*")))
    return Findings(
        model=_text(chosen["folder"], "chosen"),
        model_version=str(chosen["parameters"].get("Output", "")),
        folders=folders,
        table=table,
        pages=pages,
        metrics=joined["metrics"],
    )


def _tell(run: Run, findings: Findings) -> list[str]:
    figures = findings.metrics
    version = f"version {findings.model_version}, " if findings.model_version else ""
    whole = {name: f"{value:,.0f}" for name, value in figures.items() if name.startswith("num_")}
    return [
        f"Labelled: {whole['num_proteins']} proteins in {whole['num_shards']} shards, every one once",
        f"  {whole['num_confident']} confident, {whole['num_unlike_training']} unlike training, "
        f"{whole['num_skipped']} left out",
        f"  by {version}{findings.model}",
        "",
        "Table and report",
        *(f"  {shown(Path(place))}" for place in (findings.table, *findings.pages.values())),
        "Every run, its settings and figures",
        f"  {mlflow_page(run.tracking_uri)}",
        f"All of this for programs: {shown(run.summary_file)}",
    ]


def _text(folder: Path | None, name: str) -> str:
    path = folder / name if folder else None
    return path.read_text(encoding="utf-8") if path and path.is_file() else ""


ENDING = Ending(gather, _tell, has_last_step=False)
