"""The real DeepLoc file through ingestion: every protein accepted or left out by name, twice the same."""

from collections import defaultdict
from pathlib import Path

import pytest

from prottune.errors import DataError
from prottune.ingestion.settings import IngestConfig
from prottune.ingestion.stage import ingest
from prottune.records import Split, base_accession, read_proteins, sequence_digest

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1800)]

SHA256 = "bc7deff9b86ef2e0f08c751754dbd02f84449ba1324bc2f2d408836f2bf74cc3"
"""The near-complete copy of DeepLoc 1.0 these figures belong to: 13,704 of its 14,004 proteins."""


def test_the_real_file_gives_its_known_figures_twice(deeploc_fasta: Path, tmp_path: Path) -> None:
    report = ingest(str(deeploc_fasta), tmp_path / "first", IngestConfig())
    if report.source_sha256 != SHA256:
        pytest.skip(f"not run here: {deeploc_fasta} is another version, SHA-256 {report.source_sha256}")
    assert report.num_proteins == 13_703
    assert report.splits["test"] == 2_773
    assert sum(report.splits.values()) - report.splits["test"] == 10_930
    assert report.locations == {
        "Nucleus": 4_030,
        "Cytoplasm": 2_668,
        "Extracellular": 1_828,
        "Mitochondrion": 1_500,
        "Cell.membrane": 1_305,
        "Endoplasmic.reticulum": 852,
        "Plastid": 725,
        "Golgi.apparatus": 345,
        "Lysosome/Vacuole": 309,
        "Peroxisome": 141,
    }
    assert report.counts["crossing_dropped"] == 1
    assert report.counts["duplicate_sequences"] == 23
    assert report.counts["no_membrane_flag"] == 9_258
    assert abs(report.splits["validation"] - 1_093) <= 15
    assert abs(report.splits["gate"] - 1_093) <= 15
    assert 0.05 < report.share_test_with_relative_in_train < 0.15

    proteins = read_proteins(tmp_path / "first")
    assert "Q14318" not in {protein.accession for protein in proteins if protein.split is not Split.TEST}
    for key in (
        lambda protein: protein.sequence,
        lambda protein: base_accession(protein.accession),
    ):
        splits = defaultdict(set)
        for protein in proteins:
            splits[key(protein)].add(protein.split)
        assert all(len(found) == 1 for found in splits.values())
    by_cluster = defaultdict(set)
    for protein in proteins:
        by_cluster[protein.cluster].add(protein.split)
    assert all(len(found) == 1 or found == {Split.TRAIN, Split.TEST} for found in by_cluster.values())
    assert len({sequence_digest(protein.sequence) for protein in proteins}) == 13_703 - 23

    again = ingest(str(deeploc_fasta), tmp_path / "again", IngestConfig(expected_digest=SHA256))
    assert again.dataset_digest == report.dataset_digest


def test_a_real_test_protein_with_another_location_in_train_is_refused(
    deeploc_fasta: Path, tmp_path: Path
) -> None:
    content = deeploc_fasta.read_text(encoding="ascii")
    start = content.index(" test\n")
    sequence = content[start + 6 : content.index(">", start)]
    header = content[content.rindex(">", 0, start) : start]
    other = "Nucleus" if "Nucleus" not in header else "Plastid"
    source = tmp_path / "mutated.fasta"
    source.write_text(f"{content}>Z9ZZZ9 {other}-U\n{sequence}", encoding="ascii")
    with pytest.raises(DataError, match=f"Z9ZZZ9 {other}.* with two locations"):
        ingest(str(source), tmp_path / "records", IngestConfig())
