"""A FASTA file of any size -> a table of locations, one row a protein, in the order of the file.

The table is CSV or Parquet, by the output's suffix, and appears whole or not at all. Its columns, always in
this order:

    accession        first word of the header; of `sp|P12345|NAME_HUMAN` the middle part
    location         the most probable location
    probability      its probability
    confident        validation answers of at least this probability were right often enough: in 9 of 10
                     proteins, unless training was told otherwise
    unlike_training  the model recognises less of this protein than of 99 % of the validation proteins
    truncated        only part of the protein was read
    num_residues     residues of the whole protein
    p_<location>     probability of each location, in the order of the model's labels: p_nucleus ...
    membrane         probability that the protein is bound to a membrane; empty if the model does not tell

A final stop (*) is removed and counted. Memory is bounded by the window, whatever the size of the file.
"""

from __future__ import annotations

import gzip
import logging
import os
import re
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from prottune.alphabet import clean
from prottune.errors import ConfigError, DataError
from prottune.fasta import FastaRecord, read_fasta
from prottune.records import slug
from prottune.storage import fetch_file, s3_uri

if TYPE_CHECKING:
    from prottune.model.inference import Prediction, Predictor

_ACCESSION = re.compile(r"(?:sp|tr)\|([^|\s]+)\|\S*|(\S+)")
_SHOWN = 5

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """How a file of proteins is answered."""

    on_bad: str = "refuse"
    """A sequence with a character that is no residue: refuse (the whole file), or skip (and count)."""
    window: int = 2048
    """Proteins that are read, sorted by length and answered at a time; more need more memory."""
    max_megabytes: int = 16_384
    """A larger source is refused."""
    precision: str = "auto"
    """auto (bf16 where the processor has it), bf16, fp32."""

    def __post_init__(self) -> None:
        if self.on_bad not in ("refuse", "skip"):
            raise ConfigError(f"on_bad={self.on_bad!r}: expected one of refuse, skip")
        if self.window < 1 or self.max_megabytes < 1:
            raise ConfigError("window and max_megabytes: expected at least 1")
        if self.precision not in ("auto", "bf16", "fp32"):
            raise ConfigError(f"precision={self.precision!r}: expected one of auto, bf16, fp32")


@dataclass(frozen=True, kw_only=True)
class PredictReport:
    """What was answered, in plain numbers."""

    num_proteins: int
    num_residues: int
    num_skipped: int
    """Proteins with a character that is no residue, under on_bad=skip."""
    num_stops_removed: int
    num_confident: int
    num_unlike_training: int
    num_truncated: int
    locations: dict[str, int]
    """How many proteins each location got."""
    seconds: float


def predict(model: Path, source: str, output: Path, config: PredictConfig) -> PredictReport:
    """Ask a finished model folder about every protein of a FASTA file, plain or gzip, local or fetched.

    Raises: ConfigError for an output that exists or ends neither in .csv nor in .parquet; DataError with
        file:line for input outside the grammar or (on_bad=refuse) with characters that are no residues;
        ArtifactError if the model is damaged.
    """
    check_output(output)
    from prottune.model.inference import Predictor

    return predict_with(Predictor.load(model, config.precision), source, output, config)


def predict_with(predictor: Predictor, source: str, output: Path, config: PredictConfig) -> PredictReport:
    """Like `predict`, with a model that is loaded already."""
    check_output(output)
    begun = time.monotonic()
    counts: Counter[str] = Counter()
    locations = Counter(dict.fromkeys(predictor.labels, 0))
    schema = table_schema(predictor.labels)
    with _opened(source, config) as stream, _new_table(output, schema) as table, _progress() as progress:
        proteins = _proteins(stream, source, config, counts)
        while window := list(islice(proteins, config.window)):
            answers = predictor.predict([sequence for _, sequence in window])
            table.write_table(_rows(schema, [accession for accession, _ in window], answers))
            _count(counts, locations, answers)
            progress(len(window))
    return PredictReport(
        num_proteins=counts["proteins"],
        num_residues=counts["residues"],
        num_skipped=counts["skipped"],
        num_stops_removed=counts["stops_removed"],
        num_confident=counts["confident"],
        num_unlike_training=counts["unlike_training"],
        num_truncated=counts["truncated"],
        locations=dict(locations),
        seconds=time.monotonic() - begun,
    )


def table_schema(labels: Sequence[str]) -> pa.Schema:
    """Names and types of the columns for a model with these locations."""
    names: list[str] = []
    for label in labels:
        name = f"p_{slug(label)}"
        names.append(name if name not in names else f"{name}_{len(names) + 1}")
    fixed = [
        ("accession", pa.string()),
        ("location", pa.string()),
        ("probability", pa.float32()),
        ("confident", pa.bool_()),
        ("unlike_training", pa.bool_()),
        ("truncated", pa.bool_()),
        ("num_residues", pa.int32()),
    ]
    return pa.schema([*fixed, *((name, pa.float32()) for name in [*names, "membrane"])])


def check_output(output: Path) -> None:
    """Refuse a table that could not be written, before any work is done.

    Raises: ConfigError if it exists or ends neither in .csv nor in .parquet.
    """
    if output.suffix not in (".csv", ".parquet"):
        raise ConfigError(f"{output}: expected a name that ends in .csv or .parquet")
    if output.exists():
        raise ConfigError(f"{output} exists already; name another output or remove it")


def _proteins(
    stream: BinaryIO, source: str, config: PredictConfig, counts: Counter[str]
) -> Iterator[tuple[str, str]]:
    """Accession and clean sequence of each record that can be answered."""
    for record in read_fasta(stream, source):
        try:
            sequence = clean(record.sequence.removesuffix("*"))
        except DataError as error:
            words = f"{source}:{record.line}: {_accession(record)}: {error}"
            if config.on_bad == "refuse":
                raise DataError(f"{words}; mend it, or leave such proteins out with on_bad=skip") from None
            counts["skipped"] += 1
            if counts["skipped"] <= _SHOWN:
                _log.warning("left out: %s", words)
            continue
        counts["stops_removed"] += record.sequence.endswith("*")
        yield _accession(record), sequence


def _accession(record: FastaRecord) -> str:
    found = _ACCESSION.match(record.header)
    return (found.group(1) or found.group(2)) if found else record.header


def _rows(schema: pa.Schema, accessions: Sequence[str], answers: Sequence[Prediction]) -> pa.Table:
    fixed = schema.names[1 : schema.get_field_index("num_residues") + 1]
    columns: list[object] = [list(accessions)]
    columns += [[getattr(answer, name) for answer in answers] for name in fixed]
    columns += list(np.stack([answer.probabilities for answer in answers]).astype(np.float32).T.copy())
    columns.append([answer.membrane for answer in answers])
    arrays = [pa.array(column, kind) for column, kind in zip(columns, schema.types, strict=True)]
    return pa.Table.from_arrays(arrays, schema=schema)


def _count(counts: Counter[str], locations: Counter[str], answers: Sequence[Prediction]) -> None:
    locations.update(answer.location for answer in answers)
    counts["proteins"] += len(answers)
    counts["residues"] += sum(answer.num_residues for answer in answers)
    for name in ("confident", "unlike_training", "truncated"):
        counts[name] += sum(getattr(answer, name) for answer in answers)


@contextmanager
def _opened(source: str, config: PredictConfig) -> Iterator[BinaryIO]:
    """The source's bytes, unpacked while they are read."""
    with tempfile.TemporaryDirectory(prefix="prottune-predict-") as scratch:
        path = fetch_file(s3_uri(source), Path(scratch) / "source", config.max_megabytes << 20)
        with path.open("rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            try:
                yield gzip.GzipFile(fileobj=raw) if packed else raw  # type: ignore[misc]
            except (gzip.BadGzipFile, zlib.error, EOFError) as error:
                raise DataError(f"{source}: damaged gzip file ({error})") from error


@contextmanager
def _new_table(output: Path, schema: pa.Schema) -> Iterator[pa.parquet.ParquetWriter | pa.csv.CSVWriter]:
    """A writer into a partial file that becomes `output` only if the block ends well."""
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.with_name(f"{output.name}.partial")
    try:
        with partial.open("wb") as stream:
            if output.suffix == ".csv":
                writer = pa.csv.CSVWriter(
                    stream, schema, write_options=pa.csv.WriteOptions(quoting_header="none")
                )
            else:
                writer = pa.parquet.ParquetWriter(stream, schema, compression="zstd")
            with writer:
                yield writer
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(partial, output)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def _progress() -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, a line a window elsewhere."""
    from tqdm import tqdm

    with tqdm(desc="predict", unit=" proteins", disable=not sys.stderr.isatty()) as bar:
        done = 0

        def advance(number: int) -> None:
            nonlocal done
            done += number
            bar.update(number)
            if bar.disable:
                _log.info("predict: %d proteins", done)

        yield advance
