"""The table of answers: its columns, always in this order, and the file that it becomes.

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
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from prottune.errors import ArtifactError, ConfigError, StorageError
from prottune.prediction.settings import TABLE_KINDS
from prottune.records import slug

if TYPE_CHECKING:
    from prottune.model.inference import Prediction

FLAGS = ("confident", "unlike_training", "truncated")


@dataclass
class Totals:
    """What the rows of a table say in sum."""

    num_proteins: int = 0
    num_residues: int = 0
    flags: Counter[str] = field(default_factory=Counter)
    """confident, unlike_training, truncated -> how many proteins."""
    locations: Counter[str] = field(default_factory=Counter)
    """How many proteins each location got."""

    def add(self, rows: pa.Table) -> None:
        """Count more rows."""
        self.num_proteins += rows.num_rows
        self.num_residues += pc.sum(rows["num_residues"]).as_py() or 0
        for name in FLAGS:
            self.flags[name] += pc.sum(rows[name]).as_py() or 0
        for entry in rows["location"].value_counts().to_pylist():
            self.locations[entry["values"]] += entry["counts"]


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


def rows_of(schema: pa.Schema, accessions: Sequence[str], answers: Sequence[Prediction]) -> pa.Table:
    """The rows of a few proteins, in the order given.

    Raises: ArtifactError for an answer that holds NaN or an infinite number, which says nothing.
    """
    probabilities_BC = np.stack([answer.probabilities for answer in answers]).astype(np.float32)
    membrane_B = [answer.membrane for answer in answers]
    is_number_B = np.isfinite(probabilities_BC).all(axis=1) & np.isfinite(
        [value or 0.0 for value in membrane_B]
    )
    if not is_number_B.all():
        raise ArtifactError(
            f"{accessions[int(is_number_B.argmin())]}: the model answered with what is no finite number, "
            f"as for {(~is_number_B).sum():,} of {len(answers):,} proteins here; such answers make no table"
        )
    fixed = schema.names[1 : schema.get_field_index("num_residues") + 1]
    columns: list[Any] = [list(accessions)]
    columns += [[getattr(answer, name) for answer in answers] for name in fixed]
    columns += list(probabilities_BC.T.copy())
    columns.append(membrane_B)
    arrays = [pa.array(column, kind) for column, kind in zip(columns, schema.types, strict=True)]
    return pa.Table.from_arrays(arrays, schema=schema)


def check_output(output: Path) -> None:
    """Refuse a table that could not be written, before any work is done.

    Raises: ConfigError if it exists or ends neither in .csv nor in .parquet.
    """
    if output.suffix not in {f".{kind}" for kind in TABLE_KINDS}:
        raise ConfigError(f"{output}: expected a name that ends in .{' or .'.join(TABLE_KINDS)}")
    if output.exists():
        raise ConfigError(f"{output} exists already; name another output or remove it")


def write_table(output: Path, scratch: Path, schema: pa.Schema, pieces: Iterable[pa.Table]) -> None:
    """Write a table piece by piece; it appears whole or not at all.

    `scratch` is the file, on the same disk, that it is until then. Equal pieces give equal bytes.

    Raises: StorageError if its place refuses or is full; ConfigError if something came there meanwhile.
    """
    with said_of(output):
        with scratch.open("wb") as stream:
            with _writer(stream, output.suffix, schema) as writer:
                for piece in pieces:
                    writer.write_table(piece)
            stream.flush()
            os.fsync(stream.fileno())
        check_output(output)
        os.replace(scratch, output)


@contextmanager
def said_of(path: Path) -> Iterator[None]:
    """What the disk refuses becomes one line that names the file.

    Raises: StorageError.
    """
    try:
        yield
    except OSError as error:
        raise StorageError(f"{path}: cannot be written ({error.strerror or error})") from error


def _writer(stream: BinaryIO, suffix: str, schema: pa.Schema) -> pa.parquet.ParquetWriter | pa.csv.CSVWriter:
    if suffix == ".csv":
        plain = pa.csv.WriteOptions(quoting_header="none")
        return pa.csv.CSVWriter(stream, schema, write_options=plain)
    return pa.parquet.ParquetWriter(stream, schema, compression="zstd")
