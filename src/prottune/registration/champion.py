"""The version that serves: which it is, and where its folder lies."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from prottune.addresses import local_path, s3_uri
from prottune.errors import ConfigError
from prottune.registration.registry import registry
from prottune.storage import fetch_folder, fetch_manifest
from prottune.tracking.mlflow_store import masked

FROM_REGISTRY = "registry"
"""Names the champion, where a model's address is asked for."""


@dataclass(frozen=True)
class Champion:
    """The version that serves."""

    version: str
    uri: str
    """Where its model folder lies."""
    tags: dict[str, str]


def find_champion() -> Champion | None:
    """The version that serves now; None before the first promotion."""
    found = registry().version_with_alias("champion")
    return Champion(str(found.version), found.source, dict(found.tags)) if found else None


@contextmanager
def champion_folder() -> Iterator[tuple[Path | None, str]]:
    """Yield the champion's model folder, fetched if need be, and its version; (None, "") if there is none."""
    champion = find_champion()
    if champion is None:
        yield None, ""
        return
    with model_folder(champion.uri) as folder:
        yield folder, champion.version


def model_address(model: str) -> tuple[str, str]:
    """Where a model lies that is named by its address or by `registry`, the champion; and its version.

    Of a model that is named by its address no version is known; its manifest is read, so that no work begins
    which needs a model that is not there.

    Raises: ConfigError if the registry has no champion; ArtifactError if the address is not a model's;
        StorageError if its store refuses, vanishes, or holds nothing there.
    """
    if model == FROM_REGISTRY:
        if (champion := find_champion()) is None:
            raise ConfigError(
                f"model={model!r}: the registry {masked(registry().uri)} has no champion; promote a version, "
                "or name a model's folder or s3:// address"
            )
        return champion.uri, champion.version
    folder = local_path(model)
    address = str(folder.absolute()) if folder else s3_uri(model)
    fetch_manifest(address).expect("train", address)
    return address, ""


@contextmanager
def model_folder(uri: str) -> Iterator[Path]:
    """Yield the model folder behind an address that the registry may have given, fetched if need be."""
    with tempfile.TemporaryDirectory(prefix="prottune-model-") as scratch:
        if uri.startswith(("mlflow-artifacts:", "runs:", "models:")):
            yield registry().download(uri, Path(scratch))
        else:
            yield fetch_folder(uri, Path(scratch) / "model")
