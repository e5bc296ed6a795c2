"""Files and folders over file, http and s3, against small real servers: whole and checked, or refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from small_store import Store

from prottune import storage
from prottune.addresses import file_uri, s3_uri
from prottune.artifacts import MANIFEST_FILE, new_folder, read_manifest
from prottune.errors import ArtifactError, ConfigError, DataError, ProttuneError, StorageError
from prottune.ingestion.findings import Findings
from prottune.ingestion.sources import git_blob_sha1, take_source
from prottune.s3.calls import patience
from prottune.storage import (
    fetch_file,
    fetch_folder,
    fetch_from_folder,
    fetch_manifest,
    list_files,
    remove_folder,
    upload_file,
    upload_folder,
)


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """A sealed folder with a file in a subfolder."""
    with new_folder(tmp_path / "finished", "train", None) as draft:
        (draft.path / "a.txt").write_bytes(b"alpha")
        (draft.path / "sub").mkdir()
        (draft.path / "sub" / "b.txt").write_bytes(b"beta")
    return tmp_path / "finished"


def test_minio_addresses_are_spelled_s3_and_others_stay() -> None:
    assert s3_uri("minio://mlpipeline/v2/model") == "s3://mlpipeline/v2/model"
    assert s3_uri("s3://b/k") == "s3://b/k"
    assert s3_uri("/tmp/model") == "/tmp/model"


def test_local_files_are_returned_where_they_lie(tmp_path: Path) -> None:
    path = tmp_path / "a b.txt"
    path.write_bytes(b"12345")
    assert fetch_file(str(path), tmp_path / "target", 5) == path
    assert fetch_file(file_uri(path), tmp_path / "target", 5) == path
    assert list_files(str(tmp_path)) == ["a b.txt"]
    with pytest.raises(DataError, match="more than 4 bytes"):
        fetch_file(str(path), tmp_path / "target", 4)


def test_an_uploaded_folder_comes_back_whole_and_its_manifest_went_last(
    store: Store, finished: Path, tmp_path: Path
) -> None:
    upload_folder(finished, "minio://bucket/models/1/")
    assert store.puts == [
        "bucket/models/1/a.txt",
        "bucket/models/1/sub/b.txt",
        f"bucket/models/1/{MANIFEST_FILE}",
    ]
    assert list_files("s3://bucket/models/1") == ["a.txt", MANIFEST_FILE, "sub/b.txt"]
    store.objects["bucket/models/1/stray"] = b"not listed by the manifest"
    folder = fetch_folder("s3://bucket/models/1", tmp_path / "back")
    assert folder == tmp_path / "back"
    assert (folder / "sub" / "b.txt").read_bytes() == b"beta"
    assert not (folder / "stray").exists()


@pytest.mark.parametrize(
    ("key", "content"),
    [
        ("a.txt", b"alphA"),
        ("sub/b.txt", b"bet"),
        ("sub/b.txt", b"beta, longer"),
        ("sub/b.txt", None),
        (MANIFEST_FILE, b"{}"),
    ],
)
def test_a_damaged_or_missing_object_is_refused_and_nothing_is_left(
    store: Store, finished: Path, tmp_path: Path, key: str, content: bytes | None
) -> None:
    upload_folder(finished, "s3://bucket/m")
    if content is None:
        del store.objects[f"bucket/m/{key}"]
    else:
        store.objects[f"bucket/m/{key}"] = content
    with pytest.raises(ArtifactError, match=key):
        fetch_folder("s3://bucket/m", tmp_path / "back")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["finished"]


def test_one_file_of_a_folder_is_fetched_and_checked_by_its_manifest(
    store: Store, finished: Path, tmp_path: Path
) -> None:
    upload_folder(finished, "s3://bucket/1")
    store.objects["bucket/1/a.txt"] = b"other"
    assert fetch_from_folder("s3://bucket/1", "sub/b.txt", tmp_path / "got").read_bytes() == b"beta"
    assert not (tmp_path / "got" / "a.txt").exists()
    with pytest.raises(ArtifactError, match=r"s3://bucket/1/a\.txt: damaged"):
        fetch_from_folder("s3://bucket/1", "a.txt", tmp_path / "got")
    with pytest.raises(ArtifactError, match=r"s3://bucket/1: no c\.txt in its manifest"):
        fetch_from_folder("s3://bucket/1", "c.txt", tmp_path / "got")
    assert fetch_from_folder(str(finished), "a.txt", tmp_path / "got") == finished / "a.txt"


def test_a_manifest_is_read_where_it_lies(store: Store, finished: Path, tmp_path: Path) -> None:
    upload_folder(finished, "s3://bucket/1")
    assert fetch_manifest("s3://bucket/1") == fetch_manifest(str(finished)) == read_manifest(finished)
    with pytest.raises(ArtifactError, match=f"nothing: no {MANIFEST_FILE}"):
        fetch_manifest(str(tmp_path / "nothing"))
    with pytest.raises(StorageError, match=f"s3://bucket/2/{MANIFEST_FILE}: "):
        fetch_manifest("s3://bucket/2")
    store.objects[f"bucket/1/{MANIFEST_FILE}"] += b" "
    with pytest.raises(ArtifactError, match=f"s3://bucket/1/{MANIFEST_FILE}: damaged"):
        fetch_manifest("s3://bucket/1")


def test_a_manifest_that_names_a_file_outside_its_folder_is_refused(
    store: Store, finished: Path, tmp_path: Path
) -> None:
    upload_folder(finished, "s3://bucket/m")
    manifest = read_manifest(finished)
    evil = replace(manifest, files={"../../a.txt": manifest.files["a.txt"]})
    store.objects[f"bucket/m/{MANIFEST_FILE}"] = evil.sealed()
    with pytest.raises(ArtifactError, match="leaves its folder"):
        fetch_folder("s3://bucket/m", tmp_path / "deep" / "back")
    assert not (tmp_path / "a.txt").exists()


def test_a_prefix_without_manifest_is_fetched_as_it_is(store: Store, tmp_path: Path) -> None:
    store.objects = {"bucket/base/config.json": b"{}", "bucket/base/vocab.txt": b"[PAD]"}
    folder = fetch_folder("s3://bucket/base", tmp_path / "base")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        "config.json": b"{}",
        "vocab.txt": b"[PAD]",
    }


def test_an_upload_of_a_damaged_folder_is_refused(store: Store, finished: Path) -> None:
    (finished / "a.txt").write_bytes(b"other")
    with pytest.raises(ArtifactError, match="damaged"):
        upload_folder(finished, "s3://bucket/m")
    assert store.objects == {}


def test_a_folder_is_copied_to_a_new_local_place_only(finished: Path, tmp_path: Path) -> None:
    upload_folder(finished, file_uri(tmp_path / "copy"))
    assert list_files(str(tmp_path / "copy")) == ["a.txt", MANIFEST_FILE, "sub/b.txt"]
    with pytest.raises(ConfigError, match="exists already"):
        upload_folder(finished, str(tmp_path / "copy"))


def test_a_removed_folder_loses_its_manifest_first_and_its_neighbours_stay(
    store: Store, finished: Path, tmp_path: Path
) -> None:
    for uri in ("s3://bucket/m/1", "s3://bucket/m/10", str(tmp_path / "copy")):
        upload_folder(finished, uri)
    remove_folder("s3://bucket/m/1")
    assert store.deletes == [f"bucket/m/1/{name}" for name in (MANIFEST_FILE, "a.txt", "sub/b.txt")]
    assert list_files("s3://bucket/m") == ["10/a.txt", f"10/{MANIFEST_FILE}", "10/sub/b.txt"]
    remove_folder(str(tmp_path / "copy"))
    assert not (tmp_path / "copy").exists()
    remove_folder("s3://bucket/m/1")
    remove_folder(str(tmp_path / "copy"))


def test_a_file_is_uploaded_over_what_is_there(store: Store, tmp_path: Path) -> None:
    (tmp_path / "new").write_bytes(b"new")
    (tmp_path / "old").write_bytes(b"old")
    upload_file(tmp_path / "new", str(tmp_path / "old"))
    upload_file(tmp_path / "new", "s3://bucket/old")
    assert (tmp_path / "old").read_bytes() == store.objects["bucket/old"] == b"new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "old"]
    with pytest.raises(StorageError, match=r"none/x: cannot be written \(No such file or directory\)"):
        upload_file(tmp_path / "new", str(tmp_path / "none" / "x"))


def test_passing_failures_of_a_server_are_retried(store: Store, tmp_path: Path) -> None:
    store.objects["bucket/x"] = b"content"
    for uri in ("s3://bucket/x", f"{store.url}/bucket/x"):
        store.failures_left = 2
        assert fetch_file(uri, tmp_path / "x", 100).read_bytes() == b"content"


def test_a_download_that_ends_early_is_refused(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage.time, "sleep", lambda _: None)
    store.objects["bucket/x"] = b"content"
    store.cut = 3
    for uri in ("s3://bucket/x", f"{store.url}/bucket/x"):
        with patience(0.3), pytest.raises(StorageError, match=uri):
            fetch_file(uri, tmp_path / "x", 100)
    assert not (tmp_path / "x").exists()


def test_a_download_stops_at_its_cap(store: Store, tmp_path: Path) -> None:
    store.objects["bucket/x"] = bytes(5_000_000)
    for uri in ("s3://bucket/x", f"{store.url}/bucket/x"):
        with pytest.raises(DataError, match="more than 1,000,000 bytes"):
            fetch_file(uri, tmp_path / "x", 1_000_000)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("uri", "error", "message"),
    [
        ("/nowhere/x", ConfigError, "/nowhere/x: no such file"),
        (
            "gs://bucket/x",
            ConfigError,
            "gs://bucket/x: unknown kind of address; expected a path, file://, s3://",
        ),
        ("s3:///x", ConfigError, "s3:///x: no bucket; expected s3://bucket/key"),
        ("s3://b/x", ConfigError, "s3://b: invalid bucket name b; expected s3://bucket/key"),
        ("s3://bucket/none", StorageError, "s3://bucket/none: NoSuchKey"),
        ("{url}/none", StorageError, "{url}/none: the server answered 404; expected 200"),
        ("http://127.0.0.1:9/x", StorageError, "http://127.0.0.1:9/x: ConnectError"),
    ],
)
def test_a_place_that_is_not_there_is_named(
    store: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    uri: str,
    error: type[ProttuneError],
    message: str,
) -> None:
    monkeypatch.setattr(storage.time, "sleep", lambda _: None)
    with pytest.raises(error) as refused:
        fetch_file(uri.format(url=store.url), tmp_path / "x", 100)
    assert str(refused.value).startswith(message.format(url=store.url))


def test_folders_that_are_not_there_are_named(store: Store, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such folder"):
        fetch_folder(str(tmp_path / "none"), tmp_path / "x")
    with pytest.raises(StorageError, match="s3://bucket/none: nothing is there"):
        fetch_folder("s3://bucket/none", tmp_path / "x")


def test_s3_without_settings_says_which(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match="S3_ENDPOINT, S3_ACCESS_KEY and S3_SECRET_KEY"):
        fetch_file("s3://bucket/x", tmp_path / "x", 100)
    monkeypatch.setenv("S3_ENDPOINT", "127.0.0.1:9")
    monkeypatch.setenv("S3_ACCESS_KEY", "a")
    monkeypatch.setenv("S3_SECRET_KEY", "b")
    monkeypatch.setenv("S3_SECURE", "perhaps")
    with pytest.raises(ConfigError, match="S3_SECURE='perhaps': expected true or false"):
        fetch_file("s3://bucket/x", tmp_path / "x", 100)


def test_a_source_is_taken_from_the_web_and_from_s3_files_and_prefixes(store: Store, tmp_path: Path) -> None:
    store.objects = {
        "bucket/d/1.fa": b">P1 Nucleus-U\nMK\n",
        "bucket/d/2.csv": b"x",
        "bucket/d/notes.md": b"y",
    }
    web = take_source(f"{store.url}/bucket/d/1.fa?x=1", tmp_path / "1", 100, "", Findings())
    one = take_source("s3://bucket/d/1.fa", tmp_path / "2", 100, web.sha256, Findings())
    assert [file.path.read_bytes() for file in one.files] == [b">P1 Nucleus-U\nMK\n"]
    assert (web.files[0].name, web.sha256, web.git_blob) == ("1.fa", one.sha256, one.git_blob)
    findings = Findings()
    folder = take_source("s3://bucket/d", tmp_path / "3", 100, "", findings)
    assert [(file.name, file.kind) for file in folder.files] == [("1.fa", "fasta"), ("2.csv", "csv")]
    assert findings.in_order() == {"ignored_files": 1}


def test_a_git_blob_hash_is_what_git_prints(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"what is up, doc?")
    assert git_blob_sha1(tmp_path / "x") == "bd9dbf5aae1a3862dd1526723246b20206e5fc37"


def test_an_expected_git_blob_is_accepted_and_a_folder_without_data_refused(tmp_path: Path) -> None:
    (tmp_path / "in.fa").write_bytes(b"what is up, doc?")
    blob = "bd9dbf5aae1a3862dd1526723246b20206e5fc37"
    assert (
        take_source(str(tmp_path / "in.fa"), tmp_path / "s", 100, blob.upper(), Findings()).git_blob == blob
    )
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="no recognised file; expected names that end in"):
        take_source(str(tmp_path / "empty"), tmp_path / "t", 100, "", Findings())
    with pytest.raises(ConfigError, match="no such file or folder"):
        take_source(str(tmp_path / "none"), tmp_path / "u", 100, "", Findings())
