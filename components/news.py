"""The step that asks whether there is anything new to learn."""

from kfp import dsl
from kfp.dsl import Dataset, Input, OutputPath

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
    max_loss_to_champion: float,
    min_gate_proteins: int,
    digest: OutputPath(str),
) -> str:
    """Say whether training could end elsewhere than at a model that is known: new or same."""
    from pathlib import Path

    from prottune.artifacts import read_manifest
    from prottune.evaluation.settings import EvaluateConfig
    from prottune.registration.news import is_news
    from prottune.registration.provenance import settings_digest
    from prottune.tokenization import TokenizeConfig
    from prottune.tracking.step import step
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
    gate = EvaluateConfig(max_loss_to_champion=max_loss_to_champion, min_gate_proteins=min_gate_proteins)
    with step("compare"):
        news = is_news(read_manifest(Path(records.path), "ingest").digest, settings, gate)
    Path(digest).write_text(settings)
    return "new" if news else "same"
