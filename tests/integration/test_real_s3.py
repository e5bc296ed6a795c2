"""storage.py against a real S3 server (one-node Ceph): folders travel whole, refusals are named."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from real_s3 import RealS3

from pipelines.checks import services
from pipelines.checks.surroundings import DoctorFlags, Surroundings
from prottune.artifacts import MANIFEST_FILE, new_folder, read_manifest
from prottune.errors import ArtifactError, DivergedError, StorageError
from prottune.ingestion.findings import Findings
from prottune.ingestion.sources import take_source
from prottune.storage import fetch_file, fetch_folder, fetch_from_folder, list_files, upload_folder
from prottune.training.checkpoints import Checkpoints
from prottune.training.settings import TrainConfig

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]


def test_a_folder_of_many_parts_travels_whole(s3: RealS3, tmp_path: Path) -> None:
    with new_folder(tmp_path / "model", "train", None) as draft:
        (draft.path / "weights").write_bytes(os.urandom(40_000_000))
        (draft.path / "sub").mkdir()
        (draft.path / "sub" / "a b+c.txt").write_bytes(b"odd name")
    upload_folder(tmp_path / "model", "s3://prottune-test/models/1")
    assert list_files("s3://prottune-test/models/1") == [MANIFEST_FILE, "sub/a b+c.txt", "weights"]
    back = fetch_folder("minio://prottune-test/models/1/", tmp_path / "back")
    assert read_manifest(back).digest == read_manifest(tmp_path / "model").digest


@pytest.mark.parametrize("name", ["weights", "sub/small", MANIFEST_FILE])
def test_a_byte_that_changed_in_the_store_is_found(s3: RealS3, tmp_path: Path, name: str) -> None:
    with new_folder(tmp_path / "model", "train", None) as draft:
        (draft.path / "weights").write_bytes(os.urandom(12_000_000))
        (draft.path / "sub").mkdir()
        (draft.path / "sub" / "small").write_bytes(b"alpha")
    upload_folder(tmp_path / "model", "s3://prottune-test/models/2")
    s3.flip_a_byte(f"models/2/{name}")
    with pytest.raises(ArtifactError, match=f"{name}: (damaged|not a manifest)"):
        fetch_folder("s3://prottune-test/models/2", tmp_path / "back")
    with pytest.raises(ArtifactError, match=f"{name}: (damaged|not a manifest)"):
        fetch_from_folder("s3://prottune-test/models/2", name, tmp_path / "one")
    assert not (tmp_path / "back").exists()


def test_checkpoints_are_found_by_number_refused_when_damaged_and_removed(
    s3: RealS3, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints = Checkpoints("s3://prottune-test/kept", TrainConfig(), {}, str(tmp_path))
    assert checkpoints.newest() == (None, checkpoints)
    for step in (200, 1000, 1200):
        checkpoints.write(step, {}, lambda folder: (folder / "weights").write_bytes(os.urandom(6_000_000)))
    s3.flip_a_byte("kept/step-00001200/weights")
    folder, found = checkpoints.newest()
    assert folder == tmp_path / "step-00001000"
    assert "checkpoint step-00001200 refused: " in caplog.text
    found.write(1200, {}, lambda folder: (folder / "weights").write_bytes(b"again"))
    found.prune()
    kept = {name.split("/")[0] for name in list_files("s3://prottune-test/kept")}
    assert kept == {"step-00001000", "step-00001200-2"}
    found.refuse(DivergedError("the loss is nan"))
    with pytest.raises(DivergedError, match="the loss is nan"):
        found.raise_if_refused()


def test_a_wrong_secret_and_a_missing_key_are_named(
    s3: RealS3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StorageError, match=r"^s3://prottune-test/none: NoSuchKey$"):
        fetch_file("s3://prottune-test/none", tmp_path / "x", 100)
    monkeypatch.setenv("S3_SECRET_KEY", "not the secret")
    with pytest.raises(StorageError) as refused:
        fetch_file("s3://prottune-test/none", tmp_path / "x", 100)
    assert str(refused.value) == (
        "s3://prottune-test/none: SignatureDoesNotMatch; this is not the secret key of that access key "
        "(S3_ACCESS_KEY and S3_SECRET_KEY)"
    )


def test_a_wrong_secret_ends_a_verb_with_one_line(
    s3: RealS3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("S3_SECRET_KEY", "wrong-one")
    words = ["ingest", "--source", "s3://prottune-test/none.fasta", "--records", str(tmp_path / "records")]
    ended = subprocess.run(
        [sys.executable, "-m", "prottune", *words], capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stdout, list(tmp_path.iterdir())) == (3, "", [])
    (line,) = ended.stderr.splitlines()
    assert line.startswith("error: s3://prottune-test/none.fasta")
    assert "SignatureDoesNotMatch; this is not the secret key of that access key (S3_ACCESS_KEY and" in line
    assert "wrong-one" not in line


def test_the_doctor_tries_the_store_and_leaves_nothing(s3: RealS3, monkeypatch: pytest.MonkeyPatch) -> None:
    found = services.store(Surroundings(DoctorFlags(store="s3://prottune-test/tried")))
    assert (found.state, found.found.partition(": ")[2]) == (
        "ok",
        "written, read, listed, written in parts, cleaned up",
    )
    assert list_files("s3://prottune-test/tried") == []
    absent = services.store(Surroundings(DoctorFlags(store="s3://prottune-none/tried")))
    assert (absent.state, "NoSuchBucket" in absent.found) == ("failed", True)
    assert absent.advice.startswith("make the bucket")
    monkeypatch.setenv("S3_SECRET_KEY", "not the secret")
    refused = services.store(Surroundings(DoctorFlags(store="s3://prottune-test/tried")))
    assert (refused.state, "SignatureDoesNotMatch" in refused.found) == ("failed", True)


def test_a_source_is_taken_from_a_prefix(s3: RealS3, tmp_path: Path) -> None:
    with new_folder(tmp_path / "data", "sample", None) as draft:
        (draft.path / "a.fasta").write_bytes(b">P1 Nucleus-U\nMK\n")
    upload_folder(tmp_path / "data", "s3://prottune-test/data")
    findings = Findings()
    taken = take_source("s3://prottune-test/data", tmp_path / "scratch", 1000, "", findings)
    assert [file.path.read_bytes() for file in taken.files] == [b">P1 Nucleus-U\nMK\n"]
    assert findings.examples["ignored_files"] == [MANIFEST_FILE]
    with pytest.raises(StorageError, match="nothing is there"):
        fetch_folder("s3://prottune-test/nowhere", tmp_path / "back")
