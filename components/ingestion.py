"""The step that reads, checks and splits labelled proteins."""

from kfp import dsl
from kfp.dsl import HTML, Dataset, Metrics, Output

from components import LIGHT_IMAGE


@dsl.component(base_image=LIGHT_IMAGE, install_kfp_package=False)
def ingest(
    source: str,
    labels: str,
    expected_digest: str,
    on_conflict: str,
    records: Output[Dataset],
    metrics: Output[Metrics],
    page: Output[HTML],
) -> None:
    """Read labelled proteins, check every one, and split them so that relatives stay together."""
    from pathlib import Path

    from prottune.ingestion.settings import IngestConfig
    from prottune.ingestion.stage import ingest
    from prottune.tracking.step import step
    from prottune.tracking.tracker import numbers

    config = IngestConfig(labels=labels, expected_digest=expected_digest, on_conflict=on_conflict)
    with step("ingest", config) as tracker:
        report = ingest(source, Path(records.path), config)
        tracker.numbers(numbers(report, "ingest"))
        tracker.tags({"prottune.dataset_digest": report.dataset_digest})
        tracker.artifact(Path(records.path) / "report.html", "ingest")
    metrics.metadata.update(numbers(report))
    Path(page.path).write_bytes((Path(records.path) / "report.html").read_bytes())
