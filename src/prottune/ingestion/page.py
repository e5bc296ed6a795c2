"""The page about a finished ingestion: lengths, locations, splits, residues, repairs, provenance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from prottune.homology import mmseqs_version
from prottune.ingestion import clustering
from prottune.ingestion.findings import MEANINGS, Findings
from prottune.ingestion.settings import IngestConfig
from prottune.ingestion.sources import DEEPLOC_ORIGINAL_BLOB, Source
from prottune.records import LabelSet, Membrane, Protein, Split
from prottune.reports.charts import bars, histogram
from prottune.reports.page import paragraph, table, write_page

CUTS = (510, 1022, 2046)
"""Residues that fit in 512, 1024 and 2048 tokens, [CLS] and [SEP] taken off."""


def write_report(
    path: Path,
    proteins: Sequence[Protein],
    labels: LabelSet,
    findings: Findings,
    *,
    taken: Source,
    config: IngestConfig,
    share_with_relative: float,
) -> None:
    """Write `report.html`: what the data is, what was repaired or left out, and how it was split."""
    num_residues = sum(protein.num_residues for protein in proteins)
    summary = (
        f"{len(proteins):,} proteins with {num_residues:,} residues in "
        f"{len({protein.location for protein in proteins})} locations. {share_with_relative:.1%} of the test "
        "proteins share a homology cluster with a training protein."
    )
    sections = [
        ("Repaired, left out, noticed", _findings(findings)),
        ("Lengths", _lengths(proteins)),
        ("Locations", _locations(proteins, labels)),
        ("Splits", _splits(proteins, config, share_with_relative)),
        ("Residues", _residues(proteins)),
        ("Where the data comes from", _provenance(taken, labels)),
    ]
    write_page(path, "Data report", summary, sections)


def losses(lengths: Sequence[int], max_residues: int) -> tuple[float, float]:
    """Share of proteins that a cut at `max_residues` would shorten, and share of residues it would lose."""
    lost = sum(max(0, length - max_residues) for length in lengths)
    return sum(length > max_residues for length in lengths) / len(lengths), lost / sum(lengths)


def _findings(findings: Findings) -> str:
    counts = findings.in_order()
    if not counts:
        return paragraph("Nothing: every record was taken as it stands.")
    rows = [[MEANINGS[kind], count, ", ".join(findings.examples[kind])] for kind, count in counts.items()]
    return table(["what", "count", "for example"], rows)


def _lengths(proteins: Sequence[Protein]) -> str:
    lengths = sorted(protein.num_residues for protein in proteins)
    rows = []
    for cut in CUTS:
        shortened, lost = losses(lengths, cut)
        rows.append([f"{cut:,} residues ({cut + 2:,} tokens)", f"{shortened:.2%}", f"{lost:.2%}"])
    middle = lengths[len(lengths) // 2]
    return (
        histogram(lengths, x_label="residues", marks={f"{cut}": cut for cut in CUTS if cut < lengths[-1]})
        + paragraph(f"Shortest {lengths[0]:,}, median {middle:,}, longest {lengths[-1]:,} residues.")
        + table(["a cut at", "shortens proteins", "loses residues"], rows)
    )


def _locations(proteins: Sequence[Protein], labels: LabelSet) -> str:
    counts = Counter((protein.location, protein.split) for protein in proteins)
    totals = [sum(counts[location, split] for split in Split) for location in labels.locations]
    rows = [
        [location, *(counts[location, split] for split in Split), total]
        for location, total in zip(labels.locations, totals, strict=True)
    ]
    return bars(labels.locations, totals, x_label="proteins") + table(
        ["location", *(split.value for split in Split), "all"], rows
    )


def _splits(proteins: Sequence[Protein], config: IngestConfig, share_with_relative: float) -> str:
    rows = []
    for split in Split:
        members = [protein for protein in proteins if protein.split is split]
        flags = Counter(protein.membrane for protein in members)
        rows.append(
            [
                split.value,
                len(members),
                len({protein.cluster for protein in members}),
                sum(protein.num_residues for protein in members),
                *(flags[flag] for flag in Membrane),
            ]
        )
    num_sequences = len({protein.sequence for protein in proteins})
    rules = clustering.mmseqs_rules(num_sequences, config.min_identity, config.min_coverage)
    columns = ["split", "proteins", "clusters", "residues", "membrane-bound", "soluble", "unknown"]
    return (
        table(columns, rows)
        + paragraph(
            f"Clusters: MMseqs2 {mmseqs_version()[:12]}, mmseqs cluster {' '.join(rules)}; identical "
            f"sequences and isoforms of one base accession joined; seed {config.split_seed}. No cluster lies "
            "in two of train, validation and gate. A test that the source gives is kept as given; clusters "
            "that hold a test protein give nothing to validation and gate."
        )
        + paragraph(
            f"{share_with_relative:.1%} of the test proteins share such a cluster with a training protein: "
            "their location could be remembered instead of predicted."
        )
    )


def _residues(proteins: Sequence[Protein]) -> str:
    letters: Counter[str] = Counter()
    for protein in proteins:
        letters.update(protein.sequence)
    names = sorted(letters, key=lambda letter: -letters[letter])
    shares = [letters[name] / letters.total() * 100 for name in names]
    return bars(names, shares, x_label="% of residues") + paragraph(
        f"{letters['X']:,} residues are X (unknown, or a letter that became X)."
    )


def _provenance(taken: Source, labels: LabelSet) -> str:
    rows = [["SHA-256", taken.sha256], ["git blob", taken.git_blob or "none (a folder)"]]
    rows += [["label set", f"{labels.name}: {', '.join(labels.locations)}"]]
    if taken.is_deeploc_original:
        words = "This is DeepLoc 1.0's deeploc_data.fasta as its authors published it, byte for byte."
    else:
        words = (
            f"This is not the file that DeepLoc's authors published (git blob {DEEPLOC_ORIGINAL_BLOB}); "
            "that is no error. If it should be that file, likely causes are changed line ends, re-wrapped "
            "lines, or a cut download."
        )
    return table(["", ""], rows) + paragraph(words)
