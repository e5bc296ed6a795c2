"""Folders that appear whole or not at all, and readers that check them."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from prottune.artifacts import MANIFEST_FILE, Manifest, new_folder, read_manifest
from prottune.errors import ArtifactError, ConfigError


@dataclass(frozen=True)
class Settings:
    epochs: int = 3


def made(target: Path, content: str = "MKT\n") -> Path:
    with new_folder(target, "ingest", Settings(), {"source": "abc"}) as draft:
        (draft.path / "inner").mkdir()
        (draft.path / "inner/proteins.txt").write_text(content)
        (draft.path / "report.html").write_text(f"made at {target}")
        draft.facts["labels"] = ["Nucleus"]
    return target


def test_a_finished_folder_says_what_made_it(tmp_path: Path) -> None:
    manifest = read_manifest(made(tmp_path / "records"), "ingest")
    assert manifest.settings == {"epochs": 3}
    assert manifest.inputs == {"source": "abc"}
    assert manifest.facts == {"labels": ["Nucleus"]}
    assert manifest.files["inner/proteins.txt"]["bytes"] == 4


def test_equal_data_has_an_equal_digest_whatever_the_pages_say(tmp_path: Path) -> None:
    first, second = (read_manifest(made(tmp_path / name)) for name in ("a", "b"))
    assert first.files["report.html"] != second.files["report.html"]
    assert first.digest == second.digest
    assert read_manifest(made(tmp_path / "c", "MKV\n")).digest != first.digest


def test_nothing_appears_when_the_stage_fails(tmp_path: Path) -> None:
    def fail() -> None:
        with new_folder(tmp_path / "records", "ingest", Settings()) as draft:
            (draft.path / "half").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_no_folder_can_take_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    (tmp_path / "file").write_text("a file")
    for place, words in {
        "link": "link: a link, a mount or no name of its own; name a new folder, say one in it",
        ".": r"\.: a link, a mount or no name of its own",
        "empty/..": "a link, a mount or no name of its own",
        "/proc": "/proc: a link, a mount or no name of its own",
        "file/below": r"file/below: cannot be made \(Not a directory\); name another place",
        "s3://bucket/records": "s3:/bucket/records: an address; expected a folder of this machine",
    }.items():
        with pytest.raises(ConfigError, match=words):
            made(Path(place))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "file", "link"]


def test_a_finished_folder_is_never_changed(tmp_path: Path) -> None:
    made(tmp_path / "records")
    with pytest.raises(ConfigError, match="exists already"):
        made(tmp_path / "records")


def test_every_flipped_byte_and_every_cut_is_found(tmp_path: Path) -> None:
    folder = made(tmp_path / "records")
    victim = folder / "inner/proteins.txt"
    good = victim.read_bytes()
    for position in range(len(good)):
        victim.write_bytes(good[:position] + bytes([good[position] ^ 1]) + good[position + 1 :])
        with pytest.raises(ArtifactError, match="damaged"):
            read_manifest(folder)
        victim.write_bytes(good[:position])
        with pytest.raises(ArtifactError, match="bytes, expected 4"):
            read_manifest(folder)
    victim.unlink()
    with pytest.raises(ArtifactError, match="missing"):
        read_manifest(folder)


def test_every_flipped_bit_and_every_cut_of_the_manifest_is_found(tmp_path: Path) -> None:
    manifest = made(tmp_path / "records") / MANIFEST_FILE
    good = manifest.read_bytes()
    for bit in range(8 * len(good)):
        flipped = bytearray(good)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(ArtifactError):
            Manifest.parse(bytes(flipped), "it")
    for length in range(len(good)):
        with pytest.raises(ArtifactError):
            Manifest.parse(good[:length], "it")
    assert Manifest.parse(good, "it").stage == "ingest"


def test_facts_with_numbers_for_keys_are_sealed_as_json_spells_them(tmp_path: Path) -> None:
    with new_folder(tmp_path / "records", "ingest", None) as draft:
        draft.facts["names"] = {2: "b", 10: ("a", None)}
    assert read_manifest(tmp_path / "records").facts == {"names": {"2": "b", "10": ["a", None]}}


def test_a_folder_made_before_manifests_carried_their_hash_is_still_read_and_its_files_checked(
    tmp_path: Path,
) -> None:
    folder = made(tmp_path / "records")
    manifest = json.loads((folder / MANIFEST_FILE).read_text())
    del manifest["sha256"]
    (folder / MANIFEST_FILE).write_text(json.dumps(manifest | {"format": "prottune/1"}))
    assert read_manifest(folder).settings == {"epochs": 3}
    (folder / "inner/proteins.txt").write_text("MKV\n")
    with pytest.raises(ArtifactError, match="damaged"):
        read_manifest(folder)


def test_a_folder_of_another_stage_or_format_is_refused(tmp_path: Path) -> None:
    folder = made(tmp_path / "records")
    with pytest.raises(ArtifactError, match="made by stage 'ingest', expected one made by 'train'"):
        read_manifest(folder, "train")
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"format": "prottune/9"}))
    with pytest.raises(ArtifactError, match="format 'prottune/9', expected 'prottune/2'"):
        read_manifest(folder)
    (folder / "manifest.json").write_text("{")
    with pytest.raises(ArtifactError, match="not a manifest"):
        read_manifest(folder)
    with pytest.raises(ArtifactError, match="not a finished prottune folder"):
        read_manifest(tmp_path)


def test_another_user_can_read_every_file(tmp_path: Path) -> None:
    with new_folder(tmp_path / "model", "train", Settings()) as draft:
        (draft.path / "model.safetensors").write_bytes(b"")
        (draft.path / "model.safetensors").chmod(0o600)
    assert (tmp_path / "model/model.safetensors").stat().st_mode & 0o777 == 0o644
