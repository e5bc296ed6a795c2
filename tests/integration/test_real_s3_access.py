"""Temporary credentials and a CA of one's own, against a real S3 server."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from real_s3 import BUCKET, RealS3, wait_until
from small_sts import Keys
from web_issuer import issuing

from pipelines.checks import services
from pipelines.checks.surroundings import DoctorFlags, Surroundings
from prottune.artifacts import new_folder, read_manifest
from prottune.errors import StorageError
from prottune.s3 import access, web_identity
from prottune.storage import fetch_folder, list_files, upload_folder
from prottune.training.checkpoints import Checkpoints
from prottune.training.settings import TrainConfig

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

OWNERS = ("S3_ACCESS_KEY", "S3_SECRET_KEY")


@pytest.fixture
def sts(s3: RealS3, monkeypatch: pytest.MonkeyPatch) -> RealS3:
    """The environment points at the gateway that gives temporary keys, and names none."""
    monkeypatch.setenv("S3_ENDPOINT", s3.url_sts)
    for name in OWNERS:
        monkeypatch.delenv(name)
    return s3


@pytest.fixture
def model(tmp_path: Path) -> Path:
    with new_folder(tmp_path / "model", "train", None) as draft:
        (draft.path / "weights").write_bytes(os.urandom(12_000_000))
    return tmp_path / "model"


def wait_for_the_end_of(keys: Keys) -> None:
    wait_until(lambda: datetime.now(UTC) > keys.expire)


@pytest.mark.parametrize(
    "names",
    [(*OWNERS, "S3_SESSION_TOKEN"), ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")],
)
def test_temporary_keys_are_taken_until_they_expire(
    sts: RealS3, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: tuple[str, str, str]
) -> None:
    uri = f"s3://{BUCKET}/temporary/{names[0]}"
    keys = sts.temporary(seconds=900)
    for name, value in zip(names, (keys.access, keys.secret, keys.token), strict=True):
        monkeypatch.setenv(name, value)
    upload_folder(model, uri)
    assert read_manifest(fetch_folder(uri, tmp_path / "back")).digest == read_manifest(model).digest

    keys = sts.temporary(seconds=1)
    for name, value in zip(names, (keys.access, keys.secret, keys.token), strict=True):
        monkeypatch.setenv(name, value)
    wait_for_the_end_of(keys)
    with pytest.raises(StorageError) as refused:
        list_files(uri)
    assert f"these temporary credentials may have expired ({names[0]} and {names[1]}): get new ones" in str(
        refused.value
    )
    assert refused.value.exit_code == 3
    monkeypatch.delenv(names[2])
    with pytest.raises(StorageError, match=r"AccessDenied; let the key .*some stores say so of a wrong key"):
        list_files(uri)
    monkeypatch.setenv("S3_ENDPOINT", sts.url)
    with pytest.raises(StorageError, match="InvalidAccessKeyId; the store does not know this access key"):
        list_files(uri)


def test_checkpoints_of_a_long_run_are_written_with_the_keys_of_then(
    sts: RealS3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "credentials"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))

    def rotate(keys: Keys) -> Keys:
        (tmp_path / "next").write_text(
            f"[default]\naws_access_key_id = {keys.access}\naws_secret_access_key = {keys.secret}\n"
            f"aws_session_token = {keys.token}\n"
        )
        (tmp_path / "next").replace(file)
        return keys

    def keep(step: int) -> str:
        return checkpoints.write(
            step, {}, lambda folder: (folder / "weights").write_bytes(os.urandom(6_000_000))
        )

    checkpoints = Checkpoints(f"s3://{BUCKET}/rotated", TrainConfig(), {}, str(tmp_path))
    expiring = rotate(sts.temporary(seconds=4))
    assert keep(1) == "step-00000001"
    wait_for_the_end_of(expiring)
    with pytest.raises(StorageError, match=r"may have expired \(AWS_SHARED_CREDENTIALS_FILE="):
        keep(2)
    rotate(sts.temporary(seconds=900))
    assert keep(2) == "step-00000002"
    folder, _ = checkpoints.newest()
    assert folder is not None
    assert folder.name == "step-00000002"


def test_the_token_of_a_pod_is_exchanged_for_keys_again_and_again(
    sts: RealS3, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "token"
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(file))
    with issuing(tmp_path) as issuer:
        monkeypatch.setenv("AWS_ROLE_ARN", sts.trust(issuer))
        file.write_text(issuer.token(seconds=-10))
        with pytest.raises(StorageError, match=r"does not take the token of .*/token \(AccessDenied\)"):
            list_files(f"s3://{BUCKET}/identity")
        file.write_text(issuer.token())
        upload_folder(model, f"s3://{BUCKET}/identity")
        back = fetch_folder(f"s3://{BUCKET}/identity", tmp_path / "back")
        assert read_manifest(back).digest == read_manifest(model).digest

        first = access.client()[1].retrieve()
        assert access.client()[1].retrieve() == first, "kept until they expire"
        monkeypatch.setattr(web_identity, "MARGIN", timedelta(hours=2))  # they are given for one
        assert access.client()[1].retrieve().session_token != first.session_token
        assert list_files(f"s3://{BUCKET}/identity") == ["manifest.json", "weights"]


def test_a_ca_of_ones_own_is_trusted_when_it_is_named_and_only_then(
    s3: RealS3, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"s3://{BUCKET}/tls"
    monkeypatch.setenv("S3_ENDPOINT", s3.url_tls)
    with pytest.raises(StorageError) as refused:
        upload_folder(model, uri)
    assert str(refused.value).startswith(
        f"s3://{BUCKET}/tls/weights: the server's certificate is not trusted ("
    )
    assert str(refused.value).endswith(
        "; name the PEM file of its CA with AWS_CA_BUNDLE (now unset: the machine's own are trusted)"
    )
    for name in ("SSL_CERT_FILE", "AWS_CA_BUNDLE"):
        monkeypatch.setenv(name, str(s3.ca))
        upload_folder(model, uri)
        back = fetch_folder(uri, tmp_path / name)
        assert read_manifest(back).digest == read_manifest(model).digest
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CA_BUNDLE", str(s3.ca))
    monkeypatch.setenv("S3_ENDPOINT", s3.url_tls.replace("127.0.0.1", "localhost"))
    with pytest.raises(StorageError, match=r"is not trusted .*'localhost'"):
        list_files(uri)


def test_the_doctor_uses_the_same_credentials_and_certificates(
    sts: RealS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = sts.temporary(seconds=900)
    for name, value in zip(
        ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"),
        (keys.access, keys.secret, keys.token),
        strict=True,
    ):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("S3_ENDPOINT", sts.url_tls)
    look = Surroundings(DoctorFlags(store=f"s3://{BUCKET}/tried"))
    found = services.store(look)
    assert (found.state, "certificate is not trusted" in found.found) == ("failed", True)
    assert found.advice.startswith("name the PEM file of its CA with AWS_CA_BUNDLE")
    monkeypatch.setenv("AWS_CA_BUNDLE", str(sts.ca))
    assert services.store(look).state == "ok"
