"""Entries as given -> entries that may be used: residues, locations, duplicates, and who is in test."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from prottune.alphabet import RARE_RESIDUES, clean
from prottune.errors import ConfigError, DataError
from prottune.ingestion.entries import Entries, Entry, distinct
from prottune.ingestion.findings import Findings
from prottune.records import DEEPLOC10, LabelSet, Split, base_accession, label_set_for, slug

CYTOPLASM_NUCLEUS = "Cytoplasm-Nucleus"
_ALIASES = {
    "cell membrane": "Cell.membrane",
    "endoplasmic reticulum": "Endoplasmic.reticulum",
    "er": "Endoplasmic.reticulum",
    "golgi apparatus": "Golgi.apparatus",
    "chloroplast": "Plastid",
}
"""Other spellings of DeepLoc's locations; those of DeepLoc 2.0 have spaces."""
_LOCATION = re.compile(r"[A-Za-z][A-Za-z0-9 ._,/()+'-]{0,63}")
_NO_LETTER = re.compile(r"[^A-Za-z]")
NUCLEOTIDES = frozenset("ACGTUN")
MIN_NUCLEOTIDES = 60
"""So many letters that are all nucleotides are no protein's."""
_MANY_UNKNOWN = 0.1


def check_residues(entries: Iterable[Entry], findings: Findings) -> list[Entry]:
    """Spell every sequence as the model reads it, and count each repair.

    Raises: DataError naming line, accession and positions (from 1) of whatever is no amino acid, and
        sequences that are nucleotides.
    """
    return [replace(entry, sequence=_clean(entry, findings)) for entry in entries]


def _clean(entry: Entry, findings: Findings) -> str:
    sequence = entry.sequence
    if sequence.endswith("*"):
        sequence = sequence[:-1]
        findings.add("stop_removed", entry.accession)
    bad = [f"{found.group()!r} at residue {found.start() + 1}" for found in _NO_LETTER.finditer(sequence)]
    if bad or not sequence:
        what = f"{', '.join(bad[:5])} ({len(bad)} in all)" if bad else "nothing but a stop"
        raise DataError(f"{entry.where}: {entry.accession} has {what}; expected amino acid letters only")
    upper = sequence.upper()
    if upper != sequence:
        findings.add("lower_case", entry.accession)
    if len(upper) >= MIN_NUCLEOTIDES and set(upper) <= NUCLEOTIDES:
        raise DataError(
            f"{entry.where}: {entry.accession} has only nucleotides ({upper[:12]}...); expected a protein"
        )
    cleaned = upper  # every other capital letter stands for itself
    if any(letter in upper for letter in RARE_RESIDUES):
        findings.add("rare_residues", entry.accession)
        cleaned = clean(upper)
    if cleaned.count("X") > _MANY_UNKNOWN * len(cleaned):
        findings.add("many_unknown", entry.accession)
    return cleaned


def refuse_duplicate_accessions(entries: Iterable[Entry]) -> None:
    """Raises: DataError if an accession occurs more than once, whatever its sequence, with both places."""
    first: dict[str, str] = {}
    twice: list[str] = []
    for entry in entries:
        if entry.accession in first:
            twice.append(f"{entry.accession} ({first[entry.accession]} and {entry.where})")
        first.setdefault(entry.accession, entry.where)
    if twice:
        raise DataError(f"{_some(twice, 'accession')} more than once; expected each once")


def settle_locations(
    entries: Entries, labels: str, on_cytoplasm_nucleus: str, findings: Findings
) -> tuple[Entries, LabelSet]:
    """Spell every location as its label set does, and choose the set when `labels` is auto.

    Raises: DataError with file:line for a location outside the set or no possible name; ConfigError for a
        label file that cannot be used.
    """
    chosen = _chosen_labels(labels)
    names = (chosen or DEEPLOC10).locations
    spellings = {alias: name for alias, name in _ALIASES.items() if name in names}
    spellings |= {name.lower(): name for name in names}  # a name of the set itself is nobody's alias
    cytoplasm = spellings.get("cytoplasm")
    both = CYTOPLASM_NUCLEUS.lower()
    is_both_known = both not in spellings and (cytoplasm or on_cytoplasm_nucleus == "drop")
    first, which = distinct(entries["location"])
    given = entries.at(first)
    is_of_both = [bool(is_both_known) and entry.location.lower() == both for entry in given]
    settled = [
        cytoplasm or CYTOPLASM_NUCLEUS if is_such else _settled(entry, spellings, chosen)
        for entry, is_such in zip(given, is_of_both, strict=True)
    ]
    is_both = np.array(is_of_both)[which]
    is_other = np.array([entry.location != name for entry, name in zip(given, settled, strict=True)])[which]
    is_dropped = is_both & (on_cytoplasm_nucleus == "drop")
    entries.note(findings, "cytoplasm_nucleus_dropped", is_dropped)
    entries.note(findings, "cytoplasm_nucleus", is_both & ~is_dropped)
    entries.note(findings, "location_spelling", is_other & ~is_both, _with_location)
    entries = entries.changed("location", pa.array(settled, pa.string()).take(pa.array(which)))
    entries = entries.only(~is_dropped)
    found = chosen or label_set_for(entries["location"].unique().to_pylist())
    _refuse_alike(found, {name: entry.where for name, entry in zip(settled, given, strict=True)})
    if chosen is None and found != DEEPLOC10:
        for name in sorted(set(found.locations) - set(DEEPLOC10.locations)):
            findings.add("outside_deeploc10", name)
    return entries, found


def _refuse_alike(labels: LabelSet, places: Mapping[str, str]) -> None:
    """Refuse two locations that would share a column of the predictions.

    Raises: DataError with both names, and a place where the second stands.
    """
    first: dict[str, str] = {}
    for location in labels.locations:
        if (other := first.setdefault(slug(location), location)) != location:
            raise DataError(
                f"{places.get(location, 'labels')}: locations {other!r} and {location!r} differ in case or "
                "signs only; spell them alike, or rename one"
            )


def _with_location(entry: Entry) -> str:
    return f"{entry.accession} ({entry.location})"


def _settled(entry: Entry, spellings: Mapping[str, str], chosen: LabelSet | None) -> str:
    """An entry's location in the spelling of its label set."""
    location = spellings.get(entry.location.lower(), entry.location)
    _check_location(location, chosen, entry.where)
    return location


def _check_location(location: str, chosen: LabelSet | None, where: str) -> None:
    if chosen is not None and location not in chosen.locations:
        raise DataError(
            f"{where}: location {location!r} is not in label set {chosen.name!r}; expected one of "
            f"{', '.join(chosen.locations)}"
        )
    if not _LOCATION.fullmatch(location):
        raise DataError(f"{where}: location {location[:70]!r}; expected a name that begins with a letter")


def _chosen_labels(setting: str) -> LabelSet | None:
    """The label set a setting names: none for auto, DeepLoc's ten, or those of a file, one a line."""
    if setting in ("auto", DEEPLOC10.name):
        return None if setting == "auto" else DEEPLOC10
    try:
        lines = Path(setting).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"labels={setting!r}: expected auto, deeploc10 or a readable text file") from error
    names = tuple(line.strip() for line in lines if line.strip())
    if len(names) < 2 or len(set(names)) != len(names) or not all(map(_LOCATION.fullmatch, names)):
        raise ConfigError(f"labels={setting!r}: expected at least two different location names, one a line")
    return DEEPLOC10 if names == DEEPLOC10.locations else LabelSet("custom", names)


def resolve_relations(
    entries: Sequence[Entry], on_conflict: str, on_crossing: str, findings: Findings
) -> list[Entry]:
    """Resolve, by setting, one sequence with two locations, and proteins that are in train and in test.

    The test proteins stay as given, except for those that contradict each other under `drop`.

    Raises: DataError naming the proteins when a setting says refuse.
    """
    conflicts = _conflicts(entries)
    if conflicts and on_conflict == "refuse":
        named = [
            " and ".join(f"{entry.accession} {entry.location}" for entry in group) for group in conflicts
        ]
        raise DataError(
            f"{conflicts[0][-1].where}: {_some(named, 'sequence')} with two locations; correct the source, "
            "or leave them out with on_conflict=drop"
        )
    kept = _without_crossing(entries, on_crossing, findings)
    doubtful = {entry.accession for group in _conflicts(kept) for entry in group}
    for entry in kept:
        if entry.accession in doubtful:
            findings.add("conflicts_dropped", entry.accession)
    kept = [entry for entry in kept if entry.accession not in doubtful]
    _count_repeats(kept, "duplicate_sequences", lambda entry: entry.sequence, findings)
    _count_repeats(kept, "isoforms", lambda entry: base_accession(entry.accession), findings)
    return kept


def _conflicts(entries: Iterable[Entry]) -> list[list[Entry]]:
    """Groups of entries with one sequence and more than one location."""
    groups: defaultdict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        groups[entry.sequence].append(entry)
    return [group for group in groups.values() if len({entry.location for entry in group}) > 1]


def _without_crossing(entries: Sequence[Entry], on_crossing: str, findings: Findings) -> list[Entry]:
    test = [entry for entry in entries if entry.split is Split.TEST]
    sequences = {entry.sequence for entry in test}
    proteins = {base_accession(entry.accession) for entry in test}
    crossing = [
        entry
        for entry in entries
        if entry.split is not Split.TEST
        and (entry.sequence in sequences or base_accession(entry.accession) in proteins)
    ]
    if crossing and on_crossing == "refuse":
        named = _some([entry.accession for entry in crossing], "training protein")
        raise DataError(
            f"{crossing[0].where}: {named} also in test (same sequence or isoform of one protein); correct "
            "the source, or leave them out of training with on_crossing=drop_train"
        )
    for entry in crossing:
        findings.add("crossing_dropped", entry.accession)
    dropped = {entry.accession for entry in crossing}
    return [entry for entry in entries if entry.accession not in dropped]


def _count_repeats(
    entries: Iterable[Entry], kind: str, key: Callable[[Entry], str], findings: Findings
) -> None:
    seen: dict[str, str] = {}
    for entry in entries:
        first = seen.setdefault(key(entry), entry.accession)
        if first != entry.accession:
            findings.add(kind, f"{entry.accession} (as {first})")


def _some(named: Sequence[str], noun: str) -> str:
    verb = f"1 {noun}" if len(named) == 1 else f"{len(named)} {noun}s"
    return f"{verb} ({', '.join(named[:5])}{', ...' if len(named) > 5 else ''})"
