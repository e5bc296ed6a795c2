"""A real S3 server, or we, killed in the middle: what arrived counts, and nothing half is taken for whole."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from real_s3 import BUCKET, RealS3, Wire, wire_to

from prottune.artifacts import MANIFEST_FILE, new_folder, read_manifest
from prottune.errors import ArtifactError, StoreAwayError
from prottune.s3.calls import patience
from prottune.s3.parts import PART_BYTES
from prottune.storage import fetch_folder, list_files, list_unfinished, upload_folder

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

SIZE = 12 * PART_BYTES
IN_FLIGHT = 3 * PART_BYTES
"""What may be lost of parts that were on their way."""
HEADERS = PART_BYTES // 2
"""More than all that is said beside the content."""
UPLOAD = """
import sys
from pathlib import Path
from prottune.storage import upload_folder
upload_folder(Path(sys.argv[1]), sys.argv[2])
"""


@pytest.fixture
def wire(s3: RealS3, monkeypatch: pytest.MonkeyPatch) -> Iterator[Wire]:
    """The environment points at the server through a wire that counts."""
    with wire_to(s3.url) as wire:
        monkeypatch.setenv("S3_ENDPOINT", wire.url)
        yield wire


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A finished folder with one file of many parts."""
    with new_folder(tmp_path / "model", "train", None) as draft:
        (draft.path / "weights").write_bytes(os.urandom(SIZE))
    return tmp_path / "model"


def killed_for_a_while(s3: RealS3) -> None:
    s3.kill()
    threading.Thread(target=s3.start).start()


def test_a_server_killed_during_an_upload_gets_only_what_it_lacks(
    s3: RealS3, wire: Wire, model: Path, tmp_path: Path
) -> None:
    wire.at("up", 6 * PART_BYTES, lambda: killed_for_a_while(s3))
    begun = time.monotonic()
    upload_folder(model, f"s3://{BUCKET}/outage/1")
    seconds = time.monotonic() - begun
    print(f"upload of {SIZE:,} bytes, server killed after half, {seconds:.1f} s: {wire.num_up:,} sent")
    assert SIZE < wire.num_up < SIZE + IN_FLIGHT + HEADERS
    back = fetch_folder(f"s3://{BUCKET}/outage/1", tmp_path / "back")
    assert read_manifest(back).digest == read_manifest(model).digest


def test_a_server_killed_during_a_download_is_read_on_where_it_broke(
    s3: RealS3, wire: Wire, model: Path, tmp_path: Path
) -> None:
    upload_folder(model, f"s3://{BUCKET}/outage/2")
    wire.at("down", 6 * PART_BYTES, lambda: killed_for_a_while(s3))
    back = fetch_folder(f"s3://{BUCKET}/outage/2", tmp_path / "back")
    print(f"download of {SIZE:,} bytes, server killed after half: {wire.num_down:,} came back")
    assert read_manifest(back).digest == read_manifest(model).digest
    assert wire.num_down < SIZE + HEADERS


def test_an_upload_whose_process_was_killed_leaves_no_manifest_and_is_gone_on_with(
    s3: RealS3, wire: Wire, model: Path, tmp_path: Path
) -> None:
    uri = f"s3://{BUCKET}/outage/3"
    sender = subprocess.Popen([sys.executable, "-c", UPLOAD, model, uri])
    wire.at("up", 8 * PART_BYTES, sender.kill)
    assert sender.wait(60) == -9
    assert list_files(uri) == []
    assert list_unfinished(uri) == ["weights"]

    wire.at("up", 0, lambda: None)
    upload_folder(model, uri)
    print(f"upload of {SIZE:,} bytes, killed after two thirds: {wire.num_up:,} were sent then")
    assert wire.num_up < SIZE - 8 * PART_BYTES + IN_FLIGHT + HEADERS
    assert list_unfinished(uri) == []
    assert read_manifest(fetch_folder(uri, tmp_path / "back")).digest == read_manifest(model).digest


def test_a_folder_whose_manifest_never_came_is_not_taken_for_whole(
    s3: RealS3, wire: Wire, tmp_path: Path
) -> None:
    with new_folder(tmp_path / "model", "train", None) as draft:
        (draft.path / "a-first").write_bytes(b"small")
        (draft.path / "weights").write_bytes(os.urandom(2 * PART_BYTES))
    uri = f"s3://{BUCKET}/outage/4"
    sender = subprocess.Popen([sys.executable, "-c", UPLOAD, tmp_path / "model", uri])
    wire.at("up", PART_BYTES, sender.kill)
    assert sender.wait(60) == -9
    assert list_files(uri) == ["a-first"]
    with pytest.raises(ArtifactError, match=f"no {MANIFEST_FILE}; this is not a finished prottune folder"):
        read_manifest(fetch_folder(uri, tmp_path / "back"))


def test_a_server_that_is_gone_for_good_ends_in_one_line_in_bounded_time(
    s3: RealS3, wire: Wire, model: Path, tmp_path: Path
) -> None:
    wire.at("up", 2 * PART_BYTES, s3.kill)
    begun = time.monotonic()
    try:
        with patience(3), pytest.raises(StoreAwayError) as gone:
            upload_folder(model, f"s3://{BUCKET}/outage/5")
        assert time.monotonic() - begun < 10
        assert str(gone.value).startswith(f"s3://{BUCKET}/outage/5/weights: no answer (")
        assert str(gone.value).endswith("; asked again for 3 s")
        assert (gone.value.exit_code, str(gone.value).count("\n")) == (3, 0)
    finally:
        s3.start()
    assert list_files(f"s3://{BUCKET}/outage/5") == []
