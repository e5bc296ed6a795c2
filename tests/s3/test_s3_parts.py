"""Uploads in parts and downloads that break: what arrived counts, and nothing half is taken for whole."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from small_store import Store

from prottune.errors import StorageError, StoreAwayError
from prottune.s3.bucket import PIECE_BYTES
from prottune.s3.calls import patience
from prottune.s3.parts import PART_BYTES
from prottune.storage import fetch_file, list_unfinished, remove_folder, upload_file

KEY = "bucket/models/a b+c"
URI = f"s3://{KEY}"


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A file of four parts."""
    (tmp_path / "large").write_bytes(os.urandom(3 * PART_BYTES + 7))
    return tmp_path / "large"


def broken_after(store: Store, num_parts: int, path: Path) -> None:
    store.parts_until_away = num_parts
    with patience(0.3), pytest.raises(StoreAwayError, match=r"a b\+c: SlowDown; asked again for 0\.3 s"):
        upload_file(path, URI)
    store.parts_until_away = None


def test_an_upload_that_broke_sends_only_what_the_store_lacks(store: Store, large: Path) -> None:
    broken_after(store, 2, large)
    assert KEY not in store.objects
    assert list_unfinished("s3://bucket/models") == ["a b+c"]
    first, store.sent_parts = set(store.sent_parts), []
    upload_file(large, URI)
    assert (len(first), sorted(store.sent_parts)) == (2, sorted({1, 2, 3, 4} - first))
    assert store.objects[KEY] == large.read_bytes()
    assert list_unfinished("s3://bucket/models") == []


def test_parts_of_another_file_are_sent_again(store: Store, large: Path) -> None:
    broken_after(store, 2, large)
    store.sent_parts = []
    content = large.read_bytes()
    large.write_bytes(os.urandom(1) + content[1:PART_BYTES] + content[PART_BYTES:])
    upload_file(large, URI)
    assert 1 in store.sent_parts
    assert store.objects[KEY] == large.read_bytes()


def test_a_store_that_stumbles_costs_an_upload_nothing(store: Store, large: Path) -> None:
    store.stumbles = 3
    upload_file(large, URI)
    assert sorted(store.sent_parts) == [1, 2, 3, 4]
    assert store.objects[KEY] == large.read_bytes()


def test_an_upload_that_was_tidied_away_meanwhile_begins_anew(store: Store, large: Path) -> None:
    store.tidied_after = 1
    upload_file(large, URI)
    assert store.objects[KEY] == large.read_bytes()


def test_parts_that_another_writer_put_in_between_do_not_get_in(store: Store, large: Path) -> None:
    store.spoiled_after = 4
    upload_file(large, URI)
    assert len(store.sent_parts) == 8
    assert store.objects[KEY] == large.read_bytes()


def test_an_answer_lost_at_the_end_does_not_send_all_again(store: Store, large: Path) -> None:
    store.lost_ends = 1
    upload_file(large, URI)
    assert sorted(store.sent_parts) == [1, 2, 3, 4]
    assert store.objects[KEY] == large.read_bytes()


def test_a_store_that_does_not_tell_of_broken_uploads_is_written_all_the_same(
    store: Store, large: Path
) -> None:
    broken_after(store, 2, large)
    store.hides_uploads = True
    upload_file(large, URI)
    assert store.objects[KEY] == large.read_bytes()


def test_parts_without_an_end_go_with_their_folder(store: Store, large: Path) -> None:
    broken_after(store, 2, large)
    remove_folder("s3://bucket/models")
    assert store.parts == {}


def test_a_download_goes_on_where_it_broke(store: Store, tmp_path: Path) -> None:
    store.objects["bucket/x"] = os.urandom(3 * PIECE_BYTES)
    store.cut, store.num_cuts = PIECE_BYTES, 2
    fetched = fetch_file("s3://bucket/x", tmp_path / "x", 4 * PIECE_BYTES)
    assert fetched.read_bytes() == store.objects["bucket/x"]
    assert store.ranges == [f"bytes={2 * PIECE_BYTES}-"] * 2


def test_an_object_that_is_replaced_between_two_halves_is_refused(store: Store, tmp_path: Path) -> None:
    store.objects["bucket/x"] = bytes(3 * PIECE_BYTES)
    store.cut, store.num_cuts, store.replaced_by = PIECE_BYTES, 1, b"1" * 3 * PIECE_BYTES
    with pytest.raises(StorageError, match="x: was replaced while it was read; read it again"):
        fetch_file("s3://bucket/x", tmp_path / "x", 4 * PIECE_BYTES)
    assert not (tmp_path / "x").exists()


def test_a_store_that_is_gone_for_good_ends_in_one_line(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("S3_ENDPOINT", "http://127.0.0.1:9")
    with patience(0.5), pytest.raises(StoreAwayError) as gone:
        fetch_file("s3://bucket/x", tmp_path / "x", 9999)
    why = "s3://bucket/x: no answer (NewConnectionError: [Errno 111] Connection refused)"
    assert str(gone.value) == f"{why}; asked again for 0.5 s"
    assert [record.message for record in caplog.records] == [f"{why}; asking again for 0.5 s"]
    assert gone.value.exit_code == 3
