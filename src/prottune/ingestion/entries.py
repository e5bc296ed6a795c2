"""A labelled protein as its source gives it, before anything is judged, and the words sources use."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from prottune.errors import DataError
from prottune.ingestion.findings import MAX_EXAMPLES, Findings
from prottune.records import PROTEINS_SCHEMA, Membrane, Split

MAX_ACCESSION = 100
MAX_ENTRIES = 2_000_000
"""More proteins in one source are refused: memory is about 1 KB a protein beside its residues."""

EXTERNAL_TEST = "new_test_set"
_SPLIT_WORDS = {
    "": Split.TRAIN,
    "train": Split.TRAIN,
    "test": Split.TEST,
    "validation": Split.VALIDATION,
    "val": Split.VALIDATION,
    "gate": Split.GATE,
}
_MEMBRANE_WORDS = {
    "": Membrane.UNKNOWN,
    "M": Membrane.BOUND,
    "S": Membrane.SOLUBLE,
    "U": Membrane.UNKNOWN,
    "X": Membrane.UNKNOWN,
}
_UNIPROT_ID = re.compile(r"(?:sp|tr)\|([^|]+)\|[^|]*")


@dataclass(frozen=True, slots=True)
class Entry:
    """One labelled protein of a source; `where` is file:line for messages."""

    accession: str
    sequence: str
    location: str
    membrane: Membrane
    split: Split
    where: str


ENTRIES_SCHEMA = pa.schema(
    [
        ("accession", pa.string()),
        ("sequence", pa.large_string()),
        ("location", pa.string()),
        ("membrane", pa.string()),
        ("split", pa.string()),
        ("where", pa.string()),
    ]
)

Mask = npt.NDArray[np.bool_]
"""One truth value a row."""
Rows = npt.NDArray[np.int64]
"""Numbers of rows, from 0."""


class Entries:
    """Many entries in their order, a column for each part: what is asked of all is asked of a column."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table

    @classmethod
    def of(cls, entries: Iterable[Entry]) -> Entries:
        """These entries as columns."""
        rows = [{part: getattr(entry, part) for part in ENTRIES_SCHEMA.names} for entry in entries]
        return cls(pa.Table.from_pylist(rows, ENTRIES_SCHEMA))

    @classmethod
    def joined(cls, parts: Iterable[Entries]) -> Entries:
        """The entries of all parts, one part after the other."""
        return cls(pa.concat_tables([part.table for part in parts]))

    def __len__(self) -> int:
        return len(self.table)

    def __iter__(self) -> Iterator[Entry]:
        for row in self.table.to_pylist():
            yield Entry(**row | {"membrane": Membrane(row["membrane"]), "split": Split(row["split"])})

    def __getitem__(self, part: str) -> pa.Array:
        """One column, in one piece."""
        column = self.table[part]
        return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()

    def at(self, rows: Rows) -> list[Entry]:
        """The entries of these rows."""
        return list(Entries(self.table.take(pa.array(rows))))

    def only(self, is_kept: Mask) -> Entries:
        """Those for which the mask is True."""
        return self if is_kept.all() else Entries(self.table.filter(pa.array(is_kept)))

    def changed(self, part: str, values: pa.Array) -> Entries:
        """The same with another column for one part."""
        place = ENTRIES_SCHEMA.get_field_index(part)
        return Entries(self.table.set_column(place, ENTRIES_SCHEMA.field(place), values))

    def in_order_of(self, part: str, is_kept: Mask) -> Entries:
        """Those for which the mask is True, sorted by one part."""
        rows = pc.sort_indices(self[part]).to_numpy()
        return Entries(self.table.take(pa.array(rows[is_kept[rows]])))

    def as_proteins(self, splits: pa.Array, clusters: pa.Array) -> pa.Table:
        """The table of `PROTEINS_SCHEMA`, each entry in its final split and homology cluster."""
        length = pc.binary_length(self["sequence"]).cast(pa.int32())
        final = {"split": splits, "cluster": clusters, "length": length}
        columns = [final[name] if name in final else self[name] for name in PROTEINS_SCHEMA.names]
        return pa.Table.from_arrays(columns, schema=PROTEINS_SCHEMA)

    def note(
        self,
        findings: Findings,
        kind: str,
        is_such: Mask,
        example: Callable[[Entry], str] = lambda entry: entry.accession,
    ) -> None:
        """Count the entries for which the mask is True."""
        rows = np.flatnonzero(is_such)
        if len(rows):
            findings.add_all(kind, len(rows), [example(entry) for entry in self.at(rows[:MAX_EXAMPLES])])


def distinct(column: pa.Array) -> tuple[Rows, Rows]:
    """The first row of each different value, in order, and for every row the number of its value."""
    which = column.dictionary_encode().indices.to_numpy()
    return np.unique(which, return_index=True)[1], which


def accession_of(identifier: str, where: str) -> str:
    """Take the accession out of an identifier: field 2 of UniProt's `sp|P12345|NAME_HUMAN`, else all of it.

    Raises: DataError for an identifier that is empty, too long, or has other fields between bars.
    """
    found = _UNIPROT_ID.fullmatch(identifier)
    accession = found.group(1) if found else identifier
    if not accession or len(accession) > MAX_ACCESSION:
        raise DataError(
            f"{where}: accession {accession[:40]!r} of {len(accession):,} characters; expected 1 to "
            f"{MAX_ACCESSION} characters"
        )
    if "|" in accession or " " in accession or not accession.isprintable():
        raise DataError(
            f"{where}: accession {accession!r}; expected one word without '|', or sp|ACCESSION|NAME"
        )
    return accession


def membrane_of(word: str, accession: str, where: str, findings: Findings) -> Membrane:
    """Read a membrane flag; X (not available) and an empty word mean unknown.

    Raises: DataError for any other word.
    """
    if word not in _MEMBRANE_WORDS:
        raise DataError(f"{where}: membrane flag {word!r}; expected M (bound), S (soluble), U or X (unknown)")
    if word == "X":
        findings.add("no_membrane_flag", accession)
    return _MEMBRANE_WORDS[word]


def split_of(word: str, accession: str, where: str, findings: Findings) -> Split | None:
    """Read a split word; None means that the protein belongs to an external test set and is left out.

    Raises: DataError for a word that is no split.
    """
    if word == EXTERNAL_TEST:
        findings.add("external_test_dropped", accession)
        return None
    split = _SPLIT_WORDS.get(word)
    if split is None:
        raise DataError(f"{where}: split {word!r}; expected test, {EXTERNAL_TEST}, or nothing for training")
    if split in (Split.VALIDATION, Split.GATE):
        findings.add("validation_recut", accession)
        return Split.TRAIN
    return split
