"""Which few entries a rule of `checks` could refuse, change or count: only those are shown to it."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from prottune.alphabet import STANDARD_RESIDUES
from prottune.ingestion import checks
from prottune.ingestion.entries import Entries, Mask, Rows
from prottune.ingestion.findings import Findings
from prottune.lookup import look_up
from prottune.records import base_accession

_IS_ODD = bytes(letter not in STANDARD_RESIDUES.encode() for letter in range(256))
"""Byte -> 1 unless it is one of the 20 standard residues as the model reads it."""
_IS_NUCLEOTIDE = np.array([chr(letter) in checks.NUCLEOTIDES for letter in range(256)])
_NUM_TELLING = 64
"""Most sequences differ in so many letters already."""


def refuse_duplicate_accessions(entries: Entries) -> None:
    """Raises: DataError if an accession occurs more than once."""
    is_shared = _is_shared(entries["accession"])
    if is_shared.any():
        checks.refuse_duplicate_accessions(entries.only(is_shared))


def check_residues(entries: Entries, findings: Findings) -> Entries:
    """Show `checks.check_residues` what is not all standard residues, and what could be nucleotides.

    Raises: DataError as it does.
    """
    sequences = entries.table["sequence"]
    is_doubtful = np.concatenate(
        [_has_odd_letter(part) | _begins_as_nucleotides(part) for part in sequences.chunks if len(part)]
    )
    checked = checks.check_residues(entries.only(is_doubtful), findings)
    pieces, start = [], 0
    for row, entry in zip(np.flatnonzero(is_doubtful).tolist(), checked, strict=True):
        pieces += [*sequences[start:row].chunks, pa.array([entry.sequence], sequences.type)]
        start = row + 1
    return entries.changed("sequence", pa.concat_arrays([*pieces, *sequences[start:].chunks]))


def resolve_relations(entries: Entries, on_conflict: str, on_crossing: str, findings: Findings) -> Mask:
    """Show `checks.resolve_relations` what shares sequence or base accession with another; True if it stays.

    Raises: DataError as it does.
    """
    is_related = _has_shared_sequence(entries["sequence"]) | _is_shared(
        _base_accessions(entries["accession"])
    )
    related = list(entries.only(is_related))
    kept = checks.resolve_relations(related, on_conflict, on_crossing, findings)
    names = {entry.accession for entry in kept}
    is_kept = ~is_related
    is_kept[is_related] = [entry.accession in names for entry in related]
    return is_kept


def _is_shared(column: pa.Array) -> Mask:
    """True where another row has the same value."""
    places = column.dictionary_encode().indices.to_numpy()
    is_shared: Mask = (np.bincount(places) > 1)[places]
    return is_shared


def _has_shared_sequence(sequences: pa.LargeStringArray) -> Mask:
    """`_is_shared`, of whole sequences only where it is so of their first letters."""
    is_shared = _is_shared(pc.binary_slice(sequences.cast(pa.large_binary()), 0, _NUM_TELLING))
    is_shared[is_shared] = _is_shared(sequences.filter(pa.array(is_shared)))
    return is_shared


def _base_accessions(accessions: pa.StringArray) -> pa.StringArray:
    """`base_accession` of each; only a name with a dash can be an isoform's."""
    is_isoform = pc.match_substring(accessions, "-")
    bases = [base_accession(accession) for accession in accessions.filter(is_isoform).to_pylist()]
    return pc.replace_with_mask(accessions, is_isoform, pa.array(bases, pa.string()))


def _has_odd_letter(sequences: pa.LargeStringArray) -> Mask:
    starts, letters = _letters(sequences)
    odd = np.flatnonzero(np.frombuffer(look_up(letters, _IS_ODD), np.bool_)[: starts[-1]])
    is_odd = np.zeros(len(sequences), np.bool_)
    is_odd[np.searchsorted(starts, odd, side="right") - 1] = True
    return is_odd


def _begins_as_nucleotides(sequences: pa.LargeStringArray) -> Mask:
    """True for the few whose first letters are nucleotides, as many as make a sequence of them."""
    starts, letters = _letters(sequences)
    is_such: Mask = _IS_NUCLEOTIDE[np.frombuffer(letters, np.uint8)[starts[:-1]]]  # few; most begin with M
    begins = pc.utf8_slice_codeunits(sequences.filter(pa.array(is_such)), 0, checks.MIN_NUCLEOTIDES)
    rest = pc.utf8_ltrim(begins, "".join(sorted(checks.NUCLEOTIDES)))
    is_such[is_such] = pc.binary_length(rest).to_numpy() == 0
    return is_such


def _letters(sequences: pa.LargeStringArray) -> tuple[Rows, pa.Buffer]:
    """Where each sequence begins, and where the last one ends, among the letters of all; these letters."""
    _, offsets, letters = sequences.buffers()
    borders = np.frombuffer(offsets, np.int64)[sequences.offset :][: len(sequences) + 1]
    return borders - borders[0], letters.slice(borders[0], borders[-1] - borders[0])
