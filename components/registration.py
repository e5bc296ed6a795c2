"""The steps that face the model registry: register, promote."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Markdown, Metrics, Model, Output

from components import LIGHT_IMAGE


@dsl.component(base_image=LIGHT_IMAGE, install_kfp_package=False)
def register(
    model: Input[Model],
    report: Input[Dataset],
    settings: str,
    metrics: Output[Metrics],
    card: Output[Markdown],
) -> str:
    """Enter a model in the registry as challenger; `settings` is their digest; returns the version."""
    from pathlib import Path

    from prottune.registration import register
    from prottune.storage import s3_uri
    from prottune.tracking import pipeline_run, step

    with step("register") as tracker:
        entry = register(Path(model.path), s3_uri(model.uri), Path(report.path), pipeline_run(), settings)
        tracker.tags({"prottune.model_version": entry.version})
    metrics.log_metric("version", entry.version)
    Path(card.path).write_text(entry.card)
    return entry.version


@dsl.component(base_image=LIGHT_IMAGE, install_kfp_package=False)
def promote(version: str, compared_with: str, metrics: Output[Metrics]) -> str:
    """Make a deployed version the champion, unless the champion changed since it was compared."""
    from prottune.registration import promote
    from prottune.tracking import step

    with step("promote") as tracker:
        outcome = promote(version, compared_with)
        tracker.tags({"prottune.promoted": str(outcome.promoted).lower()})
    metrics.log_metric("promoted", outcome.promoted)
    return outcome.reason
