"""Ingestion as a whole: a source becomes a finished folder, equal for equal proteins, or nothing."""

import random
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import pytest

from prottune.alphabet import clean
from prottune.artifacts import file_sha256, read_manifest
from prottune.errors import ConfigError, DataError
from prottune.ingestion.checks import check_residues
from prottune.ingestion.entries import Entry
from prottune.ingestion.findings import Findings
from prottune.ingestion.page import losses
from prottune.ingestion.settings import IngestConfig, IngestReport
from prottune.ingestion.sources import take_source
from prottune.ingestion.stage import checked_entries, ingest, share_with_relative_in_train
from prottune.records import DEEPLOC10, PROTEINS_FILE, LabelSet, Membrane, Protein, Split, read_proteins

RESIDUES = "ACDEFGHIKLMNPQRSTVWY"
LOCATIONS = ("Nucleus", "Cytoplasm", "Extracellular")


def records(with_test: bool = True) -> list[str]:
    """120 proteins of three locations; every third is a relative of the one before."""
    draw = random.Random(5)
    written, last = [], ""
    for number in range(120):
        fresh = "".join(draw.choices(RESIDUES, k=draw.randrange(80, 140)))
        sequence = f"{last[:-3]}WWW" if number % 3 == 2 else fresh
        last = sequence
        word = " test" if with_test and number % 5 == 0 else ""
        written.append(f">A{number:03} {LOCATIONS[number // 3 % 3]}-U{word}\n{sequence}\n")
    return written


def splits_by_cluster(proteins: list[Protein]) -> dict[str, set[Split]]:
    """The splits that the proteins of each cluster lie in."""
    splits = defaultdict(set)
    for protein in proteins:
        splits[protein.cluster].add(protein.split)
    return splits


ODD = [">B1 Cytoplasm-Nucleus-U\nMKUUTAYIAKQ*\n", ">B2 ER-X\nMKTaYIAKQR\n"]


def write(path: Path, written: list[str]) -> str:
    """Put records into a file."""
    path.write_text("".join(written))
    return str(path)


@dataclass(frozen=True)
class Ingested:
    """One ingestion that several tests look at."""

    source: Path
    folder: Path
    report: IngestReport
    proteins: list[Protein]


@pytest.fixture(scope="module")
def ingested(tmp_path_factory: pytest.TempPathFactory) -> Ingested:
    place = tmp_path_factory.mktemp("ingested")
    source = write(place / "in.fasta", records() + ODD)
    report = ingest(source, place / "records", IngestConfig())
    return Ingested(Path(source), place / "records", report, read_proteins(place / "records"))


def test_proteins_are_written_by_accession_with_the_given_test(ingested: Ingested) -> None:
    names = [f"A{number:03}" for number in range(120)]
    assert [protein.accession for protein in ingested.proteins] == [*names, "B1", "B2"]
    test = {protein.accession for protein in ingested.proteins if protein.split is Split.TEST}
    assert test == set(names[::5])
    assert {protein.membrane for protein in ingested.proteins} == {Membrane.UNKNOWN}
    odd = [(protein.sequence, protein.location) for protein in ingested.proteins[-2:]]
    assert odd == [("MKXXTAYIAKQ", "Cytoplasm"), ("MKTAYIAKQR", "Endoplasmic.reticulum")]


def test_sequences_are_spelled_as_the_model_reads_them(ingested: Ingested) -> None:
    every_letter = Entry("Q1", "abcdefghijklmnopqrstuvwxyz", "Nucleus", Membrane.UNKNOWN, Split.TRAIN, "x:1")
    checked = check_residues([every_letter], Findings())
    assert checked[0].sequence == clean(every_letter.sequence) == "AXCDEFGHIXKLMNXPQRSTXVWXYX"
    assert all(clean(protein.sequence) == protein.sequence for protein in ingested.proteins)


def test_relatives_stay_together_and_no_cluster_straddles_the_cut_splits(ingested: Ingested) -> None:
    clusters = {protein.accession: protein.cluster for protein in ingested.proteins}
    assert all(clusters[f"A{number - 1:03}"] == clusters[f"A{number:03}"] for number in range(2, 120, 3))
    splits = splits_by_cluster(ingested.proteins)
    assert all(len(found) == 1 or found == {Split.TRAIN, Split.TEST} for found in splits.values())


def test_the_report_counts_what_was_written(ingested: Ingested) -> None:
    proteins, report = ingested.proteins, ingested.report
    splits = splits_by_cluster(proteins)
    near = [protein for protein in proteins if splits[protein.cluster] == {Split.TRAIN, Split.TEST}]
    near_test = [protein for protein in near if protein.split is Split.TEST]
    assert len(near_test) > 0
    assert report.share_test_with_relative_in_train == len(near_test) / 24
    assert report.counts == {
        "lower_case": 1,
        "stop_removed": 1,
        "rare_residues": 1,
        "many_unknown": 1,
        "location_spelling": 1,
        "cytoplasm_nucleus": 1,
        "no_membrane_flag": 1,
        "shared_with_test": len(near) - len(near_test),
    }
    assert report.num_proteins == 122
    assert report.num_residues == sum(protein.num_residues for protein in proteins)
    assert report.splits == {
        split.value: sum(protein.split is split for protein in proteins) for split in Split
    }
    assert report.splits["test"] == 24
    found = {place: count for place, count in report.locations.items() if count}
    assert found == {"Nucleus": 42, "Cytoplasm": 40, "Extracellular": 39, "Endoplasmic.reticulum": 1}


def test_the_folder_is_sealed_with_labels_and_the_hash_of_its_source(ingested: Ingested) -> None:
    manifest = read_manifest(ingested.folder, "ingest")
    assert set(manifest.files) == {PROTEINS_FILE, "report.html"}
    assert manifest.facts == {"label_set": "deeploc10", "labels": list(DEEPLOC10.locations)}
    assert manifest.inputs == {"source": file_sha256(ingested.source)}
    assert ingested.report.source_sha256 == manifest.inputs["source"]
    assert ingested.report.dataset_digest == manifest.digest


def test_the_page_names_what_was_repaired_and_where_the_data_comes_from(ingested: Ingested) -> None:
    page = (ingested.folder / "report.html").read_text()
    for words in (
        "<td>sequences whose final stop (*) was removed</td>",
        "B2 (ER)",
        ingested.report.source_sha256,
        "not the file that DeepLoc&#x27;s authors published",
        "mmseqs cluster --min-seq-id 0.3 -c 0.8 --cov-mode 0 --single-step-clustering 1",
        f"{ingested.report.share_test_with_relative_in_train:.1%} of the test proteins",
        "510 residues (512 tokens)",
        "<svg",
    ):
        assert words in page
    assert "<script" not in page


def test_order_line_ends_and_packing_of_the_source_do_not_change_the_data(
    tmp_path: Path, ingested: Ingested
) -> None:
    shuffled = records() + ODD
    random.Random(1).shuffle(shuffled)
    folder = tmp_path / "parts"
    folder.mkdir()
    write(folder / "1.fa", [record.replace("\n", "\r\n") for record in shuffled[:50]])
    write(folder / "2.faa", shuffled[50:])
    write(folder / "README.txt", ["not read"])
    second = ingest(str(folder), tmp_path / "b", IngestConfig())
    assert (ingested.folder / PROTEINS_FILE).read_bytes() == (tmp_path / "b" / PROTEINS_FILE).read_bytes()
    assert second.dataset_digest == ingested.report.dataset_digest
    assert second.source_sha256 != ingested.report.source_sha256
    assert second.counts == ingested.report.counts | {"crlf": 1, "ignored_files": 1}


def test_a_test_is_cut_by_cluster_when_the_source_marks_none(tmp_path: Path) -> None:
    source = write(tmp_path / "in.fasta", records(with_test=False))
    report = ingest(source, tmp_path / "records", IngestConfig())
    assert 20 <= report.splits["test"] <= 28
    assert report.share_test_with_relative_in_train == 0
    assert "shared_with_test" not in report.counts


def test_a_refused_source_leaves_nothing_behind(tmp_path: Path) -> None:
    source = write(tmp_path / "in.fasta", [*records(), ">B1 Nucleus-U\nMK-V\n"])
    with pytest.raises(DataError, match=r"in\.fasta:241: B1 has '-' at residue 3"):
        ingest(source, tmp_path / "records", IngestConfig())
    assert [path.name for path in tmp_path.iterdir()] == ["in.fasta"]


def test_a_finished_folder_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "mine").write_text("keep")
    with pytest.raises(ConfigError, match="never changed"):
        ingest(write(tmp_path / "in.fasta", records()), tmp_path / "records", IngestConfig())


def test_a_label_file_fixes_order_and_spelling(tmp_path: Path) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("Extracellular\nCytoplasm\n\nNucleus\n")
    source = write(tmp_path / "in.fasta", [record.replace("Nucleus", "NUCLEUS") for record in records()])
    findings = Findings()
    taken = take_source(source, tmp_path / "scratch", 1_000_000, "", findings)
    entries, chosen = checked_entries(taken, IngestConfig(labels=str(labels)), findings)
    assert chosen == LabelSet("custom", ("Extracellular", "Cytoplasm", "Nucleus"))
    assert sum(entry.location == "Nucleus" for entry in entries) == 42
    assert findings.in_order() == {"location_spelling": 42}


def test_a_name_in_the_label_file_is_nobody_elses_alias(tmp_path: Path) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("Chloroplast\nPlastid\nNucleus\n")
    names = ("chloroplast", "plastid", "Nucleus")
    lines = [f">P{n} {names[n % 3]}-U\n{'MKTAYIAKQR'[: 3 + n]}\n" for n in range(6)]
    taken = take_source(write(tmp_path / "in.fasta", lines), tmp_path / "scratch", 1_000_000, "", Findings())
    entries, _ = checked_entries(taken, IngestConfig(labels=str(labels)), Findings())
    assert [entry.location for entry in entries] == ["Chloroplast", "Plastid", "Nucleus"] * 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "expected auto, deeploc10 or a readable text file"),
        ("Nucleus\n", "expected at least two different location names, one a line"),
        ("Nucleus\nNucleus\n", "expected at least two different location names, one a line"),
        ("Nucleus\n1\n", "expected at least two different location names, one a line"),
    ],
)
def test_an_unusable_label_file_is_refused(tmp_path: Path, content: str | None, message: str) -> None:
    labels = tmp_path / "labels.txt"
    if content is not None:
        labels.write_text(content)
    source = write(tmp_path / "in.fasta", records())
    with pytest.raises(ConfigError) as refused:
        ingest(source, tmp_path / "records", IngestConfig(labels=str(labels)))
    assert str(refused.value) == f"labels={str(labels)!r}: {message}"


def test_losses_of_a_cut() -> None:
    assert losses([10, 20, 30, 40], 25) == (0.5, 0.2)
    assert losses([10, 20], 25) == (0.0, 0.0)


def test_share_with_a_relative_counts_test_proteins_by_cluster() -> None:
    def protein(name: str, split: Split, cluster: str) -> Protein:
        return Protein(name, "MK", "Nucleus", Membrane.UNKNOWN, split, cluster)

    proteins = [
        protein("A", Split.TRAIN, "A"),
        protein("B", Split.TEST, "A"),
        protein("C", Split.TEST, "C"),
        protein("D", Split.GATE, "D"),
        protein("E", Split.TEST, "E"),
        protein("F", Split.TEST, "A"),
    ]
    assert share_with_relative_in_train(proteins) == 0.5
