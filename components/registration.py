"""The steps that face the model registry: register, promote, choose."""

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Markdown, Metrics, Model, Output

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

    from prottune.addresses import s3_uri
    from prottune.registration.stage import register
    from prottune.tracking.step import pipeline_run, step

    with step("register") as tracker:
        entry = register(Path(model.path), s3_uri(model.uri), Path(report.path), pipeline_run(), settings)
        tracker.tags({"prottune.model_version": entry.version})
    metrics.log_metric("version", entry.version)
    Path(card.path).write_text(entry.card)
    return entry.version


@dsl.component(base_image=LIGHT_IMAGE, install_kfp_package=False)
def promote(version: str, compared_with: str, metrics: Output[Metrics]) -> str:
    """Make a deployed version the champion, unless the champion changed since it was compared."""
    from prottune.registration.promotion import promote
    from prottune.tracking.step import step

    with step("promote") as tracker:
        outcome = promote(version, compared_with)
        tracker.tags({"prottune.promoted": str(outcome.promoted).lower()})
    metrics.log_metric("promoted", outcome.promoted)
    return outcome.reason


@dsl.component(base_image=LIGHT_IMAGE, install_kfp_package=False)
def choose(model: str, chosen: Output[Artifact]) -> str:
    """Say once, for all shards, where the model lies that answers; returns its version, if one is known.

    The address is no parameter: kfp.local hands the loop's item to every input that another task answered.
    """
    from pathlib import Path

    from prottune.prediction.tracked import prediction_step
    from prottune.registration.champion import model_address

    with prediction_step("choose") as tracker:
        address, version = model_address(model)
        tracker.tags({"prottune.model": address, "prottune.model_version": version})
    Path(chosen.path).write_text(address)
    return version
