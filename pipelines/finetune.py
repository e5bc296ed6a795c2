"""The graph: protein sequences in, a checked endpoint and a new champion out, or the reason why not."""

from typing import Any

from kfp import dsl

from components import LIGHT_IMAGE, TORCH_IMAGE
from components.deployment import deploy
from components.endings import finish, hold, stop_early
from components.evaluation import evaluate
from components.ingestion import ingest
from components.news import compare
from components.registration import promote, register
from components.tokenization import tokenize
from components.training import train
from pipelines.meanings import described
from pipelines.resources import (
    ANY_NODE,
    EVALUATE_GPUS,
    LONG_SECONDS,
    NO_TOLERATIONS,
    NUM_GPUS,
    TRAIN_SECONDS,
    heavy,
    light,
)
from prottune.deployment.settings import DeployConfig
from prottune.evaluation.settings import EvaluateConfig
from prottune.ingestion.settings import IngestConfig
from prottune.tokenization import TokenizeConfig
from prottune.training.settings import TrainConfig


@dsl.pipeline(name="prottune-finetune", display_name="prottune: fine-tune, judge, serve")
@described("finetune")
def finetune(
    source: str,
    labels: str = IngestConfig.labels,
    expected_digest: str = IngestConfig.expected_digest,
    on_conflict: str = IngestConfig.on_conflict,
    max_residues: int = TokenizeConfig.max_residues,
    cut: str = TokenizeConfig.cut,
    base_model: str = TrainConfig.base_model,
    base_revision: str = TrainConfig.base_revision,
    head: str = TrainConfig.head,
    epochs: int = TrainConfig.epochs,
    patience: int = TrainConfig.patience,
    learning_rate: float = TrainConfig.learning_rate,
    head_learning_rate: float = TrainConfig.head_learning_rate,
    class_weights: str = TrainConfig.class_weights,
    membrane_weight: float = TrainConfig.membrane_weight,
    tokens_per_batch: int = TrainConfig.tokens_per_batch,
    freeze_layers: int = TrainConfig.freeze_layers,
    lora_rank: int = TrainConfig.lora_rank,
    precision: str = TrainConfig.precision,
    num_processes: int = TrainConfig.num_processes,
    num_nodes: int = TrainConfig.num_nodes,
    node_gpus: int = TrainConfig.node_gpus,
    seed: int = TrainConfig.seed,
    checkpoints: str = "",
    checkpoint_every: int = TrainConfig.checkpoint_every,
    max_loss_to_champion: float = EvaluateConfig.max_loss_to_champion,
    min_gate_proteins: int = EvaluateConfig.min_gate_proteins,
    deploy_to: str = DeployConfig.to,
    replicas: int = DeployConfig.replicas,
    serving_gpus: int = DeployConfig.serving_gpus,
    light_image: str = LIGHT_IMAGE,
    torch_image: str = TORCH_IMAGE,
    num_gpus: int = NUM_GPUS,
    evaluate_gpus: int = EVALUATE_GPUS,
    node_selector: dict[str, Any] = ANY_NODE,
    tolerations: list[Any] = NO_TOLERATIONS,
) -> None:
    """Fine-tune a protein language model, judge it against floor and champion, serve it if it is better."""
    token_settings = {"max_residues": max_residues, "cut": cut}
    start = {"base_model": base_model, "base_revision": base_revision, "head": head, "seed": seed}
    learns = {"freeze_layers": freeze_layers, "lora_rank": lora_rank}
    weighs = {"class_weights": class_weights, "membrane_weight": membrane_weight}
    rates = {"learning_rate": learning_rate, "head_learning_rate": head_learning_rate}
    lasts = {"epochs": epochs, "patience": patience, "tokens_per_batch": tokens_per_batch}
    runs_on = {"precision": precision, "num_processes": num_processes, "num_nodes": num_nodes}
    train_settings = start | learns | weighs | rates | lasts | runs_on
    gate = {"max_loss_to_champion": max_loss_to_champion, "min_gate_proteins": min_gate_proteins}
    serves = {"deploy_to": deploy_to, "replicas": replicas, "serving_gpus": serving_gpus}
    gpu_pod: dict[str, Any] = {"node_selector": node_selector, "tolerations": tolerations}

    with dsl.ExitHandler(light(finish(), light_image), name="run"):
        read = ingest(source=source, labels=labels, expected_digest=expected_digest, on_conflict=on_conflict)
        light(read, light_image, LONG_SECONDS)
        records = read.outputs["records"]
        news = light(compare(records=records, **token_settings, **train_settings, **gate), light_image)

        with dsl.If(news.outputs["Output"] == "new", name="something new"):
            tokens = light(tokenize(records=records, **token_settings), light_image)
            trained = train(
                tokens=tokens.outputs["tokens"],
                checkpoints=checkpoints,
                checkpoint_every=checkpoint_every,
                num_gpus=num_gpus,
                node_gpus=node_gpus,
                **train_settings,
            )
            heavy(trained, torch_image, TRAIN_SECONDS, num_gpus=num_gpus, **gpu_pod)
            model = trained.outputs["model"]
            verdict = evaluate(records=records, model=model, num_gpus=evaluate_gpus, **gate)
            heavy(verdict, torch_image, LONG_SECONDS, num_gpus=evaluate_gpus, **gpu_pod)
            decision, report = verdict.outputs["Output"], verdict.outputs["report"]
            settings = news.outputs["digest"]

            with dsl.If(decision == "promote", name="good enough"):
                entry = light(register(model=model, report=report, settings=settings), light_image)
                version = entry.outputs["Output"]
                endpoint = deploy(model=model, version=version, **serves)
                light(endpoint, light_image, LONG_SECONDS)
                champion = promote(version=version, compared_with=verdict.outputs["champion_version"])
                light(champion, light_image).after(endpoint)
            with dsl.Else(name="not good enough"):
                held = hold(report=report, settings=settings, reasons=verdict.outputs["reasons"])
                light(held, light_image)
        with dsl.Else(name="nothing new"):
            light(stop_early(), light_image)
