"""docs/data.md explains every count that a report can hold, and states the limits the code has."""

from pathlib import Path

from prottune.fasta import MAX_LINE_BYTES, MAX_RESIDUES
from prottune.ingestion import checks, clustering
from prottune.ingestion.entries import MAX_ENTRIES
from prottune.ingestion.findings import MAX_EXAMPLES, MEANINGS, Findings
from prottune.ingestion.settings import IngestConfig
from prottune.ingestion.sources import DEEPLOC_ORIGINAL_BLOB

DATA_PAGE = (Path(__file__).resolve().parents[2] / "docs" / "data.md").read_text(encoding="utf-8")


def test_every_kind_of_finding_has_its_row() -> None:
    rows = [line.split("`")[1] for line in DATA_PAGE.splitlines() if line.startswith("| `")]
    assert [name for name in rows if name in MEANINGS] == list(MEANINGS)


def test_limits_and_rules_are_those_of_the_code() -> None:
    rules = clustering.mmseqs_rules(
        clustering.CASCADE_FROM, IngestConfig.min_identity, IngestConfig.min_coverage
    )
    for words in (
        f"{MAX_RESIDUES:,} residues",
        f"{MAX_ENTRIES:,} proteins",
        f"{IngestConfig.max_unpacked_megabytes:,}",
        f"below {MAX_LINE_BYTES >> 20} MiB",
        f"mmseqs cluster {' '.join(rules)}",
        f"Below {clustering.CASCADE_FROM:,} different sequences",
        f"on_conflict={IngestConfig.on_conflict}`, the default",
        f"`{checks.CYTOPLASM_NUCLEUS}`",
        DEEPLOC_ORIGINAL_BLOB,
    ):
        assert words in DATA_PAGE


def test_findings_keep_all_counts_and_the_first_names() -> None:
    findings = Findings()
    for number in range(9):
        findings.add("lower_case", f"P{number}")
    findings.add("crlf", "x.fa")
    assert findings.in_order() == {"crlf": 1, "lower_case": 9}
    assert findings.examples["lower_case"] == [f"P{number}" for number in range(MAX_EXAMPLES)]
