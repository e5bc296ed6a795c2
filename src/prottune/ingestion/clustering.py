"""Sequences -> homology clusters by MMseqs2: a cluster holds relatives, copies and isoforms."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

from prottune.homology import num_threads, run_mmseqs, write_places
from prottune.records import base_accession

CASCADE_FROM = 5_000
"""From so many different sequences on MMseqs2's cascade of three passes saves time; below, one pass does."""

_log = logging.getLogger(__name__)


def find_clusters(
    accessions: Sequence[str],
    sequences: Sequence[str],
    min_identity: float,
    min_coverage: float,
    scratch: Path,
) -> list[str]:
    """Give each protein the accession that names its homology cluster; equal input gives equal clusters.

    MMseqs2 clusters the different sequences by `mmseqs_rules`; identical ones and isoforms of one base
    accession are then joined. `min_coverage` holds for both partners of an alignment.

    Raises: ConfigError if no MMseqs2 binary is installed; ServiceError with its last words if it fails.
    Source: Steinegger and Soeding 2017, https://doi.org/10.1038/nbt.3988
    """
    first_with: dict[str, int] = {}
    for place, sequence in enumerate(sequences):
        first_with.setdefault(sequence, place)
    relatives = _cluster(list(first_with), min_identity, min_coverage, scratch)
    places = list(first_with.values())
    links = [(places[one], places[other]) for one, other in relatives]
    links += [(first_with[sequence], place) for place, sequence in enumerate(sequences)]
    first_of: dict[str, int] = {}
    links += [
        (first_of.setdefault(base_accession(accession), place), place)
        for place, accession in enumerate(accessions)
    ]
    return [accessions[root] for root in _joined(len(accessions), links)]


def mmseqs_rules(num_sequences: int, min_identity: float, min_coverage: float) -> list[str]:
    """The options of `mmseqs cluster` that decide the clusters; all others are MMseqs2's defaults."""
    rules = ["--min-seq-id", str(min_identity), "-c", str(min_coverage), "--cov-mode", "0"]
    return rules if num_sequences >= CASCADE_FROM else [*rules, "--single-step-clustering", "1"]


def _cluster(
    sequences: Sequence[str], min_identity: float, min_coverage: float, scratch: Path
) -> list[tuple[int, int]]:
    """Cluster different sequences; pairs of places (representative, member)."""
    scratch.mkdir(parents=True, exist_ok=True)
    fasta, database, clusters, pairs = (
        scratch / name for name in ("all.fasta", "db", "clusters", "pairs.tsv")
    )
    write_places(sequences, fasta)
    rules = mmseqs_rules(len(sequences), min_identity, min_coverage)
    _log.info("clustering %d sequences with MMseqs2; about a minute for 15,000 on 2 cores", len(sequences))
    run_mmseqs(["createdb", fasta, database, "--dbtype", "1", "-v", "1"])
    words = ["--threads", num_threads(), "-v", "1"]
    run_mmseqs(["cluster", database, clusters, scratch / "tmp", *rules, *words])
    run_mmseqs(["createtsv", database, database, clusters, pairs, "--threads", "1", "-v", "1"])
    lines = (line.split("\t") for line in pairs.read_text(encoding="ascii").splitlines())
    return sorted((int(one), int(other)) for one, other in lines)


def _joined(count: int, links: Iterable[tuple[int, int]]) -> list[int]:
    """Union of linked places: for each place the smallest place it is connected with."""
    parent = list(range(count))

    def root(place: int) -> int:
        while parent[place] != place:
            parent[place] = place = parent[parent[place]]
        return place

    for one, other in links:
        low, high = sorted((root(one), root(other)))
        parent[high] = low
    return [root(place) for place in range(count)]
