"""Ingestion as a whole: a source becomes a finished folder, the same for equal proteins, or nothing at all."""

import random
from collections import defaultdict
from pathlib import Path

import pytest

from prottune.artifacts import file_sha256, read_manifest
from prottune.errors import ConfigError, DataError
from prottune.ingestion.page import losses
from prottune.ingestion.settings import IngestConfig
from prottune.ingestion.stage import ingest, share_with_relative_in_train
from prottune.records import DEEPLOC10, PROTEINS_FILE, Membrane, Protein, Split, read_proteins

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


def write(path: Path, written: list[str]) -> str:
    """Put records into a file."""
    path.write_text("".join(written))
    return str(path)


def test_a_source_becomes_checked_clustered_split_proteins(tmp_path: Path) -> None:
    source = write(tmp_path / "in.fasta", records())
    report = ingest(source, tmp_path / "records", IngestConfig())

    proteins = read_proteins(tmp_path / "records")
    assert [protein.accession for protein in proteins] == [f"A{number:03}" for number in range(120)]
    assert {protein.accession for protein in proteins if protein.split is Split.TEST} == {
        f"A{number:03}" for number in range(0, 120, 5)
    }
    clusters = {protein.accession: protein.cluster for protein in proteins}
    assert all(clusters[f"A{number - 1:03}"] == clusters[f"A{number:03}"] for number in range(2, 120, 3))
    splits = defaultdict(set)
    for protein in proteins:
        splits[protein.cluster].add(protein.split)
    assert all(len(found) == 1 or found == {Split.TRAIN, Split.TEST} for found in splits.values())
    assert {protein.membrane for protein in proteins} == {Membrane.UNKNOWN}

    manifest = read_manifest(tmp_path / "records", "ingest")
    assert set(manifest.files) == {PROTEINS_FILE, "report.html"}
    assert manifest.facts == {"label_set": "deeploc10", "labels": list(DEEPLOC10.locations)}
    assert manifest.inputs == {"source": file_sha256(tmp_path / "in.fasta")}
    assert report.dataset_digest == manifest.digest
    assert report.source_sha256 == manifest.inputs["source"]
    assert report.num_proteins == 120
    assert report.num_residues == sum(protein.num_residues for protein in proteins)
    assert sum(report.splits.values()) == 120
    assert report.splits["test"] == 24
    assert {place: report.locations[place] for place in LOCATIONS} == {
        "Nucleus": 42,
        "Cytoplasm": 39,
        "Extracellular": 39,
    }
    assert report.locations["Peroxisome"] == 0
    near = sum(splits[protein.cluster] > {Split.TEST} for protein in proteins if protein.split is Split.TEST)
    assert near > 0
    assert report.share_test_with_relative_in_train == near / 24
    assert report.counts["shared_with_test"] == sum(
        Split.TEST in splits[protein.cluster] for protein in proteins if protein.split is Split.TRAIN
    )


def test_order_line_ends_and_packing_of_the_source_do_not_change_the_data(tmp_path: Path) -> None:
    first = ingest(write(tmp_path / "a.fasta", records()), tmp_path / "a", IngestConfig())
    shuffled = records()
    random.Random(1).shuffle(shuffled)
    folder = tmp_path / "parts"
    folder.mkdir()
    write(folder / "1.fa", [record.replace("\n", "\r\n") for record in shuffled[:50]])
    write(folder / "2.faa", shuffled[50:])
    write(folder / "README.txt", ["not read"])
    second = ingest(str(folder), tmp_path / "b", IngestConfig())
    assert (tmp_path / "a" / PROTEINS_FILE).read_bytes() == (tmp_path / "b" / PROTEINS_FILE).read_bytes()
    assert second.dataset_digest == first.dataset_digest
    assert second.source_sha256 != first.source_sha256
    assert second.counts == first.counts | {"crlf": 1, "ignored_files": 1}


def test_a_test_is_cut_by_cluster_when_the_source_marks_none(tmp_path: Path) -> None:
    source = write(tmp_path / "in.fasta", records(with_test=False))
    report = ingest(source, tmp_path / "records", IngestConfig())
    assert 20 <= report.splits["test"] <= 28
    assert report.share_test_with_relative_in_train == 0
    assert "shared_with_test" not in report.counts


def test_the_page_names_what_was_repaired_and_where_the_data_comes_from(tmp_path: Path) -> None:
    odd = [">B1 Cytoplasm-Nucleus-U\nMKUUTAYIAKQ*\n", ">B2 ER-X\nMKTaYIAKQR<".replace("<", "\n")]
    source = write(tmp_path / "in.fasta", records() + odd)
    report = ingest(source, tmp_path / "records", IngestConfig())
    page = (tmp_path / "records" / "report.html").read_text()
    assert report.counts == {
        "lower_case": 1,
        "stop_removed": 1,
        "rare_residues": 1,
        "many_unknown": 1,
        "location_spelling": 1,
        "cytoplasm_nucleus": 1,
        "no_membrane_flag": 1,
        "shared_with_test": report.counts["shared_with_test"],
    }
    for words in (
        "<td>sequences whose final stop (*) was removed</td>",
        "B2 (ER)",
        report.source_sha256,
        "not the file that DeepLoc&#39;s authors published",
        "--min-seq-id 0.3 -c 0.8 --cov-mode 0",
        f"{report.share_test_with_relative_in_train:.1%} of the test proteins",
        "510 residues (512 tokens)",
        "<svg",
    ):
        assert words in page
    assert "http-equiv" not in page
    assert "<script" not in page


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
    report = ingest(source, tmp_path / "records", IngestConfig(labels=str(labels)))
    facts = read_manifest(tmp_path / "records").facts
    assert facts == {"label_set": "custom", "labels": ["Extracellular", "Cytoplasm", "Nucleus"]}
    assert report.locations == {"Extracellular": 39, "Cytoplasm": 39, "Nucleus": 42}
    assert report.counts["location_spelling"] == 42


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
