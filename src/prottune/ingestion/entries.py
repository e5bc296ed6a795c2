"""A labelled protein as its source gives it, before anything is judged, and the words sources use."""

from __future__ import annotations

import re
from dataclasses import dataclass

from prottune.errors import DataError
from prottune.ingestion.findings import Findings
from prottune.records import Membrane, Split

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


def accession_of(identifier: str, where: str) -> str:
    """Take the accession out of an identifier: field 2 of UniProt's `sp|P12345|NAME_HUMAN`, else all of it.

    Raises: DataError for an identifier that is empty, too long, or has other fields between bars.
    """
    if found := _UNIPROT_ID.fullmatch(identifier):
        return found.group(1)
    if not identifier or len(identifier) > MAX_ACCESSION:
        raise DataError(f"{where}: accession {identifier[:40]!r}; expected 1 to {MAX_ACCESSION} characters")
    if "|" in identifier or " " in identifier or not identifier.isprintable():
        raise DataError(
            f"{where}: accession {identifier!r}; expected one word without '|', or sp|ACCESSION|NAME"
        )
    return identifier


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
