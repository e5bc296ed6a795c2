"""The verbs that ask a finished model: serve, predict, explain."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from prottune.explanation import ExplainConfig
from prottune.prediction.settings import PredictConfig
from prottune.serving.settings import ServeConfig
from prottune.tracking.step import step
from prottune.tracking.tracker import numbers


@dataclass(frozen=True, kw_only=True)
class Serve:
    """What is served."""

    model: str
    """Folder or s3:// address of a model."""
    model_version: str = ""
    """Version that goes with every answer; empty: the start of the model's digest."""
    settings: ServeConfig

    def run(self) -> Iterator[str]:
        from prottune.serving.server import serve

        with fetched_model(self.model) as folder:
            serve(folder, self.settings, self.model_version)
        yield "stopped"


@dataclass(frozen=True, kw_only=True)
class Predict:
    """What is labelled, by which model, and where the table goes."""

    model: str
    """Folder or s3:// address of a model."""
    source: str
    """FASTA file of any size, here or at an s3:// or http(s):// address; .gz is unpacked."""
    output: Path
    """Table to write: .csv or .parquet. Until it is whole, answers are kept in a folder beside it."""
    restart: bool = False
    """Throw away what an unfinished command has answered; without it, the same command goes on."""
    settings: PredictConfig

    def run(self) -> Iterator[str]:
        from prottune.prediction.stage import predict

        with fetched_model(self.model) as folder, step("predict", self.settings) as tracker:
            report = predict(folder, self.source, self.output, self.settings, restart=self.restart)
            tracker.numbers(numbers(report, "predict"))
        also = {
            "answered before": report.num_resumed,
            "skipped": report.num_skipped,
            "cut": report.num_truncated,
            "unlike training": report.num_unlike_training,
        }
        marks = [f"{count:,} {words}" for words, count in {"confident": report.num_confident, **also}.items()]
        shown = [mark for mark in marks if not mark.startswith("0 ")]
        yield (
            f"{self.output}: {report.num_proteins:,} proteins in {report.seconds:.0f} s"
            + (f" ({', '.join(shown)})" if shown else "")
        )
        yield from (f"  {location}: {count:,}" for location, count in report.locations.items() if count)


@dataclass(frozen=True, kw_only=True)
class Explain:
    """Which protein's answer is explained, by which model, and where the scores go."""

    model: str
    """Folder or s3:// address of a model."""
    sequence: str
    """Residues of one protein."""
    output: Path = Path("explanation.json")
    """File to write; the page with the picture lies beside it as .html. Earlier ones are replaced."""
    settings: ExplainConfig

    def run(self) -> Iterator[str]:
        from prottune.explanation import explain

        with fetched_model(self.model) as folder:
            report = explain(folder, self.sequence, self.output, self.settings)
        sure = "confident" if report.confident else "not confident"
        yield f"{report.answer}: probability {report.probability:.3f} ({sure})"
        first, last = report.stretch
        yield (
            f"residues {first:,} to {last:,} of {report.num_residues:,}: {report.stretch_share:.0%} of what "
            f"speaks for {report.location}"
        )
        if report.left_out is not None:
            yield f"not read: residues {report.left_out[0]:,} to {report.left_out[1]:,}"
        yield report.exactness
        yield f"{self.output}: a score a residue; picture: {report.page}"


@contextmanager
def fetched_model(uri: str) -> Iterator[Path]:
    """Yield the folder behind a path or an address."""
    from prottune.storage import fetch_folder

    with tempfile.TemporaryDirectory(prefix="prottune-model-") as scratch:
        yield fetch_folder(uri, Path(scratch) / "model")
