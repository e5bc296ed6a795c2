"""FASTA headers of the field -> labelled entries: DeepLoc's, UniProt's and biotrainer's dialects."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import BinaryIO, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from prottune.errors import DataError
from prottune.fasta import FastaColumns, read_fasta_columns
from prottune.ingestion.entries import (
    ENTRIES_SCHEMA,
    MAX_ACCESSION,
    MAX_ENTRIES,
    Entries,
    Rows,
    accession_of,
    distinct,
    membrane_of,
    split_of,
)
from prottune.ingestion.findings import MAX_EXAMPLES, Findings
from prottune.records import Membrane, Split

_DEEPLOC = re.compile(r"(\S+)\s+(\S.*)-([A-Z])(?:\s+(\S.*))?")
"""id, label up to the last dash, flag, and the third word."""
_UNIPROT = re.compile(r"(?:sp|tr)\|[^|\s]+\|\S*(?:\s.*)?")
_FOREIGN = re.compile(r"[^|\s]+\|([^|\s]+)\|[^|\s]+(?:\|.*)?(?:\s.*)?")
"""acc|Label|group: DeepLocPro and its kin."""
_BIOTRAINER_KEYS = ("TARGET", "SET", "VALIDATION")


class _Said(NamedTuple):
    """What a header says about its protein."""

    accession: str
    location: str
    membrane: Membrane
    split: Split | None
    noticed: Collection[str]
    """Kinds of findings."""


def read_labelled_fasta(stream: BinaryIO, name: str, findings: Findings) -> Entries:
    """Read a FASTA file whose headers carry locations; proteins of an external test set are left out.

    Many headers differ in nothing but the id, so what follows the id is judged once for all of them.

    Raises: DataError with file:line for a header without a location or in no known dialect.
    """
    blocks = _all_blocks(stream, name, findings)
    headers = pa.concat_arrays([block.headers for block in blocks])
    lines = np.concatenate([block.lines for block in blocks])
    is_odd = _is_odd(headers)
    _refuse_foreign(headers.filter(is_odd), lines[is_odd.to_numpy(zero_copy_only=False)], name)
    identifiers, rest = _split_off_ids(headers)
    first, which = distinct(pc.if_else(is_odd, headers, rest))
    said = [_said(headers[row].as_py(), f"{name}:{lines[row]}") for row in first]
    locations, membranes, splits, accessions = (
        pa.array([getattr(one, part) for one in said], pa.string()).take(pa.array(which))
        for part in ("location", "membrane", "split", "accession")
    )
    accessions = pc.if_else(is_odd, accessions, identifiers.cast(pa.string()))
    for kind in dict.fromkeys(kind for one in said for kind in one.noticed):
        rows = np.flatnonzero(np.array([kind in one.noticed for one in said])[which])
        findings.add_all(kind, len(rows), accessions.take(pa.array(rows[:MAX_EXAMPLES])).to_pylist())
    where = pc.binary_join_element_wise(pa.scalar(name), pa.array(lines).cast(pa.string()), pa.scalar(":"))
    sequences = pa.chunked_array([block.sequences for block in blocks])
    columns = [accessions, sequences, locations, membranes, splits, where]
    entries = Entries(pa.Table.from_arrays(columns, schema=ENTRIES_SCHEMA))
    return entries.only(splits.is_valid().to_numpy(zero_copy_only=False))


def _all_blocks(stream: BinaryIO, name: str, findings: Findings) -> list[FastaColumns]:
    blocks, left = [], MAX_ENTRIES
    for block in read_fasta_columns(stream, name, findings.add):
        if len(block.lines) > left:
            raise DataError(
                f"{name}:{block.lines[left]}: more than {MAX_ENTRIES:,} proteins; split the source"
            )
        left -= len(block.lines)
        blocks.append(block)
    return blocks


def _is_odd(headers: pa.LargeStringArray) -> pa.BooleanArray:
    """False where it is certain that the first word is the accession and that blanks part the words."""
    is_long = pc.greater(pc.binary_length(headers), MAX_ACCESSION)
    is_other = pc.or_(pc.match_substring(headers, "|"), pc.invert(pc.string_is_ascii(headers)))
    return pc.or_(is_long, is_other)


def _split_off_ids(headers: pa.LargeStringArray) -> tuple[pa.LargeStringArray, pa.LargeStringArray]:
    """The first word of each header, and what follows it."""
    words = pc.ascii_split_whitespace(headers, max_splits=1)
    pairs = pc.list_slice(words, 0, 2, return_fixed_size_list=True).flatten().fill_null("")
    ids, rest = (pairs.take(pa.array(np.arange(place, len(pairs), 2))) for place in (0, 1))
    return ids, rest


def _said(header: str, where: str) -> _Said:
    is_biotrainer = any(word.partition("=")[0] in _BIOTRAINER_KEYS for word in header.split()[1:])
    identifier, location, flag, word = (_biotrainer if is_biotrainer else _deeploc)(header, where)
    noticed = Findings()
    accession = accession_of(identifier, where)
    membrane = membrane_of(flag, accession, where, noticed)
    split = split_of(word, accession, where, noticed)
    return _Said(accession, location, membrane, split, noticed.counts)


def _deeploc(header: str, where: str) -> tuple[str, str, str, str]:
    """id, location, membrane flag and split word of `>Q9SMX3 Mitochondrion-M test`."""
    parts = _DEEPLOC.fullmatch(header)
    if parts is None:
        raise DataError(_no_location(header, where))
    identifier, location, flag, word = parts.groups(default="")
    return identifier, location, flag, word


def _biotrainer(header: str, where: str) -> tuple[str, str, str, str]:
    """The same of `>Seq1 TARGET=Nucleus SET=train VALIDATION=False`.

    Source: biotrainer docs/data_standardization.md.
    """
    identifier, *words = header.split()
    values = dict.fromkeys(_BIOTRAINER_KEYS, "")
    for word in words:
        key, _, value = word.partition("=")
        if key not in values or not value or values[key]:
            raise DataError(f"{where}: {word!r}; expected TARGET=, SET= and VALIDATION=, each at most once")
        values[key] = value
    if not values["TARGET"]:
        raise DataError(f"{where}: no TARGET=; training needs the location of every protein")
    if values["VALIDATION"].lower() not in ("", "true", "false"):
        raise DataError(f"{where}: VALIDATION={values['VALIDATION']}; expected True or False")
    word = "validation" if values["VALIDATION"].lower() == "true" else values["SET"].lower()
    return identifier, values["TARGET"], "", word


def _refuse_foreign(headers: pa.LargeStringArray, lines: Rows, name: str) -> None:
    seen: dict[str, int] = {}
    for header, line in zip(headers.to_pylist(), lines, strict=True):
        match = _FOREIGN.fullmatch(header)
        if match and not _UNIPROT.fullmatch(header):
            seen.setdefault(match.group(1), line)
    if seen:
        raise DataError(
            f"{name}:{min(seen.values())}: headers of the form accession|label|group belong to another label "
            f"space (seen: {', '.join(sorted(seen)[:10])}); expected '>ACCESSION Location-M|S|U [test]'"
        )


def _no_location(header: str, where: str) -> str:
    kind = "a UniProt header" if _UNIPROT.fullmatch(header) else "a header"
    return (
        f"{where}: {kind} without a location, {header[:60]!r}; training needs "
        "'>ACCESSION Location-M|S|U [test]'"
    )
