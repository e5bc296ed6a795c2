"""What every test gets: a clean environment, few threads, and no way to reach a network by accident."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from small_store import Store, serving

if TYPE_CHECKING:
    from api_server import ApiServer

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
os.environ["HF_HUB_OFFLINE"] = "1"
# A shell's background job ignores Ctrl-C, and so would every program that the tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

_ADDRESSES = (
    "MLFLOW_TRACKING_URI",
    "MLFLOW_RUN_ID",
    "S3_ENDPOINT",
    "S3_ACCESS_KEY",
    "S3_SECRET_KEY",
    "S3_SECURE",
    "S3_REGION",
    "S3_SESSION_TOKEN",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_ROLE_ARN",
    "AWS_ENDPOINT_URL_STS",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CA_BUNDLE",
    "SSL_CERT_FILE",
    "PROTTUNE_PIPELINE_RUN",
    "PROTTUNE_FAILURE_FILE",
    "PROTTUNE_UNSENT",
    "PROTTUNE_REGISTRY",
    "KUBECONFIG",
    "KUBERNETES_SERVICE_HOST",
)


@pytest.fixture(scope="session")
def kept_results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache of one whole test run: a result is found by all that decides it, so tests may share it."""
    return tmp_path_factory.mktemp("kept")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, kept_results: Path) -> None:
    """No test meets a server, a run or a cache that the machine's user happens to have."""
    for name in _ADDRESSES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PROTTUNE_CACHE", str(kept_results))


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """An empty S3 store that the environment points at."""
    with serving(Store()) as running:
        monkeypatch.setenv("S3_ENDPOINT", running.url)
        monkeypatch.setenv("S3_ACCESS_KEY", "access")
        monkeypatch.setenv("S3_SECRET_KEY", "secret")
        yield running


@pytest.fixture(scope="session")
def api_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """A real Kubernetes API server for custom resources; the test is not run where its programs are not."""
    from api_server import running

    with running(tmp_path_factory.mktemp("api-server")) as server:
        yield server


@pytest.fixture(scope="session")
def deeploc_fasta() -> Path:
    """The real DeepLoc file, never part of this repository."""
    named = os.environ.get("DEEPLOC_FASTA")
    path = Path(named) if named else Path(__file__).resolve().parents[2] / "shared/data/deeploc1.fasta"
    if not path.is_file():
        pytest.skip(f"not run here: the real DeepLoc file is absent ({path}); name it with DEEPLOC_FASTA")
    return path
