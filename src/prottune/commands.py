"""The verbs of `prottune`: the flags of each, what it calls, and the lines it says when it is done.

Those that ask a finished model are in `answering.py`, those that say which serves in `registry_commands.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from prottune.answering import Explain, Predict, Serve, fetched_model
from prottune.deployment.settings import DeployConfig
from prottune.evaluation.settings import EvaluateConfig, EvaluateReport
from prottune.ingestion.settings import IngestConfig
from prottune.registry_commands import Promote, Register, Rollback
from prottune.sample import SampleConfig
from prottune.tokenization import TokenizeConfig
from prottune.tracking.step import step
from prottune.tracking.tracker import numbers
from prottune.training.settings import TrainConfig


class Command(Protocol):
    """Flags that know what to do; `run` yields what it says on success, a line each."""

    def run(self) -> Iterator[str]: ...


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Where the sample goes."""

    output: Path
    """FASTA file to write; signals.tsv is written beside it."""
    settings: SampleConfig

    def run(self) -> Iterator[str]:
        from prottune.sample import write_sample

        report = write_sample(self.output, self.settings)
        yield f"ALL SYNTHETIC: {report.notice}"
        yield f"{self.output}: {report.num_proteins:,} proteins, {report.num_test:,} of them for the test"
        yield f"{report.signals}: where their {report.num_signals:,} signals lie"


@dataclass(frozen=True, kw_only=True)
class Ingest:
    """What is read and where it goes."""

    source: str
    """File, folder, http(s):// or s3:// address; FASTA (DeepLoc, UniProt or biotrainer headers), CSV, TSV,
    Parquet; .gz is unpacked."""
    records: Path
    """Folder to make."""
    settings: IngestConfig

    def run(self) -> Iterator[str]:
        from prottune.ingestion.stage import ingest

        with step("ingest", self.settings) as tracker:
            report = ingest(self.source, self.records, self.settings)
            tracker.numbers(numbers(report, "ingest"))
        splits = ", ".join(f"{name} {count:,}" for name, count in report.splits.items())
        yield f"{self.records}: {report.num_proteins:,} proteins, {report.num_residues:,} residues ({splits})"
        yield from (f"  {name}: {count:,}" for name, count in report.counts.items() if count)
        yield f"report: {self.records / 'report.html'}"


@dataclass(frozen=True, kw_only=True)
class Tokenize:
    """What is read and where it goes."""

    records: Path
    """Folder that `prottune ingest` made."""
    tokens: Path
    """Folder to make."""
    settings: TokenizeConfig

    def run(self) -> Iterator[str]:
        from prottune.tokenization import tokenize

        with step("tokenize", self.settings) as tracker:
            report = tokenize(self.records, self.tokens, self.settings)
            tracker.numbers(numbers(report, "tokenize"))
        figures = ", ".join(f"{name.replace('_', ' ')} {value:,g}" for name, value in numbers(report).items())
        yield f"{self.tokens}: {figures}"


@dataclass(frozen=True, kw_only=True)
class Train:
    """What is learnt from and where the model goes."""

    tokens: Path
    """Folder that `prottune tokenize` made."""
    model: Path
    """Folder to make."""
    checkpoints: str = ""
    """Folder or s3:// prefix for this run alone: started again with it, an interrupted run goes on."""
    settings: TrainConfig

    def run(self) -> Iterator[str]:
        from prottune.training.stage import train

        with step("train", self.settings) as tracker:
            report = train(self.tokens, self.model, self.settings, tracker.point, self.checkpoints)
            tracker.numbers(numbers(report, "train"))
        yield (
            f"{self.model}: {report.num_parameters:,} parameters, best epoch {report.best_epoch} of "
            f"{report.epochs_run}, validation accuracy {report.validation_accuracy:.3f}"
        )
        yield f"{report.seconds:.0f} s, {report.tokens_per_second:,.0f} tokens a second"


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """What is judged, against what, and where the report goes."""

    records: Path
    """Folder that `prottune ingest` made."""
    model: Path
    """Folder that `prottune train` made."""
    report: Path
    """Folder to make."""
    champion: str = "none"
    """none, registry (the model that serves now), or a model's folder or s3:// address."""
    settings: EvaluateConfig

    def run(self) -> Iterator[str]:
        from prottune.evaluation.stage import evaluate

        with step("evaluate", self.settings) as tracker, _champion(self.champion) as (champion, version):
            judged = evaluate(self.records, self.model, self.report, self.settings, champion, version)
            tracker.numbers(numbers(judged.metrics, "evaluate"))
        yield from _scores(judged)
        yield f"report: {self.report / 'report.html'}"


@dataclass(frozen=True, kw_only=True)
class Deploy:
    """What is deployed."""

    model: str
    """Folder or s3:// address of a model."""
    model_version: str = "by-hand"
    """Version that the endpoint gives with its answers."""
    settings: DeployConfig

    def run(self) -> Iterator[str]:
        from prottune.deployment.stage import deploy

        with step("deploy", self.settings) as tracker:
            report = deploy(self.model, self.settings, self.model_version)
            tracker.numbers(numbers(report, "deploy"))
        yield (
            f"{report.url} was ready after {report.seconds_to_ready:.1f} s and gave all {report.num_golden} "
            f"golden answers, the largest difference {report.largest_difference:.2g}"
        )
        if not report.still_running:
            yield f"it was stopped again; to keep one: prottune serve --model {self.model}"


COMMANDS: dict[str, type[Command]] = {
    "sample": Sample,
    "ingest": Ingest,
    "tokenize": Tokenize,
    "train": Train,
    "evaluate": Evaluate,
    "register": Register,
    "deploy": Deploy,
    "promote": Promote,
    "rollback": Rollback,
    "serve": Serve,
    "predict": Predict,
    "explain": Explain,
}


@contextmanager
def _champion(where: str) -> Iterator[tuple[Path | None, str]]:
    """Yield the folder and version that `--champion` means."""
    from prottune.registration.champion import FROM_REGISTRY, champion_folder

    if where == "none":
        yield None, ""
    elif where == FROM_REGISTRY:
        with champion_folder() as found:
            yield found
    else:
        with fetched_model(where) as folder:
            yield folder, ""


def _scores(report: EvaluateReport) -> Iterator[str]:
    metrics = report.metrics
    floor = metrics["baseline"]
    yield f"{report.decision}: {'; '.join(report.reasons)}"
    if "accuracy" not in metrics:
        yield "official test: not scored, as the model's answers are not all finite numbers"
        return
    yield (
        f"official test: accuracy {metrics['accuracy']:.3f} (floor {floor['accuracy']:.3f}), "
        f"macro F1 {metrics['macro_f1']:.3f} (floor {floor['macro_f1']:.3f}), MCC {metrics['mcc']:.3f}"
    )
