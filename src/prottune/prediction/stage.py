"""A FASTA file and a model -> a table of locations, on this machine; killed and repeated, it goes on.

The file is read twice: once to check it and to know how much there is to do, and once to be answered, window
by window. Memory is bounded by the window, whatever the size of the file. A final stop (*) is removed and
counted.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from prottune import __version__
from prottune.artifacts import manifest_of
from prottune.errors import ConfigError, StorageError
from prottune.prediction.keeping import KeptWindows, kept_windows
from prottune.prediction.reading import Question, Survey, opened, windows
from prottune.prediction.settings import PredictConfig
from prottune.prediction.tables import Totals, check_output, rows_of, table_schema, write_table

if TYPE_CHECKING:
    from prottune.model.inference import Predictor

_LINE_SECONDS = 10.0
"""Off a terminal, a line of progress at most this often."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PredictReport:
    """What was answered, in plain numbers."""

    num_proteins: int
    num_residues: int
    num_resumed: int
    """Proteins that an earlier attempt had answered."""
    num_skipped: int
    """Proteins with a character that is no residue, under on_bad=skip."""
    num_stops_removed: int
    num_confident: int
    num_unlike_training: int
    num_truncated: int
    locations: dict[str, int]
    """How many proteins each location got."""
    precision: str
    """fp32 or bf16: what was computed in."""
    seconds: float


def predict(
    model: Path, source: str, output: Path, config: PredictConfig, *, restart: bool = False
) -> PredictReport:
    """Ask a finished model folder about every protein of a FASTA file, plain or gzip, local or fetched.

    Answers are kept beside `output` while it is made: the same call again goes on where an earlier one was
    killed, to the same table. `restart` throws such answers away.

    Raises: ConfigError for an output that exists or ends neither in .csv nor in .parquet, and for answers
        of another model, source or settings beside it; DataError with file:line for input outside the
        grammar or (on_bad=refuse) with characters that are no residues; ArtifactError if the model is
        damaged; StorageError if the disk is full.
    """
    check_output(output)
    digest = manifest_of(model).digest

    def load() -> Predictor:
        from prottune.model.inference import Predictor

        return Predictor.load(model, config.precision)

    return _predict(load, digest, source, output, config, restart=restart)


def predict_with(
    predictor: Predictor,
    source: str,
    output: Path,
    config: PredictConfig,
    *,
    digest: str = "",
    restart: bool = False,
) -> PredictReport:
    """Like `predict`, with a model that is loaded already.

    Only if its digest is given is anything kept for, or taken from, another attempt.
    """
    check_output(output)
    return _predict(lambda: predictor, digest, source, output, config, restart=restart or not digest)


def _predict(
    load: Callable[[], Predictor],
    digest: str,
    source: str,
    output: Path,
    config: PredictConfig,
    *,
    restart: bool,
) -> PredictReport:
    begun = time.monotonic()
    with opened(source, config) as file:
        survey = file.survey()
        predictor = load()
        precision = "fp32" if predictor.is_fp32 else "bf16"  # which auto does not say
        answers_to = {
            "model": digest,
            "source": survey.sha256,
            "on_bad": config.on_bad,
            "window": str(config.window),
            "precision": precision,
            "version of prottune": __version__,
        }
        windows_of = kept_windows(output, answers_to, restart=restart, for_later=bool(digest))
        with windows_of as kept, _way_on_told(kept):
            schema = table_schema(predictor.labels)
            pieces = windows(file.questions(survey), config.window)
            num_resumed = _answer_all(predictor, pieces, survey, kept, schema)
            totals = _join(kept, output, schema)
    return PredictReport(
        num_proteins=totals.num_proteins,
        num_residues=totals.num_residues,
        num_resumed=num_resumed,
        num_skipped=survey.num_skipped,
        num_stops_removed=survey.num_stops_removed,
        num_confident=totals.flags["confident"],
        num_unlike_training=totals.flags["unlike_training"],
        num_truncated=totals.flags["truncated"],
        locations={label: totals.locations[label] for label in predictor.labels},
        precision=precision,
        seconds=time.monotonic() - begun,
    )


def _answer_all(
    predictor: Predictor,
    pieces: Iterator[list[Question]],
    survey: Survey,
    kept: KeptWindows,
    schema: pa.Schema,
) -> int:
    """Answer every window that is not kept; returns how many proteins an earlier attempt had answered."""
    num_resumed = 0
    with _progress(survey) as progress:
        for number, window in enumerate(pieces):
            accessions = [question.accession for question in window]
            sequences = [question.sequence for question in window]
            if number in kept:
                kept.check(number, accessions, sequences)
                num_resumed += len(window)
            else:
                answers = predictor.predict(sequences)
                kept.keep(number, rows_of(schema, accessions, answers), sequences)
            progress(window)
    return num_resumed


def _join(kept: KeptWindows, output: Path, schema: pa.Schema) -> Totals:
    totals = Totals()

    def pieces() -> Iterator[pa.Table]:
        for number in range(len(kept)):
            rows = kept.read(number)
            totals.add(rows)
            yield rows

    check_output(output)  # before the work; something may have come there meanwhile
    write_table(output, kept.scratch, schema, pieces())
    kept.is_joined = True
    return totals


@contextmanager
def _way_on_told(kept: KeptWindows) -> Iterator[None]:
    """Who is interrupted, or finds the disk full or the place taken, hears that nothing answered is lost."""
    try:
        yield
    except (KeyboardInterrupt, StorageError, ConfigError) as stopped:
        if not kept.for_later or not len(kept):
            raise
        reason = str(stopped) or "interrupted"
        raise type(stopped)(
            f"{reason}; the same command goes on from the {kept.num_proteins:,} proteins in {kept.folder}"
        ) from None


@contextmanager
def _progress(survey: Survey) -> Iterator[Callable[[Sequence[Question]], None]]:
    """A bar on a terminal, now and then a line elsewhere; what takes time are the residues."""
    from tqdm import tqdm

    with tqdm(
        total=survey.num_residues,
        desc="predict",
        unit=" residues",
        unit_scale=True,
        disable=not sys.stderr.isatty(),
    ) as bar:
        num_proteins = num_residues = 0
        due = time.monotonic()

        def advance(window: Sequence[Question]) -> None:
            nonlocal num_proteins, num_residues, due
            added = sum(len(question.sequence) for question in window)
            num_proteins, num_residues = num_proteins + len(window), num_residues + added
            bar.update(added)
            is_last = num_proteins == survey.num_proteins
            if bar.disable and (is_last or time.monotonic() >= due):
                due = time.monotonic() + _LINE_SECONDS
                share = num_residues / survey.num_residues
                _log.info(
                    "predict: %d of %d proteins, %.0f %%", num_proteins, survey.num_proteins, 100 * share
                )

        yield advance
