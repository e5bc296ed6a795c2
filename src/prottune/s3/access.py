"""Who we are to an S3 server, and whom we take for it: what the environment says of both.

    S3_ENDPOINT                 host:port, or with http:// or https://
    S3_SECURE, S3_REGION        true or false (true unless the endpoint says http://); us-east-1
    AWS_CA_BUNDLE               PEM file of certificates, trusted in place of the machine's; or SSL_CERT_FILE

Credentials are those of the first line that is set, and of no other place: no file of a home directory, no
metadata of the machine. What lines 3 to 5 name is read again for every call, so what is rotated is picked up.

    1. S3_ACCESS_KEY, S3_SECRET_KEY                      and S3_SESSION_TOKEN of temporary ones
    2. AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY          and AWS_SESSION_TOKEN of temporary ones
    3. AWS_WEB_IDENTITY_TOKEN_FILE                       with AWS_ROLE_ARN: a token that is exchanged for keys
    4. AWS_SHARED_CREDENTIALS_FILE                       with AWS_PROFILE: a file of keys
    5. AWS_CONTAINER_CREDENTIALS_FULL_URI, _RELATIVE_URI  an agent beside the container that gives keys

Keys and tokens are never printed.
"""

from __future__ import annotations

import os
import re
import ssl
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from prottune.errors import ConfigError, ProttuneError, StorageError, StoreAwayError
from prottune.s3.web_identity import TOKEN_VARIABLE, WebIdentity

if TYPE_CHECKING:
    from minio import Minio
    from urllib3 import PoolManager

CONNECT_SECONDS = 10
READ_SECONDS = 60
NUM_CONNECTIONS = 10
CA_VARIABLES = ("AWS_CA_BUNDLE", "SSL_CERT_FILE")
"""Which file of certificates is trusted; the first is what boto3, MLflow, KServe and KFP read too."""

_PAIRS = (
    ("S3_ACCESS_KEY", "S3_SECRET_KEY", "S3_SESSION_TOKEN"),
    ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"),
)
_FILE = "AWS_SHARED_CREDENTIALS_FILE"
_CONTAINER = ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")
_PASSING_STATUS = ("429", "500", "502", "503", "504")
_NEEDED = (
    "s3:// needs S3_ENDPOINT, S3_ACCESS_KEY and S3_SECRET_KEY in the environment, or credentials from "
    "another place that docs/data.md names"
)


@dataclass(frozen=True)
class Address:
    """Where the server is."""

    host: str
    """With its port, if it has one of its own."""
    secure: bool
    region: str

    @property
    def url(self) -> str:
        return f"{'https' if self.secure else 'http'}://{self.host}"

    @classmethod
    def of_environment(cls) -> Address:
        """Raises: ConfigError if S3_ENDPOINT is not set, or S3_SECURE neither true nor false."""
        endpoint = os.environ.get("S3_ENDPOINT", "")
        if not endpoint:
            raise ConfigError(_NEEDED)
        secure = os.environ.get("S3_SECURE") or ("false" if endpoint.startswith("http://") else "true")
        if secure.lower() not in ("true", "false"):
            raise ConfigError(f"S3_SECURE={secure!r}: expected true or false")
        host = endpoint.removeprefix("http://").removeprefix("https://").rstrip("/")
        return cls(host, secure.lower() == "true", os.environ.get("S3_REGION") or "us-east-1")


class Identity:
    """The keys that calls are signed with, asked for anew by each call, and where they come from."""

    def __init__(self, provider: Any, place: str, expected: str = "an answer of AWS's form") -> None:
        self._provider, self.place, self._expected = provider, place, expected
        self.is_temporary = False
        """Whether the keys used last have a session token: those expire."""

    def retrieve(self) -> Any:
        """Give the client the keys of this moment; a refusal says which place has none, and no secret.

        Raises: ConfigError if the place cannot be read; StorageError if it refuses; StoreAwayError if it
            does not answer.
        """
        import urllib3

        try:
            found = self._provider.retrieve()
        except ProttuneError:
            raise
        except urllib3.exceptions.HTTPError as error:  # its text has the address, and that the token
            raise StoreAwayError(f"{self.place}: no answer ({type(error).__name__})") from None
        except Exception as error:  # whatever its answer or file made of the reader; may quote a secret
            raise self._refusal(error) from None
        self.is_temporary = bool(found.session_token)
        return found

    def _refusal(self, error: Exception) -> ProttuneError:
        """What ails the place, in words that hold nothing of what it said."""
        if answered := re.search(r"HTTP status code (\d+)$", str(error)):
            kind = StoreAwayError if answered[1] in _PASSING_STATUS else StorageError
            return kind(f"{self.place}: no credentials, the answer was status {answered[1]}")
        why = f"no credentials could be read there ({type(error).__name__})"
        return ConfigError(f"{self.place}: {why}; expected {self._expected}")


def client() -> tuple[Minio, Identity]:
    """A client of the server that the environment names, and who it is there.

    Raises: ConfigError if the endpoint, credentials or certificates are not set or cannot be read.
    """
    from minio import Minio

    address = Address.of_environment()
    identity = _identity(address)
    made = Minio(
        endpoint=address.host,
        credentials=identity,
        secure=address.secure,
        region=address.region,
        http_client=_connections(address.url),
    )
    return made, identity


def trusted_file() -> str:
    """The file of certificates that the environment names; empty: those of the machine and of certifi."""
    return next((path for name in CA_VARIABLES if (path := os.environ.get(name))), "")


def _connections(url: str) -> PoolManager:
    """Connections with short time limits that check certificates; whoever calls asks again."""
    import urllib3

    return urllib3.PoolManager(
        timeout=urllib3.Timeout(connect=CONNECT_SECONDS, read=READ_SECONDS),
        maxsize=NUM_CONNECTIONS,
        retries=False,
        ssl_context=_certificates() if url.startswith("https://") else None,
    )


def _certificates() -> ssl.SSLContext:
    """Raises: ConfigError if the file of certificates that the environment names cannot be read."""
    trusted = trusted_file()
    try:
        return _context(trusted, os.stat(trusted).st_mtime_ns if trusted else 0)
    except OSError as error:  # ssl.SSLError is one
        name = next(name for name in CA_VARIABLES if os.environ.get(name) == trusted)
        why = error.reason if isinstance(error, ssl.SSLError) else error.strerror
        raise ConfigError(f"{name}={trusted}: {why}; expected a PEM file of certificates") from error


@lru_cache(maxsize=2)
def _context(trusted: str, changed: int) -> ssl.SSLContext:
    """Kept: reading certificates takes as long as a small object. A file that changed is read again."""
    if trusted:
        return ssl.create_default_context(cafile=trusted)
    import certifi

    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context


def _identity(address: Address) -> Identity:
    from minio.credentials import AWSConfigProvider, StaticProvider

    for names in _PAIRS:
        access, secret, token = (os.environ.get(name) or None for name in names)
        if access and secret:
            return Identity(StaticProvider(access, secret, token), f"{names[0]} and {names[1]}")
        if access or secret:
            there, lacking = names[:2] if access else names[1::-1]
            raise ConfigError(f"{there} is set in the environment, {lacking} is not; both are needed")
    if token_file := os.environ.get(TOKEN_VARIABLE):
        service = os.environ.get("AWS_ENDPOINT_URL_STS") or _token_service(address)
        role, session = (os.environ.get(name, "") for name in ("AWS_ROLE_ARN", "AWS_ROLE_SESSION_NAME"))
        return _web_identity(token_file, service, role, session)
    if file := os.environ.get(_FILE):
        profile = os.environ.get("AWS_PROFILE") or "default"
        expected = f"aws_access_key_id and aws_secret_access_key of profile {profile!r}"
        return Identity(AWSConfigProvider(file, profile), f"{_FILE}={file}", expected)
    for name in _CONTAINER:
        if agent := os.environ.get(name):
            return _container(name, agent)
    raise ConfigError(_NEEDED)


def _token_service(address: Address) -> str:
    """Where tokens are exchanged if nobody says: Amazon's service has its own host, other stores do it."""
    if (urlsplit(address.url).hostname or "").endswith(".amazonaws.com"):
        return f"https://sts.{address.region}.amazonaws.com"
    return address.url


@lru_cache(maxsize=4)
def _web_identity(token_file: str, service: str, role: str, session: str) -> Identity:
    """Kept for the whole process, because it keeps the keys until they expire."""
    provider = WebIdentity(token_file, service, role, session, _connections(service))
    return Identity(provider, f"{TOKEN_VARIABLE} at {service}")


@lru_cache(maxsize=4)
def _container(name: str, agent: str) -> Identity:
    from minio.credentials import IamAwsProvider

    return Identity(IamAwsProvider(http_client=_connections(agent)), f"{name}={agent}")
