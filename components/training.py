"""The step that fine-tunes a base model, in as many processes as its settings say."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Metrics, Model, Output

from components import TORCH_IMAGE


@dsl.component(base_image=TORCH_IMAGE, install_kfp_package=False)
def train(
    tokens: Input[Dataset],
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
    node_gpus: int,
    seed: int,
    checkpoints: str,
    checkpoint_every: int,
    num_gpus: int,
    model: Output[Model],
    metrics: Output[Metrics],
) -> None:
    """Fine-tune a base model on the training proteins; started again, go on from this run's checkpoints.

    `num_gpus` is what this pod is given, `node_gpus` each pod of a TrainJob where `num_nodes` is above 1.
    """
    from pathlib import Path

    from prottune.tracking.step import step
    from prottune.tracking.tracker import numbers
    from prottune.training.checkpoints import place_of_run
    from prottune.training.settings import TrainConfig
    from prottune.training.stage import train

    config = TrainConfig(
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
        node_gpus=node_gpus,
        seed=seed,
        checkpoint_every=checkpoint_every,
    )
    place = place_of_run(checkpoints)
    with step("train", config) as tracker:
        report = train(Path(tokens.path), Path(model.path), config, tracker.point, place)
        tracker.numbers(numbers(report, "train"))
    metrics.metadata.update(numbers(report))
