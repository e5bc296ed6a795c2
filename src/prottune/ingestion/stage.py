"""Source -> records: labelled proteins, checked, cleaned, clustered and split, with a page about them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa

from prottune.artifacts import new_folder, read_manifest
from prottune.errors import DataError
from prottune.ingestion import screening
from prottune.ingestion.checks import settle_locations
from prottune.ingestion.clustering import find_clusters
from prottune.ingestion.entries import Entries
from prottune.ingestion.findings import Findings
from prottune.ingestion.formats import read_labelled_fasta
from prottune.ingestion.page import write_report
from prottune.ingestion.settings import IngestConfig, IngestReport
from prottune.ingestion.sources import Source, take_source
from prottune.ingestion.splitting import cut_splits
from prottune.ingestion.tables import read_table
from prottune.records import LabelSet, Protein, Split, proteins_of, write_protein_table

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
        table = _split(entries, config, Path(scratch) / "clusters", findings)
        write_protein_table(table, draft.path)
        proteins = proteins_of(table)
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


def checked_entries(taken: Source, config: IngestConfig, findings: Findings) -> tuple[Entries, LabelSet]:
    """Read a source and apply every rule of docs/data.md but the splitting; in the order of accessions.

    Raises: DataError with file:line for input that breaks a rule.
    """
    max_bytes = config.max_unpacked_megabytes * _MEGABYTE
    entries = _read(taken, max_bytes, findings)
    screening.refuse_duplicate_accessions(entries)
    entries = screening.check_residues(entries, findings)
    entries, labels = settle_locations(entries, config.labels, config.on_cytoplasm_nucleus, findings)
    is_kept = screening.resolve_relations(entries, config.on_conflict, config.on_crossing, findings)
    entries = entries.in_order_of("accession", is_kept)
    if len(entries["location"].unique()) < 2:
        raise DataError(f"{taken.files[0].name}: all proteins are of one location; expected two or more")
    return entries, labels


def _read(taken: Source, max_bytes: int, findings: Findings) -> Entries:
    parts = []
    for file in taken.files:
        if file.kind != "fasta":
            parts.append(Entries.of(read_table(file.path, file.name, file.kind, findings, max_bytes)))
        else:
            with file.path.open("rb") as stream:
                parts.append(read_labelled_fasta(stream, file.name, findings))
    entries = Entries.joined(parts)
    if not len(entries):
        raise DataError(f"{taken.files[0].name}: no labelled protein; expected at least one")
    return entries


def _split(entries: Entries, config: IngestConfig, scratch: Path, findings: Findings) -> pa.Table:
    """The table of proteins: all entries, each with its homology cluster and its final split."""
    accessions, sequences, locations, given = (
        entries[part].to_pylist() for part in ("accession", "sequence", "location", "split")
    )
    clusters = find_clusters(accessions, sequences, config.min_identity, config.min_coverage, scratch)
    splits = cut_splits(
        [Split(split) for split in given],
        clusters,
        locations,
        test_share=config.test_share,
        validation_share=config.validation_share,
        gate_share=config.gate_share,
        seed=config.split_seed,
    )
    with_test = {name for name, split in zip(clusters, splits, strict=True) if split is Split.TEST}
    for accession, cluster, split in zip(accessions, clusters, splits, strict=True):
        if split is Split.TRAIN and cluster in with_test:
            findings.add("shared_with_test", accession)
    return entries.as_proteins(pa.array(splits, pa.string()), pa.array(clusters, pa.string()))


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
