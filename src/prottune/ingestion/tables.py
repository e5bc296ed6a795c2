"""Tables (CSV, TSV, Parquet) with accession, sequence, location and, if given, split and membrane."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet

from prottune.errors import DataError
from prottune.fasta import MAX_RESIDUES
from prottune.ingestion.entries import MAX_ENTRIES, Entry, accession_of, membrane_of, split_of
from prottune.ingestion.findings import Findings
from prottune.lines import read_lines

REQUIRED_COLUMNS = ("accession", "sequence", "location")
OPTIONAL_COLUMNS = ("split", "membrane")
_MISSING_WORDS = ("nan", "none", "null", "na", "n/a", "<na>")
_BATCH_ROWS = 4096

Row = tuple[str, Mapping[str, object]]
"""file:line (or file:row), and the cells by column."""


def read_table(path: Path, name: str, kind: str, findings: Findings, max_bytes: int) -> list[Entry]:
    """Read a labelled table: csv, tsv or parquet. Proteins of an external test set are left out.

    Raises: DataError with file:line (Parquet: file:row) for missing columns, empty or not-textual cells,
        rows of another width, and files that are no such table.
    """
    if kind == "parquet":
        rows = _parquet_rows(path, name, findings, max_bytes)
    else:
        rows = _text_rows(path, name, "," if kind == "csv" else "\t", findings)
    entries = []
    for number, (where, cells) in enumerate(rows, start=1):
        if number > MAX_ENTRIES:
            raise DataError(f"{where}: more than {MAX_ENTRIES:,} proteins; split the source")
        if entry := _entry(where, cells, findings):
            entries.append(entry)
    return entries


def _entry(where: str, cells: Mapping[str, object], findings: Findings) -> Entry | None:
    accession = accession_of(_text(cells, "accession", where), where)
    given = _text(cells, "sequence", where)
    sequence = re.sub(r"[ \t\r\n]", "", given)
    if sequence != given:
        findings.add("inner_blanks", accession)
    if len(sequence) > MAX_RESIDUES:
        raise DataError(
            f"{where}: {accession} has {len(sequence):,} residues; expected at most {MAX_RESIDUES:,}"
        )
    location = _text(cells, "location", where)
    if _is_number(location):
        raise DataError(
            f"{where}: location {location!r} is a number; expected a name: no file's numbers are read"
        )
    membrane = membrane_of(_optional(cells, "membrane", where), accession, where, findings)
    split = split_of(_optional(cells, "split", where).lower(), accession, where, findings)
    if split is None:
        return None
    return Entry(accession, sequence, location, membrane, split, where)


def _text(cells: Mapping[str, object], column: str, where: str) -> str:
    if text := _optional(cells, column, where):
        return text
    raise DataError(f"{where}: {column} is empty ({cells[column]!r}); every protein needs one")


def _optional(cells: Mapping[str, object], column: str, where: str) -> str:
    value = cells.get(column)
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if not isinstance(value, str):
        raise DataError(f"{where}: {column} {value!r} is no text; numbers of other files are not read")
    text = value.strip()
    # NA may be a pair of residues; the other words are what software writes for nothing.
    is_residues = column == "sequence" and text == "NA"
    return "" if text.lower() in _MISSING_WORDS and not is_residues else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _text_rows(path: Path, name: str, separator: str, findings: Findings) -> Iterator[Row]:
    with path.open("rb") as stream:
        lines = (f"{line}\n" for _, line in read_lines(stream, name, findings.add))
        reader = csv.reader(lines, delimiter=separator, strict=True)
        try:
            columns = _columns(next(reader, []), f"{name}:1", findings)
            for cells in reader:
                if not cells:
                    continue
                where = f"{name}:{reader.line_num}"
                if len(cells) != len(columns):
                    raise DataError(
                        f"{where}: {len(cells)} cells; expected {len(columns)}, as the first line has"
                    )
                yield where, dict(zip(columns, cells, strict=True))
        except csv.Error as error:
            raise DataError(f"{name}:{reader.line_num}: not readable as a table ({error})") from error


def _columns(names: Sequence[str], where: str, findings: Findings) -> list[str]:
    """Column names as we read them: lower case, no blanks around. Unknown ones are counted and ignored."""
    columns = [name.strip().lower() for name in names]
    missing = [name for name in REQUIRED_COLUMNS if name not in columns]
    if missing:
        raise DataError(
            f"{where}: no column {', '.join(missing)}; got {', '.join(columns[:8]) or 'nothing'}; expected "
            f"{', '.join(REQUIRED_COLUMNS)} and, if given, {', '.join(OPTIONAL_COLUMNS)}"
        )
    known = [name for name in columns if name in REQUIRED_COLUMNS + OPTIONAL_COLUMNS]
    twice = sorted({name for name in known if known.count(name) > 1})
    if twice:
        raise DataError(f"{where}: column {', '.join(twice)} occurs twice; expected it once")
    for name in columns:
        if name not in known:
            findings.add("ignored_columns", name)
    return columns


def _parquet_rows(path: Path, name: str, findings: Findings, max_bytes: int) -> Iterator[Row]:
    try:
        with pa.parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            columns = _columns(names, name, findings)
            wanted = {
                given: column
                for given, column in zip(names, columns, strict=True)
                if column in REQUIRED_COLUMNS + OPTIONAL_COLUMNS
            }
            row = num_bytes = 0
            for batch in file.iter_batches(_BATCH_ROWS, columns=list(wanted)):
                num_bytes += batch.nbytes
                if num_bytes > max_bytes:
                    raise DataError(f"{name}:row {row + 1}: unpacks to more than {max_bytes:,} bytes")
                for cells in batch.to_pylist():
                    row += 1
                    yield f"{name}:row {row}", {wanted[given]: value for given, value in cells.items()}
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{name}: not readable as Parquet ({str(error).splitlines()[0]})") from error
