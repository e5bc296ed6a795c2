"""What ingestion repaired, left out or merely noticed: a count and a few names for each kind."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

MAX_EXAMPLES = 5

MEANINGS = {
    "byte_order_mark": "files whose byte order mark was removed",
    "crlf": "files with CRLF line ends",
    "no_final_newline": "files whose last line has no end: check that the file was not cut off",
    "ignored_files": "files of the folder with an unrecognised name, not read",
    "ignored_columns": "columns of tables that were not read",
    "inner_blanks": "sequences with blanks inside, removed",
    "lower_case": "sequences with lower-case residues, read as upper case",
    "stop_removed": "sequences whose final stop (*) was removed",
    "rare_residues": "sequences with U, Z, O, B or J, which became X",
    "many_unknown": "sequences with more than a tenth of X, kept",
    "location_spelling": "locations in another spelling, read as DeepLoc's",
    "cytoplasm_nucleus": "proteins in Cytoplasm-Nucleus, counted as Cytoplasm",
    "cytoplasm_nucleus_dropped": "proteins in Cytoplasm-Nucleus, left out",
    "outside_deeploc10": "locations that DeepLoc does not know; all locations form the label set",
    "no_membrane_flag": "proteins whose membrane flag is X (not available), read as unknown",
    "external_test_dropped": "proteins of an external test set (new_test_set), left out: they never train",
    "validation_recut": "proteins given as validation or gate, cut again by cluster with the training ones",
    "duplicate_sequences": "proteins with the sequence of an earlier protein, kept together in one split",
    "isoforms": "proteins that share a base accession with an earlier one, kept together in one split",
    "crossing_dropped": "training proteins that are also in test (same sequence or isoform), left out",
    "conflicts_dropped": "proteins whose one sequence has two locations, left out",
    "shared_with_test": "training proteins with a test protein in their cluster; never in validation or gate",
}
"""Every kind, in the words of the report page; docs/data.md explains each."""


class Findings:
    """Counts by kind, with the first names of each."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.examples: defaultdict[str, list[str]] = defaultdict(list)

    def add(self, kind: str, example: str) -> None:
        """Count one more of a kind that `MEANINGS` explains."""
        self.add_all(kind, 1, [example])

    def add_all(self, kind: str, count: int, examples: Sequence[str]) -> None:
        """Count many more of a kind, whose first `MAX_EXAMPLES` are named."""
        self.counts[kind] += count
        self.examples[kind] += examples[: MAX_EXAMPLES - len(self.examples[kind])]

    def in_order(self) -> dict[str, int]:
        """Counts of what occurred, in the order of `MEANINGS`."""
        return {kind: self.counts[kind] for kind in MEANINGS if self.counts[kind]}
