"""Screening shows the rules few entries; the outcome is what they say when they see all."""

import io
import random

import numpy as np
import pyarrow as pa
import pytest

from prottune.ingestion import checks, screening
from prottune.ingestion.entries import Entries, Entry, distinct
from prottune.ingestion.findings import Findings
from prottune.ingestion.formats import read_labelled_fasta
from prottune.records import PROTEINS_SCHEMA, Membrane, Split

RESIDUES = "ACDEFGHIKLMNPQRSTVWY"
ODD = ("mkv", "MKV*", "MKU", "MXXV", "ACGT" * 14 + "ACG", "ACGTN" * 12 + "M", "X")


def entry(
    accession: str, sequence: str = "MKV", location: str = "Nucleus", split: Split = Split.TRAIN
) -> Entry:
    return Entry(accession, sequence, location, Membrane.UNKNOWN, split, f"in.fa:{accession}")


def random_entries(seed: int) -> list[Entry]:
    """Entries of which many are odd, alike, isoforms, or in train and in test."""
    draw = random.Random(seed)
    long = ["".join(draw.choices(RESIDUES, k=70)) for _ in range(6)]
    entries = []
    for number in range(120):
        letters = draw.choice(
            [*ODD, *long, *(f"{one[:64]}W" for one in long), f"M{number:b}".translate(LETTERS)]
        )
        accession = (
            f"P{10000 + number}" if draw.random() < 0.8 else f"P{10000 + draw.randrange(120)}-{number}"
        )
        split = draw.choice([Split.TRAIN, Split.TRAIN, Split.TEST])
        entries.append(entry(accession, letters, draw.choice(["Nucleus", "Cytoplasm"]), split))
    return entries


LETTERS = str.maketrans("01", "AW")


def noted(findings: Findings) -> tuple[dict[str, int], dict[str, list[str]]]:
    return findings.in_order(), {kind: names for kind, names in findings.examples.items() if names}


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("num_pieces", [1, 3])
def test_residues_are_judged_as_if_the_rule_had_seen_all(seed: int, num_pieces: int) -> None:
    entries, expected, found = random_entries(seed), Findings(), Findings()
    parts = [Entries.of(part.tolist()) for part in np.array_split(np.array(entries, object), num_pieces)]
    checked = screening.check_residues(Entries.joined(parts), found)
    assert list(checked) == checks.check_residues(entries, expected)
    assert noted(found) == noted(expected)


@pytest.mark.parametrize("seed", range(8))
def test_relations_are_judged_as_if_the_rule_had_seen_all(seed: int) -> None:
    entries, expected, found = random_entries(seed), Findings(), Findings()
    is_kept = screening.resolve_relations(Entries.of(entries), "drop", "drop_train", found)
    kept = checks.resolve_relations(entries, "drop", "drop_train", expected)
    assert list(Entries.of(entries).only(is_kept)) == kept
    assert 0 < len(kept) < len(entries)
    assert noted(found) == noted(expected)


def test_only_the_first_faults_in_the_order_of_the_source_are_named() -> None:
    entries = Entries.of([entry("P1", "ACGT" * 15), entry("P2", "MK-")])
    with pytest.raises(checks.DataError, match=r"in\.fa:P1: P1 has only nucleotides"):
        screening.check_residues(entries, Findings())


def read(content: str) -> tuple[Entries, Findings]:
    findings = Findings()
    return read_labelled_fasta(io.BytesIO(content.encode()), "in.fa", findings), findings


def test_what_is_noticed_about_one_wording_is_counted_for_every_record_with_it() -> None:
    wordings = ["Nucleus-X", "Plastid-X test", "Nucleus-U", "Nucleus-X val", "Nucleus-X new_test_set"]
    entries, findings = read("".join(f">P{n} {wordings[n % 5]}\nMK\n" for n in range(40)))
    assert findings.in_order() == {"no_membrane_flag": 32, "external_test_dropped": 8, "validation_recut": 8}
    assert findings.examples["no_membrane_flag"] == ["P0", "P1", "P3", "P4", "P5"]
    assert findings.examples["validation_recut"] == ["P3", "P8", "P13", "P18", "P23"]
    assert len(entries) == 32
    assert list(entries)[1] == Entry("P1", "MK", "Plastid", Membrane.UNKNOWN, Split.TEST, "in.fa:3")


def test_a_header_with_other_blanks_lends_its_words_to_no_other() -> None:
    entries, _ = read(">P1\u00a0Nucleus-S test\nMK\n>P2 Plastid-S\nMK\n")
    assert [(one.accession, one.location, one.split) for one in entries] == [
        ("P1", "Nucleus", Split.TEST),
        ("P2", "Plastid", Split.TRAIN),
    ]
    with pytest.raises(checks.DataError, match=r"in\.fa:3: a header without a location, 'P2 test'"):
        read(">P1\u00a0Nucleus-S test\nMK\n>P2 test\nMK\n")


def test_uniprot_ids_and_others_with_one_wording_keep_their_own_accessions() -> None:
    entries, _ = read(">sp|P1|A_B Nucleus-S\nMK\n>P2 Nucleus-S\nMK\n>tr|P3|C_D Nucleus-S\nMK\n")
    assert [one.accession for one in entries] == ["P1", "P2", "P3"]


def test_entries_go_to_columns_and_back() -> None:
    entries = random_entries(1)
    columns = Entries.of(entries)
    assert list(columns) == entries
    assert columns.at(np.array([3, 1])) == [entries[3], entries[1]]
    shuffled = columns.in_order_of("where", np.arange(len(entries)) % 2 == 0)
    assert list(shuffled) == sorted(entries[::2], key=lambda one: one.where)


def test_entries_become_the_table_of_proteins() -> None:
    table = Entries.of([entry("P1", "MKV"), entry("P2", "MK")]).as_proteins(
        pa.array(["gate", "test"]), pa.array(["P1", "P1"])
    )
    assert table.schema == PROTEINS_SCHEMA
    assert table.to_pylist()[1] == {
        "accession": "P2",
        "sequence": "MK",
        "location": "Nucleus",
        "membrane": "U",
        "split": "test",
        "cluster": "P1",
        "length": 2,
    }


def test_distinct_values_are_numbered_by_their_first_rows() -> None:
    first, which = distinct(pa.array(["b", "a", "b", "c", "a"]))
    assert first.tolist() == [0, 1, 3]
    assert which.tolist() == [0, 1, 0, 2, 1]
