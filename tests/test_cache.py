"""Kept results: found again by all that decides them, computed anew when damaged, never in the way."""

from __future__ import annotations

import logging
from pathlib import Path

import pyarrow as pa
import pytest

from prottune.cache import cache_folder, remember


class Counting:
    """Computes a table and counts how often."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> pa.Table:
        self.times += 1
        return pa.table({"value": [0.1, None, 1 / 3]})


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PROTTUNE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_result_is_computed_once_and_found_again_bit_for_bit(folder: Path) -> None:
    compute = Counting()
    first = remember("floor", {"proteins": ["MK"], "version": 1}, compute)
    again = remember("floor", {"version": 1, "proteins": ["MK"]}, compute)
    assert compute.times == 1
    assert again.equals(first)
    assert again["value"].to_pylist() == [0.1, None, 1 / 3]
    assert [path.name.split("-")[0] for path in folder.iterdir()] == ["floor"]


def test_other_inputs_or_another_name_are_another_result(folder: Path) -> None:
    compute = Counting()
    remember("floor", {"proteins": ["MK"]}, compute)
    remember("floor", {"proteins": ["M", "K"]}, compute)
    remember("relatives", {"proteins": ["MK"]}, compute)
    assert compute.times == len(list(folder.iterdir())) == 3


@pytest.mark.parametrize("place", [0, 70, -1])
def test_a_damaged_result_is_computed_anew_and_kept_again(
    folder: Path, place: int, caplog: pytest.LogCaptureFixture
) -> None:
    compute = Counting()
    remember("floor", {}, compute)
    (path,) = folder.iterdir()
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    assert remember("floor", {}, compute)["value"].to_pylist() == [0.1, None, 1 / 3]
    assert "is damaged; computed anew" in caplog.text
    remember("floor", {}, compute)
    assert compute.times == 2


@pytest.mark.parametrize("kept", [0, 64, 100])
def test_a_result_that_was_cut_off_is_computed_anew(folder: Path, kept: int) -> None:
    compute = Counting()
    remember("floor", {}, compute)
    (path,) = folder.iterdir()
    path.write_bytes(path.read_bytes()[:kept])
    remember("floor", {}, compute)
    assert compute.times == 2


def test_a_place_that_cannot_be_written_costs_only_time(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder.write_text("a file where the folder should be")
    compute = Counting()
    with caplog.at_level(logging.WARNING):
        assert remember("floor", {}, compute)["value"].to_pylist() == [0.1, None, 1 / 3]
    assert "cannot be kept" in caplog.text
    assert compute.times == 1


def test_a_computation_that_fails_leaves_nothing(folder: Path) -> None:
    def fail() -> pa.Table:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        remember("floor", {}, fail)
    assert not folder.exists()


def test_the_place_is_the_named_one_or_the_users_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROTTUNE_CACHE", "/named")
    assert cache_folder() == Path("/named")
    monkeypatch.delenv("PROTTUNE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/shared")
    assert cache_folder() == Path("/shared/prottune")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "prottune"
