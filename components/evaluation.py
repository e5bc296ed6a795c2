"""The step that scores the new model beside the floor and the champion, and decides."""

from kfp import dsl
from kfp.dsl import HTML, ClassificationMetrics, Dataset, Input, Markdown, Metrics, Model, Output, OutputPath

from components import TORCH_IMAGE


@dsl.component(base_image=TORCH_IMAGE, install_kfp_package=False)
def evaluate(
    records: Input[Dataset],
    model: Input[Model],
    max_loss_to_champion: float,
    min_gate_proteins: int,
    num_gpus: int,
    report: Output[Dataset],
    metrics: Output[Metrics],
    confusion: Output[ClassificationMetrics],
    page: Output[HTML],
    summary: Output[Markdown],
    reasons: OutputPath(str),
    champion_version: OutputPath(str),
) -> str:
    """Score a model on proteins it never saw and decide: promote or hold."""
    from pathlib import Path

    from prottune.evaluation import settings, stage
    from prottune.registration.champion import champion_folder
    from prottune.tracking import step, tracker

    config = settings.EvaluateConfig(
        max_loss_to_champion=max_loss_to_champion, min_gate_proteins=min_gate_proteins
    )
    with step.step("evaluate", config) as run, champion_folder() as (champion, version):
        result = stage.evaluate(
            Path(records.path), Path(model.path), Path(report.path), config, champion, version
        )
        run.numbers(tracker.numbers(result.metrics, "evaluate"))
        run.artifact(Path(report.path) / "report.html", "evaluate")
    metrics.metadata.update(tracker.numbers(result.metrics))
    confusion.log_confusion_matrix(result.locations, result.confusion)
    confusion.log_roc_curve(*result.roc)
    for place, text in (
        (page.path, (Path(report.path) / "report.html").read_text()),
        (summary.path, result.summary),
        (reasons, "\n".join(f"- {reason}" for reason in result.reasons)),
        (champion_version, version),
    ):
        Path(place).write_text(text)
    return result.decision
