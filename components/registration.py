"""The steps that face the model registry: is there news, register, promote."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Markdown, Metrics, Model, Output, OutputPath

from components import LIGHT_IMAGE


@dsl.component(base_image=LIGHT_IMAGE, install_kfp_package=False)
def compare(
    records: Input[Dataset],
    max_residues: int,
    cut: str,
    base_model: str,
    base_revision: str,
    head: str,
    epochs: int,
    patience: int,
    learning_rate: float,
    head_learning_rate: float,
    class_weights: str,
    membrane_weight: float,
    tokens_per_batch: int,
    freeze_layers: int,
    lora_rank: int,
    precision: str,
    num_processes: int,
    num_nodes: int,
    seed: int,
    digest: OutputPath(str),
) -> str:
    """Say whether data, settings and code differ from the champion's: new or same."""
    from pathlib import Path

    from prottune.artifacts import read_manifest
    from prottune.provenance import settings_digest
    from prottune.registration import is_news
    from prottune.tokenization import TokenizeConfig
    from prottune.tracking import step
    from prottune.training.settings import TrainConfig

    train_config = TrainConfig(
        base_model=base_model,
        base_revision=base_revision,
        head=head,
        epochs=epochs,
        patience=patience,
        learning_rate=learning_rate,
        head_learning_rate=head_learning_rate,
        class_weights=class_weights,
        membrane_weight=membrane_weight,
        tokens_per_batch=tokens_per_batch,
        freeze_layers=freeze_layers,
        lora_rank=lora_rank,
        precision=precision,
        num_processes=num_processes,
        num_nodes=num_nodes,
        seed=seed,
    )
    settings = settings_digest(TokenizeConfig(max_residues=max_residues, cut=cut), train_config)
    with step("compare"):
        news = is_news(read_manifest(Path(records.path), "ingest").digest, settings)
    Path(digest).write_text(settings)
    return "new" if news else "same"


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
        entry = register(
            Path(model.path), s3_uri(model.uri), Path(report.path), pipeline_run() or tracker.run_id, settings
        )
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
