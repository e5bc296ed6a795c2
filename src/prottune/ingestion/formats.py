"""FASTA headers of the field -> labelled entries: DeepLoc's, UniProt's and biotrainer's dialects."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import BinaryIO

from prottune.errors import DataError
from prottune.fasta import FastaRecord, read_fasta
from prottune.ingestion.entries import MAX_ENTRIES, Entry, accession_of, membrane_of, split_of
from prottune.ingestion.findings import Findings
from prottune.records import Membrane

_DEEPLOC = re.compile(r"(\S+)\s+(\S.*)-([A-Z])(?:\s+(\S.*))?")
"""id, label up to the last dash, flag, and the third word."""
_UNIPROT = re.compile(r"(?:sp|tr)\|[^|\s]+\|\S*(?:\s.*)?")
_FOREIGN = re.compile(r"[^|\s]+\|([^|\s]+)\|[^|\s]+(?:\|.*)?(?:\s.*)?")
"""acc|Label|group: DeepLocPro and its kin."""
_BIOTRAINER_KEYS = ("TARGET", "SET", "VALIDATION")


def read_labelled_fasta(stream: BinaryIO, name: str, findings: Findings) -> list[Entry]:
    """Read a FASTA file whose headers carry locations; proteins of an external test set are left out.

    Raises: DataError with file:line for a header without a location or in no known dialect.
    """
    records = []
    for record in read_fasta(stream, name, findings.add):
        records.append(record)
        if len(records) > MAX_ENTRIES:
            raise DataError(f"{name}:{record.line}: more than {MAX_ENTRIES:,} proteins; split the source")
    _refuse_foreign(records, name)
    entries = (_entry(record, name, findings) for record in records)
    return [entry for entry in entries if entry is not None]


def _entry(record: FastaRecord, name: str, findings: Findings) -> Entry | None:
    where = f"{name}:{record.line}"
    if any(word.partition("=")[0] in _BIOTRAINER_KEYS for word in record.header.split()[1:]):
        return _biotrainer_entry(record, where, findings)
    parts = _DEEPLOC.fullmatch(record.header)
    if parts is None:
        raise DataError(_no_location(record, where))
    identifier, location, flag, word = parts.groups(default="")
    accession = accession_of(identifier, where)
    membrane = membrane_of(flag, accession, where, findings)
    split = split_of(word, accession, where, findings)
    if split is None:
        return None
    return Entry(accession, record.sequence, location, membrane, split, where)


def _biotrainer_entry(record: FastaRecord, where: str, findings: Findings) -> Entry | None:
    """`>Seq1 TARGET=Nucleus SET=train VALIDATION=False`. Source: biotrainer docs/data_standardization.md."""
    identifier, *words = record.header.split()
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
    accession = accession_of(identifier, where)
    split = split_of(word, accession, where, findings)
    if split is None:
        return None
    return Entry(accession, record.sequence, values["TARGET"], Membrane.UNKNOWN, split, where)


def _refuse_foreign(records: Iterable[FastaRecord], name: str) -> None:
    seen: dict[str, int] = {}
    for record in records:
        match = _FOREIGN.fullmatch(record.header)
        if match and not _UNIPROT.fullmatch(record.header):
            seen.setdefault(match.group(1), record.line)
    if seen:
        raise DataError(
            f"{name}:{min(seen.values())}: headers of the form accession|label|group belong to another label "
            f"space (seen: {', '.join(sorted(seen)[:10])}); expected '>ACCESSION Location-M|S|U [test]'"
        )


def _no_location(record: FastaRecord, where: str) -> str:
    kind = "a UniProt header" if _UNIPROT.fullmatch(record.header) else "a header"
    return (
        f"{where}: {kind} without a location, {record.header[:60]!r}; training needs "
        "'>ACCESSION Location-M|S|U [test]'"
    )
