"""Tables (CSV, TSV, Parquet) with accession, sequence, location and, if given, split and membrane."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet

from prottune.errors import DataError
from prottune.fasta import MAX_RESIDUES
from prottune.ingestion.entries import MAX_ENTRIES, Entry, accession_of, membrane_of, split_of
from prottune.ingestion.findings import Findings
from prottune.lines import MAX_LINE_BYTES, read_lines

REQUIRED_COLUMNS = ("accession", "sequence", "location")
OPTIONAL_COLUMNS = ("split", "membrane")
_MISSING_WORDS = ("nan", "none", "null", "na", "n/a", "<na>")
_BATCH_ROWS = 4096
_READABLE = (
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_string_view,
    pa.types.is_null,
    pa.types.is_floating,  # NaN is an empty cell; any other number is refused by its row
    pa.types.is_integer,
    pa.types.is_boolean,
)
"""What a column of a Parquet file may hold."""

Row = tuple[str, Mapping[str, object]]
"""file:line (or file:row), and the cells by column."""


def read_table(path: Path, name: str, kind: str, findings: Findings, max_bytes: int) -> list[Entry]:
    """Read a labelled table: csv, tsv or parquet. Proteins of an external test set are left out.

    Raises: DataError with file:line of a row's first line (Parquet: file:row) for missing columns, empty or
        not-textual cells, rows of another width, and files that are no such table or unpack to more.
    """
    if kind == "parquet":
        return _entries(_parquet_rows(path, name, findings, max_bytes), findings)
    with _cells_as_long_as_lines():
        return _entries(_text_rows(path, name, "," if kind == "csv" else "\t", findings), findings)


def _entries(rows: Iterator[Row], findings: Findings) -> list[Entry]:
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


@contextmanager
def _cells_as_long_as_lines() -> Iterator[None]:
    """Python has one limit of a cell for the whole process, below what a sequence with blanks may take."""
    before = csv.field_size_limit(MAX_LINE_BYTES)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _text_rows(path: Path, name: str, separator: str, findings: Findings) -> Iterator[Row]:
    with path.open("rb") as stream:
        lines = (f"{line}\n" for _, line in read_lines(stream, name, findings.add))
        reader = csv.reader(lines, delimiter=separator, strict=True)
        first_line = 1
        try:
            columns = _columns(next(reader, []), f"{name}:1", findings)
            first_line = reader.line_num + 1
            for cells in reader:
                where = f"{name}:{first_line}"
                first_line = reader.line_num + 1
                if not cells:
                    continue
                if len(cells) != len(columns):
                    raise DataError(
                        f"{where}: {len(cells)} cells; expected {len(columns)}, as the first line has"
                    )
                yield where, dict(zip(columns, cells, strict=True))
        except csv.Error as error:
            raise DataError(
                f"{name}:{first_line}: not readable as a table ({error}); was a quote left open in this row?"
            ) from error


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
            wanted = _wanted(file.schema_arrow, name, findings)
            num_rows = _rows_at_a_time(file.metadata, wanted, name, max_bytes)
            row = num_bytes = 0
            for batch in file.iter_batches(num_rows, columns=list(wanted)):
                columns = {wanted[given]: _plain(batch[given]) for given in batch.schema.names}
                num_bytes += sum(column.nbytes for column in columns.values())
                if num_bytes > max_bytes:
                    raise DataError(f"{name}:row {row + 1}: unpacks to more than {max_bytes:,} bytes")
                values = [_values(column, part, name, row + 1) for part, column in columns.items()]
                for cells in zip(*values, strict=True):
                    row += 1
                    yield f"{name}:row {row}", dict(zip(columns, cells, strict=True))
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{name}: not readable as Parquet ({str(error).splitlines()[0]})") from error


def _wanted(schema: pa.Schema, name: str, findings: Findings) -> dict[str, str]:
    """The columns that are read: name in the file -> name as we read it.

    Raises: DataError for a column of which no cell could be text or nothing.
    """
    wanted = {}
    for field, column in zip(schema, _columns(schema.names, name, findings), strict=True):
        if column not in REQUIRED_COLUMNS + OPTIONAL_COLUMNS:
            continue
        kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        if not any(is_such(kind) for is_such in _READABLE):
            raise DataError(f"{name}: column {column} holds {kind}; expected text")
        wanted[field.name] = column
    return wanted


def _rows_at_a_time(
    metadata: pa.parquet.FileMetaData, wanted: Collection[str], name: str, max_bytes: int
) -> int:
    """So few rows that even if each repeats the longest text that is stored, they stay below `max_bytes`.

    A text that is stored once may stand in every row, and no text is longer than all that is stored.

    Raises: DataError if what is stored takes more than `max_bytes`.
    """
    places = [place for place in range(metadata.num_columns) if metadata.schema.column(place).path in wanted]
    groups = map(metadata.row_group, range(metadata.num_row_groups))
    stored: list[int] = [
        sum(group.column(place).total_uncompressed_size for place in places) for group in groups
    ]
    if sum(stored) > max_bytes:
        raise DataError(f"{name}: unpacks to more than {max_bytes:,} bytes")
    return max(1, min(_BATCH_ROWS, max_bytes // max([1, *stored])))


def _plain(column: pa.Array) -> pa.Array:
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def _values(column: pa.Array, part: str, name: str, first_row: int) -> list[object]:
    """The cells of a column. Raises: DataError with the row of the first that is not UTF-8."""
    try:
        values: list[object] = column.to_pylist()
    except UnicodeDecodeError:
        for row, cell in enumerate(column, start=first_row):
            try:
                cell.as_py()
            except UnicodeDecodeError as error:
                byte = error.object[error.start]
                where = f"{name}:row {row}"
                raise DataError(f"{where}: {part} has byte 0x{byte:02x}, which is not UTF-8") from error
        raise
    return values
