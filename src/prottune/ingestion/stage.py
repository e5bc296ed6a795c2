"""Source -> records: labelled proteins, checked, cleaned, clustered and split, with a page about them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from prottune.artifacts import new_folder, read_manifest
from prottune.errors import DataError
from prottune.ingestion.checks import (
    check_residues,
    refuse_duplicate_accessions,
    resolve_relations,
    settle_locations,
)
from prottune.ingestion.clustering import find_clusters
from prottune.ingestion.entries import Entry
from prottune.ingestion.findings import Findings
from prottune.ingestion.formats import read_labelled_fasta
from prottune.ingestion.page import write_report
from prottune.ingestion.settings import IngestConfig, IngestReport
from prottune.ingestion.sources import Source, take_source
from prottune.ingestion.splitting import cut_splits
from prottune.ingestion.tables import read_table
from prottune.records import LabelSet, Protein, Split, write_proteins

REPORT_FILE = "report.html"
_MEGABYTE = 1_000_000


def ingest(source: str, records: Path, config: IngestConfig) -> IngestReport:
    """Read labelled proteins, check them by the rules of docs/data.md, and split them by homology.

    `source` is a file, a folder, or an http(s):// or s3:// address. Proteins are written in the order of
    their accessions, so the order of the source changes nothing.

    Raises: DataError with file:line for input that breaks a rule; ConfigError for a source that is not
        there; StorageError for a place that failed.
    """
    findings = Findings()
    with new_folder(records, "ingest", config) as draft, TemporaryDirectory(prefix="prottune-") as scratch:
        max_bytes = config.max_unpacked_megabytes * _MEGABYTE
        taken = take_source(source, Path(scratch), max_bytes, config.expected_digest, findings)
        entries, labels = checked_entries(taken, config, findings)
        proteins = _split(entries, config, Path(scratch) / "clusters", findings)
        write_proteins(proteins, draft.path)
        draft.inputs["source"] = taken.sha256
        draft.facts |= {"label_set": labels.name, "labels": list(labels.locations)}
        share = share_with_relative_in_train(proteins)
        write_report(
            draft.path / REPORT_FILE,
            proteins,
            labels,
            findings,
            taken=taken,
            config=config,
            share_with_relative=share,
        )
    digest = read_manifest(records).digest
    return _report(proteins, labels, findings, taken=taken, share=share, digest=digest)


def share_with_relative_in_train(proteins: Sequence[Protein]) -> float:
    """Share of the test proteins whose homology cluster also holds a training protein."""
    training = {protein.cluster for protein in proteins if protein.split is Split.TRAIN}
    test = [protein for protein in proteins if protein.split is Split.TEST]
    return sum(protein.cluster in training for protein in test) / len(test)


def checked_entries(taken: Source, config: IngestConfig, findings: Findings) -> tuple[list[Entry], LabelSet]:
    """Read a source and apply every rule of docs/data.md but the splitting; in the order of accessions.

    Raises: DataError with file:line for input that breaks a rule.
    """
    max_bytes = config.max_unpacked_megabytes * _MEGABYTE
    entries = _read(taken, max_bytes, findings)
    refuse_duplicate_accessions(entries)
    entries = check_residues(entries, findings)
    entries, labels = settle_locations(entries, config.labels, config.on_cytoplasm_nucleus, findings)
    entries = resolve_relations(entries, config.on_conflict, config.on_crossing, findings)
    if len({entry.location for entry in entries}) < 2:
        raise DataError(f"{taken.files[0].name}: fewer than two locations; nothing can be learned from them")
    return sorted(entries, key=lambda entry: entry.accession), labels


def _read(taken: Source, max_bytes: int, findings: Findings) -> list[Entry]:
    entries: list[Entry] = []
    for file in taken.files:
        if file.kind != "fasta":
            entries += read_table(file.path, file.name, file.kind, findings, max_bytes)
        else:
            with file.path.open("rb") as stream:
                entries += read_labelled_fasta(stream, file.name, findings)
    if not entries:
        raise DataError(f"{taken.files[0].name}: no labelled protein; expected at least one")
    return entries


def _split(
    entries: Sequence[Entry], config: IngestConfig, scratch: Path, findings: Findings
) -> list[Protein]:
    clusters = find_clusters(
        [entry.accession for entry in entries],
        [entry.sequence for entry in entries],
        config.min_identity,
        config.min_coverage,
        scratch,
    )
    splits = cut_splits(
        [entry.split for entry in entries],
        clusters,
        [entry.location for entry in entries],
        test_share=config.test_share,
        validation_share=config.validation_share,
        gate_share=config.gate_share,
        seed=config.split_seed,
    )
    with_test = {name for name, split in zip(clusters, splits, strict=True) if split is Split.TEST}
    proteins = []
    for entry, cluster, split in zip(entries, clusters, splits, strict=True):
        if split is Split.TRAIN and cluster in with_test:
            findings.add("shared_with_test", entry.accession)
        proteins.append(
            Protein(entry.accession, entry.sequence, entry.location, entry.membrane, split, cluster)
        )
    return proteins


def _report(
    proteins: Sequence[Protein],
    labels: LabelSet,
    findings: Findings,
    *,
    taken: Source,
    share: float,
    digest: str,
) -> IngestReport:
    splits = Counter(protein.split for protein in proteins)
    locations = Counter(protein.location for protein in proteins)
    return IngestReport(
        num_proteins=len(proteins),
        num_residues=sum(protein.num_residues for protein in proteins),
        dataset_digest=digest,
        source_sha256=taken.sha256,
        splits={split.value: splits[split] for split in Split},
        locations={location: locations[location] for location in labels.locations},
        counts=findings.in_order(),
        share_test_with_relative_in_train=share,
    )
