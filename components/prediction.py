"""The steps that label a proteome: cut the file, answer the shards, join the answers."""

from typing import List  # noqa: UP035 - kfp 2.17 reads a component's types by these names

from kfp import dsl
from kfp.dsl import HTML, Artifact, Dataset, Input, Markdown, Metrics, Output

from components import LIGHT_IMAGE, TORCH_IMAGE


@dsl.component(base_image=LIGHT_IMAGE, install_kfp_package=False)
def split(
    source: str, num_shards: int, on_bad: str, shards: Output[Dataset], metrics: Output[Metrics]
) -> List[str]:  # noqa: UP006
    """Check a FASTA file and cut it into shards of about as many residues each; returns their names."""
    from pathlib import Path

    from prottune.prediction.settings import SplitConfig
    from prottune.prediction.sharding import split
    from prottune.prediction.tracked import prediction_step
    from prottune.tracking.tracker import numbers

    config = SplitConfig(num_shards=num_shards, on_bad=on_bad)
    with prediction_step("split", config) as tracker:
        report = split(source, Path(shards.path), config)
        tracker.numbers(numbers(report, "split"))
    metrics.metadata.update(numbers(report))
    return list(report.shards)


@dsl.component(base_image=TORCH_IMAGE, install_kfp_package=False)
def predict(
    shards: Input[Dataset],
    shard: str,
    chosen: Input[Artifact],
    precision: str,
    num_gpus: int,
    answers: Output[Dataset],
    metrics: Output[Metrics],
) -> None:
    """Answer one shard; `num_gpus` is what the pod is given."""
    from pathlib import Path

    from prottune.prediction.settings import PredictConfig
    from prottune.prediction.sharding import predict_shard
    from prottune.prediction.tracked import prediction_step
    from prottune.registration.champion import model_folder
    from prottune.tracking.tracker import numbers

    config, address = PredictConfig(precision=precision), Path(chosen.path).read_text()
    with prediction_step("predict", config) as tracker, model_folder(address) as folder:
        report = predict_shard(Path(shards.path), shard, folder, Path(answers.path), config)
        tracker.numbers({f"predict/{shard}/seconds": report.seconds})
    metrics.metadata.update(numbers(report))


@dsl.component(base_image=LIGHT_IMAGE, install_kfp_package=False)
def merge(
    shards: Input[Dataset],
    answers: Input[List[Dataset]],  # noqa: UP006
    table_format: str,
    predictions: Output[Dataset],
    metrics: Output[Metrics],
    page: Output[HTML],
    summary: Output[Markdown],
) -> None:
    """Join the answers of all shards to one table, and check that every protein has its row, once."""
    from pathlib import Path

    from prottune.prediction.settings import MergeConfig
    from prottune.prediction.sharding import merge
    from prottune.prediction.tracked import prediction_step
    from prottune.tracking.tracker import numbers

    config, place = MergeConfig(table_format=table_format), Path(predictions.path)
    with prediction_step("merge", config, is_last=True) as tracker:
        report = merge(Path(shards.path), [Path(part.path) for part in answers], place, config)
        tracker.numbers(numbers(report, "merge"))
        tracker.artifact(place / "report.html", "merge")
    metrics.metadata.update(numbers(report))
    Path(page.path).write_bytes((place / "report.html").read_bytes())
    Path(summary.path).write_text(report.summary)
