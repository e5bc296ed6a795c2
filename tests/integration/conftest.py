"""What the integration tests share: servers that take half a minute to start."""

from collections.abc import Iterator

import pytest
from real_s3 import RealS3, running


@pytest.fixture(scope="session")
def real_s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealS3]:
    """A real S3 server, started once for all tests."""
    with running(tmp_path_factory.mktemp("ceph")) as server:
        yield server


@pytest.fixture
def s3(real_s3: RealS3, monkeypatch: pytest.MonkeyPatch) -> RealS3:
    """The environment points at the server, with its owner's keys."""
    for name, value in real_s3.env.items():
        monkeypatch.setenv(name, value)
    return real_s3
