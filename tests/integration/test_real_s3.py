"""storage.py against a real S3 server (one-node Ceph): folders travel whole, refusals are named."""

import contextlib
import os
import shutil
import signal
import subprocess
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import pytest
from minio import Minio

from pipelines.checks import services
from pipelines.checks.surroundings import DoctorFlags, Surroundings
from prottune import storage
from prottune.artifacts import MANIFEST_FILE, new_folder, read_manifest
from prottune.errors import ArtifactError, DivergedError, StorageError
from prottune.ingestion.findings import Findings
from prottune.ingestion.sources import take_source
from prottune.storage import fetch_file, fetch_folder, list_files, upload_folder
from prottune.training.checkpoints import Checkpoints
from prottune.training.settings import TrainConfig

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

PROGRAMS = ("ceph-mon", "ceph-osd", "radosgw", "radosgw-admin", "ceph", "curl")


def stop(pid_file: Path) -> None:
    """TERM, wait, KILL; only the process whose number the file holds."""
    if not pid_file.is_file():
        return
    pid = int(pid_file.read_text())
    for number, seconds in ((signal.SIGTERM, 20), (signal.SIGKILL, 5)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        deadline = time.monotonic() + seconds
        while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
            time.sleep(0.1)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Settings of a running radosgw with one bucket; absent programs are named."""
    absent = [name for name in PROGRAMS if shutil.which(name) is None]
    if absent or os.geteuid() != 0:
        why = f"{', '.join(absent)} absent" if absent else "needs root"
        refuse = pytest.fail if "ceph" in os.environ.get("PROTTUNE_REQUIRED_TIERS", "") else pytest.skip
        refuse(f"not run here: ceph: {why} (apt-get install ceph-mon ceph-osd radosgw curl)")
    place = tmp_path_factory.mktemp("ceph")
    script = Path(__file__).with_name("rgw_up.sh")
    try:
        with (place / "out").open("w") as out:
            subprocess.run([script, place], check=True, stdout=out, stderr=subprocess.STDOUT, timeout=300)
        env = dict(line.split("=", 1) for line in (place / "env").read_text().splitlines())
        endpoint = urllib.parse.urlsplit(env["S3_ENDPOINT"]).netloc
        client = Minio(endpoint, env["S3_ACCESS_KEY"], env["S3_SECRET_KEY"], secure=False, region="us-east-1")
        client.make_bucket("prottune-test")
        yield env
    finally:
        for name in ("client.rgw.a", "osd.0", "mon.a"):
            stop(place / "run" / f"{name}.pid")


@pytest.fixture
def s3(server: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment points at the server."""
    for name, value in server.items():
        monkeypatch.setenv(name, value)
    return server


def test_a_folder_of_many_parts_travels_whole(s3: dict[str, str], tmp_path: Path) -> None:
    with new_folder(tmp_path / "model", "train", None) as draft:
        (draft.path / "weights").write_bytes(os.urandom(40_000_000))
        (draft.path / "sub").mkdir()
        (draft.path / "sub" / "a b+c.txt").write_bytes(b"odd name")
    upload_folder(tmp_path / "model", "s3://prottune-test/models/1")
    assert list_files("s3://prottune-test/models/1") == [MANIFEST_FILE, "sub/a b+c.txt", "weights"]
    back = fetch_folder("minio://prottune-test/models/1/", tmp_path / "back")
    assert read_manifest(back).digest == read_manifest(tmp_path / "model").digest


def test_an_object_replaced_behind_our_back_is_found(s3: dict[str, str], tmp_path: Path) -> None:
    for name, content in (("one", b"alpha"), ("two", b"gamma")):
        with new_folder(tmp_path / name, "train", None) as draft:
            (draft.path / "a").write_bytes(content)
    upload_folder(tmp_path / "one", "s3://prottune-test/models/2")
    endpoint = urllib.parse.urlsplit(s3["S3_ENDPOINT"]).netloc
    client = Minio(endpoint, s3["S3_ACCESS_KEY"], s3["S3_SECRET_KEY"], secure=False, region="us-east-1")
    client.fput_object("prottune-test", "models/2/a", str(tmp_path / "two" / "a"))
    with pytest.raises(ArtifactError, match=r"a: damaged, SHA-256"):
        fetch_folder("s3://prottune-test/models/2", tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_checkpoints_are_found_by_number_refused_when_damaged_and_removed(
    s3: dict[str, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints = Checkpoints("s3://prottune-test/kept", TrainConfig(), {}, str(tmp_path))
    assert checkpoints.newest() == (None, checkpoints)
    for step in (200, 1000, 1200):
        checkpoints.write(step, {}, lambda folder: (folder / "weights").write_bytes(os.urandom(6_000_000)))
    endpoint = urllib.parse.urlsplit(s3["S3_ENDPOINT"]).netloc
    client = Minio(endpoint, s3["S3_ACCESS_KEY"], s3["S3_SECRET_KEY"], secure=False, region="us-east-1")
    (tmp_path / "other").write_bytes(os.urandom(6_000_000))
    client.fput_object("prottune-test", "kept/step-00001200/weights", str(tmp_path / "other"))
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
    s3: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage.time, "sleep", lambda _: None)
    with pytest.raises(StorageError, match=r"^s3://prottune-test/none: NoSuchKey$"):
        fetch_file("s3://prottune-test/none", tmp_path / "x", 100)
    monkeypatch.setenv("S3_SECRET_KEY", "not the secret")
    with pytest.raises(StorageError, match=r"^s3://prottune-test/none: SignatureDoesNotMatch$"):
        fetch_file("s3://prottune-test/none", tmp_path / "x", 100)


def test_the_doctor_tries_the_store_and_leaves_nothing(
    s3: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
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


def test_a_source_is_taken_from_a_prefix(s3: dict[str, str], tmp_path: Path) -> None:
    with new_folder(tmp_path / "data", "sample", None) as draft:
        (draft.path / "a.fasta").write_bytes(b">P1 Nucleus-U\nMK\n")
    upload_folder(tmp_path / "data", "s3://prottune-test/data")
    findings = Findings()
    taken = take_source("s3://prottune-test/data", tmp_path / "scratch", 1000, "", findings)
    assert [file.path.read_bytes() for file in taken.files] == [b">P1 Nucleus-U\nMK\n"]
    assert findings.examples["ignored_files"] == [MANIFEST_FILE]
    with pytest.raises(StorageError, match="nothing is there"):
        fetch_folder("s3://prottune-test/nowhere", tmp_path / "back")
