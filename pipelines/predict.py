"""The second graph: a proteome in, one table of locations out, answered by many machines at once."""

from typing import Any

from kfp import dsl

from components import LIGHT_IMAGE, TORCH_IMAGE, prediction
from components.registration import choose
from pipelines.meanings import described
from pipelines.resources import (
    ANY_NODE,
    LONG_SECONDS,
    NO_TOLERATIONS,
    NUM_GPUS,
    PARALLEL_SHARDS,
    PREDICT_SECONDS,
    heavy,
    light,
)
from prottune.prediction.settings import MergeConfig, PredictConfig, SplitConfig
from prottune.registration.champion import FROM_REGISTRY


@dsl.pipeline(name="prottune-predict", display_name="prottune: label a proteome")
@described("predict")
def predict(
    source: str,
    model: str = FROM_REGISTRY,
    num_shards: int = SplitConfig.num_shards,
    on_bad: str = SplitConfig.on_bad,
    precision: str = PredictConfig.precision,
    table_format: str = MergeConfig.table_format,
    light_image: str = LIGHT_IMAGE,
    torch_image: str = TORCH_IMAGE,
    num_gpus: int = NUM_GPUS,
    node_selector: dict[str, Any] = ANY_NODE,
    tolerations: list[Any] = NO_TOLERATIONS,
) -> None:
    """Cut a FASTA file into shards, answer them at once with one model, join and count the answers."""
    chosen = light(choose(model=model), light_image)
    cut = light(
        prediction.split(source=source, num_shards=num_shards, on_bad=on_bad), light_image, LONG_SECONDS
    )
    shards = cut.outputs["shards"]
    with dsl.ParallelFor(cut.outputs["Output"], name="every shard", parallelism=PARALLEL_SHARDS) as shard:
        answered = prediction.predict(
            shards=shards,
            shard=shard,
            chosen=chosen.outputs["chosen"],
            precision=precision,
            num_gpus=num_gpus,
        )
        heavy(
            answered,
            torch_image,
            PREDICT_SECONDS,
            num_gpus=num_gpus,
            node_selector=node_selector,
            tolerations=tolerations,
        )
    answers = dsl.Collected(answered.outputs["answers"])
    joined = prediction.merge(shards=shards, answers=answers, table_format=table_format)
    light(joined, light_image, LONG_SECONDS)
