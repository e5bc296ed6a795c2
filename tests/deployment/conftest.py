"""What every deployment to a cluster is tested with: a model in a store, and a small cluster with KServe."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from half_real_cluster import KINDS, cluster_of
from small_endpoint import GOLDEN
from small_kserve import SmallKServe, controlled
from small_store import Store

from prottune.artifacts import new_folder
from prottune.storage import upload_folder

_context = cache(ssl.create_default_context)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a deployment reads of a model: its manifest, its golden answers, what it was made from."""
    target = tmp_path_factory.mktemp("models") / "model"
    with new_folder(target, "train", None) as draft:
        (draft.path / "golden.json").write_text(json.dumps({"golden": GOLDEN}))
        (draft.path / "prottune.json").write_text(json.dumps({"dataset_digest": "data-1"}))
    return target


@pytest.fixture
def models(store: Store, folder: Path) -> str:
    """The prefix under which every version lies in the store."""
    for version in ("1", "2", "3"):
        upload_folder(folder, f"s3://models/{version}")
    return "s3://models"


@pytest.fixture(scope="module", params=KINDS)
def running(request: pytest.FixtureRequest) -> Iterator[SmallKServe]:
    with cluster_of(request) as cluster, controlled(cluster) as kserve:
        yield kserve


@pytest.fixture
def kserve(running: SmallKServe, monkeypatch: pytest.MonkeyPatch) -> SmallKServe:
    """An empty cluster. Certificates, of which none is needed, are read once and not for every client."""
    monkeypatch.setattr(ssl, "create_default_context", _context)
    running.empty()
    return running
