"""Homology clusters by the real MMseqs2: relatives together, strangers apart, the same every time."""

import os
import random
from pathlib import Path

import pytest

from prottune.ingestion.clustering import find_clusters, mmseqs_rules

RESIDUES = "ACDEFGHIKLMNPQRSTVWY"


def families(num_families: int, seed: int = 1) -> tuple[list[str], list[str]]:
    """For each family a random protein, a relative with a fifth of its residues changed, and a fragment."""
    draw = random.Random(seed)
    accessions, sequences = [], []
    for number in range(num_families):
        founder = "".join(draw.choices(RESIDUES, k=150))
        relative = "".join(draw.choice(RESIDUES) if draw.random() < 0.2 else letter for letter in founder)
        for name, sequence in (("founder", founder), ("relative", relative), ("fragment", founder[:60])):
            accessions.append(f"{name}{number}")
            sequences.append(sequence)
    return accessions, sequences


def test_relatives_copies_and_isoforms_share_a_cluster_the_same_on_any_number_of_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accessions, sequences = families(20)
    accessions += ["short1", "short2", "Q14318", "Q14318-3", "other"]
    sequences += ["MKV", "MKV", *families(2, seed=3)[1][0:4:3], "MKW"]
    clusters = find_clusters(accessions, sequences, 0.3, 0.8, tmp_path / "1")
    found = dict(zip(accessions, clusters, strict=True))
    assert all(found[f"founder{number}"] == found[f"relative{number}"] for number in range(20))
    assert len({found[f"founder{number}"] for number in range(20)}) == 20
    assert all(found[f"fragment{number}"] == f"fragment{number}" for number in range(20))
    assert [found[name] for name in accessions[-5:]] == ["short1", "short1", "Q14318", "Q14318", "other"]

    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(4))
    assert find_clusters(accessions, sequences, 0.3, 0.8, tmp_path / "2") == clusters


def test_many_sequences_are_clustered_in_a_cascade_and_few_in_one_step() -> None:
    assert mmseqs_rules(5000, 0.3, 0.8) == ["--min-seq-id", "0.3", "-c", "0.8", "--cov-mode", "0"]
    assert mmseqs_rules(4999, 0.3, 0.8)[6:] == ["--single-step-clustering", "1"]
