"""Where credentials and certificates come from: the first place that is set, read again when it changes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from small_store import Store
from small_sts import TokenService, numbered, serving_tokens

from prottune.errors import ConfigError, StorageError, StoreAwayError
from prottune.s3 import access
from prottune.s3.calls import patience
from prottune.storage import fetch_file, list_files

NONE = ("S3_ACCESS_KEY", "S3_SECRET_KEY")


@pytest.fixture
def open_store(store: Store, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store with one object; the environment names no credentials yet."""
    for name in NONE:
        monkeypatch.delenv(name)
    store.objects["bucket/x"] = b"content"
    return store


@pytest.fixture
def token_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TokenService]:
    """A service that the environment names, with a token to exchange."""
    access._web_identity.cache_clear()
    (tmp_path / "token").write_text("jwt-of-the-pod\n")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    with serving_tokens(TokenService()) as service:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", service.url)
        yield service


def asked_as(store: Store) -> tuple[str, str]:
    """Access key and session token of a call that is made now."""
    list_files("s3://bucket/")
    return store.access_keys[-1], store.tokens[-1]


def test_the_first_place_that_is_set_gives_the_credentials(
    open_store: Store, tmp_path: Path, token_service: TokenService, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("[default]\naws_access_key_id = f\naws_secret_access_key = s\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "file"))
    assert asked_as(open_store) == ("access-1", "session-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "t")
    assert asked_as(open_store) == ("a", "t")
    monkeypatch.setenv("S3_ACCESS_KEY", "b")
    monkeypatch.setenv("S3_SECRET_KEY", "s")
    assert asked_as(open_store) == ("b", ""), "a token belongs to its own keys"
    monkeypatch.setenv("S3_SESSION_TOKEN", "u")
    assert asked_as(open_store) == ("b", "u")


def test_half_a_pair_of_keys_is_refused_with_the_name_of_the_other_half(
    open_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    with pytest.raises(
        ConfigError, match="AWS_SECRET_ACCESS_KEY is set in the environment, AWS_ACCESS_KEY_ID"
    ):
        list_files("s3://bucket/")
    monkeypatch.setenv("S3_ACCESS_KEY", "a")
    with pytest.raises(ConfigError, match="S3_ACCESS_KEY is set in the environment, S3_SECRET_KEY is not"):
        list_files("s3://bucket/")


def test_keys_in_a_file_are_those_that_it_holds_now(
    open_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "credentials"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    with pytest.raises(ConfigError, match=r"credentials: no credentials could .* of profile 'default'"):
        list_files("s3://bucket/")
    for day in ("monday", "tuesday"):
        file.write_text(
            f"[default]\naws_access_key_id={day}\naws_secret_access_key=s\naws_session_token=t-{day}\n"
        )
        assert asked_as(open_store) == (day, f"t-{day}")
    file.write_text("aws_secret_access_key = the-secret-itself\n")
    with pytest.raises(ConfigError, match="no credentials could be read there") as refused:
        list_files("s3://bucket/")
    assert "the-secret-itself" not in str(refused.value)


def test_a_web_identity_is_exchanged_once_and_again_with_the_token_of_then_when_the_keys_expire(
    open_store: Store, tmp_path: Path, token_service: TokenService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::1:role/train")
    token_service.give = lambda number: numbered(number, seconds=3600 if number == 1 else 50)
    assert asked_as(open_store) == asked_as(open_store) == ("access-1", "session-1")
    (first,) = token_service.questions
    assert (first["Action"], first["RoleArn"]) == ("AssumeRoleWithWebIdentity", "arn:aws:iam::1:role/train")
    assert first["WebIdentityToken"] == "jwt-of-the-pod"
    assert token_service.paths == ["/"], "proxies log addresses"

    access._web_identity.cache_clear()
    (tmp_path / "token").write_text("jwt-of-an-hour-later")
    assert [asked_as(open_store)[0] for _ in range(2)] == ["access-2", "access-3"], (
        "those expire in 50 seconds"
    )
    assert token_service.questions[-1]["WebIdentityToken"] == "jwt-of-an-hour-later"


@pytest.mark.parametrize("status", [403, 503])
def test_a_token_service_that_refuses_is_named_without_the_token(
    open_store: Store, token_service: TokenService, status: int
) -> None:
    token_service.status = status
    kind = StoreAwayError if status == 503 else StorageError
    with (
        patience(0.3),
        pytest.raises(kind, match=r"^s3://bucket/: http.*/token \(InvalidIdent") as refused,
    ):
        list_files("s3://bucket/")
    assert "jwt" not in str(refused.value)
    assert refused.value.__cause__ is None or "jwt" not in repr(refused.value.__cause__)
    assert (len(token_service.questions) > 1) == (status == 503), "only who is away is asked again"


def test_a_token_service_that_is_away_is_waited_for_and_named_without_the_token(
    open_store: Store, token_service: TokenService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", "http://127.0.0.1:9")
    with (
        patience(0.3),
        pytest.raises(StoreAwayError, match=r"no answer .*; asked again for 0\.3 s") as refused,
    ):
        list_files("s3://bucket/")
    assert "jwt" not in str(refused.value)


def test_an_agent_beside_the_container_gives_keys_and_is_named_when_it_does_not(
    open_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving_tokens(TokenService()) as agent:
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{agent.url}/v1/credentials")
        assert asked_as(open_store) == asked_as(open_store) == ("access-1", "session-1")
        assert agent.paths == ["/v1/credentials"]
        access._container.cache_clear()
        agent.status = 403
        with pytest.raises(
            StorageError, match=r"AWS_CONTAINER_CREDENTIALS_FULL_URI=.*: no cred.* status 403"
        ):
            list_files("s3://bucket/")


def test_a_token_file_that_is_not_there_is_named(
    open_store: Store, token_service: TokenService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", "/none/token")
    with pytest.raises(
        ConfigError, match=r"AWS_WEB_IDENTITY_TOKEN_FILE=/none/token: cannot be read \(No such"
    ):
        list_files("s3://bucket/")


def test_tokens_are_exchanged_at_the_store_unless_it_is_amazons() -> None:
    address = access.Address("store:9000", secure=False, region="us-east-1")
    assert access._token_service(address) == "http://store:9000"
    amazon = access.Address("s3.eu-west-1.amazonaws.com", secure=True, region="eu-west-1")
    assert access._token_service(amazon) == "https://sts.eu-west-1.amazonaws.com"


def test_what_an_expired_token_is_answered_with_says_so(
    open_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in zip((*NONE, "S3_SESSION_TOKEN"), "ast", strict=True):
        monkeypatch.setenv(name, value)
    for code in ("ExpiredToken", "AccessDenied"):
        open_store.refuse = {"GET": code}
        with pytest.raises(StorageError, match=rf"^s3://bucket/x: {code}; .*expired \(S3_ACCESS_KEY and"):
            fetch_file("s3://bucket/x", tmp_path / "x", 100)
    monkeypatch.delenv("S3_SESSION_TOKEN")
    with pytest.raises(
        StorageError, match=r"x: AccessDenied; let the key read, .*\(S3_ACCESS_KEY and S3_SECRET_KEY\); some"
    ):
        fetch_file("s3://bucket/x", tmp_path / "x", 100)


@pytest.mark.parametrize("name", access.CA_VARIABLES)
def test_certificates_that_cannot_be_read_are_refused_by_name(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("S3_ENDPOINT", "https://127.0.0.1:9")
    monkeypatch.setenv(name, "/none/ca.crt")
    with pytest.raises(ConfigError, match=f"^{name}=/none/ca.crt: No such file or directory; expected a PEM"):
        list_files("s3://bucket/")
    (tmp_path / "ca.crt").write_text("no certificate")
    monkeypatch.setenv(name, str(tmp_path / "ca.crt"))
    with pytest.raises(ConfigError, match=rf"^{name}=.*ca.crt: NO_CERTIFICATE\w+; expected a PEM file"):
        list_files("s3://bucket/")


def test_a_server_without_tls_is_told_from_one_that_is_away(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("S3_ENDPOINT", store.url.replace("http://", "https://"))
    with pytest.raises(StorageError, match=r"does not speak TLS; is it S3_SECURE=false, or http://\?"):
        list_files("s3://bucket/")
