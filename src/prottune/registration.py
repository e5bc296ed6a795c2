"""Models become versions of the registered model `prottune`, and three aliases say which is which.

    challenger   the version that is being tried
    champion     the version that serves
    previous     the champion before it, for `rollback`

A version carries as tags what decides whether there is news: digests of data, settings and code.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from prottune import __version__
from prottune.artifacts import read_manifest
from prottune.errors import ArtifactError, ConfigError, TrackingError
from prottune.mlflow_store import PIPELINE_RUN_TAG, masked
from prottune.registry import MODEL_NAME, Alias, Registry, registry
from prottune.storage import fetch_folder, local_path, s3_uri
from prottune.tracking import numbers, open_tracker

MODEL_DIGEST_TAG = "prottune.model_digest"
DATASET_DIGEST_TAG = "prottune.dataset_digest"
SETTINGS_DIGEST_TAG = "prottune.settings_digest"
CODE_DIGEST_TAG = "prottune.code_digest"
_SCORES = ("accuracy", "macro_f1", "mcc", "ece")


@dataclass(frozen=True)
class Champion:
    """The version that serves."""

    version: str
    uri: str
    """Where its model folder lies."""
    tags: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class RegisterReport:
    """What became of a registration."""

    version: str
    uri: str
    """Where the registry says that the model lies."""
    created: bool
    """False when this pipeline run had registered this very model already."""
    uploaded: bool = False
    """True when the folder had to be copied to the MLflow server, which cannot read this machine's disk."""


@dataclass(frozen=True, kw_only=True)
class PromoteReport:
    """Which version serves now, and why."""

    promoted: bool
    reason: str
    champion: str
    previous: str
    """Version that `rollback` would bring back; empty if there is none."""


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
    with tempfile.TemporaryDirectory(prefix="prottune-champion-") as scratch:
        if champion.uri.startswith(("mlflow-artifacts:", "runs:", "models:")):
            yield registry().download(champion.uri, Path(scratch)), champion.version
        else:
            yield fetch_folder(champion.uri, Path(scratch) / "model"), champion.version


def register(model: Path, uri: str, report: Path, run_key: str, settings_digest: str = "") -> RegisterReport:
    """Make a model a version with alias `challenger`, exactly once for each pipeline run and model.

    `uri` is where the pipeline keeps the folder `model`; `run_key` names the pipeline run;
    `settings_digest` is what `is_news` was asked with.

    Raises: ArtifactError if a folder is damaged or the report is about another model.
    """
    digest = read_manifest(model, "train").digest
    judged = read_manifest(report, "evaluate").inputs.get("model", "")
    if judged != digest:
        raise ArtifactError(f"{report}: is about model {judged[:12]!r}, expected {digest[:12]!r} ({model})")
    key = {PIPELINE_RUN_TAG: run_key or "by hand", MODEL_DIGEST_TAG: digest}
    store, run_id = registry(), open_tracker().run_id
    found, uploaded = store.version_with_tags(key), False
    if created := found is None:
        folder = local_path(uri)
        source = str(folder.absolute()) if folder else s3_uri(uri)
        if uploaded := folder is not None and store.uri.startswith("http"):
            source = store.upload(model, _needed(run_id, store))
        facts = _facts(model, report) | {SETTINGS_DIGEST_TAG: settings_digest}
        found = store.create_version(source, run_id, key | {n: v for n, v in facts.items() if v})
    version = str(found.version)
    store.set_alias("challenger", version)
    return RegisterReport(version=version, uri=found.source, created=created, uploaded=uploaded)


def promote(version: str, compared_with: str) -> PromoteReport:
    """Make a version the champion, unless the champion is no longer the one it was compared with.

    `compared_with` is the champion's version that the gate saw, empty if there was none. Repeating a
    promotion that went through changes nothing.

    Raises: ConfigError if there is no such version.
    """
    store = registry()
    with store.lock():
        if store.version(version) is None:
            raise ConfigError(f"model {MODEL_NAME!r} has no version {version!r}; register it first")
        champion, previous = _version_of(store, "champion"), _version_of(store, "previous")
        if champion == version:
            return PromoteReport(
                promoted=True, reason="it is the champion already", champion=champion, previous=previous
            )
        if champion != compared_with:
            reason = (
                f"the champion is now version {champion or 'none'}, but version {version} was compared with "
                f"{compared_with or 'none'}; evaluate it again"
            )
            return PromoteReport(promoted=False, reason=reason, champion=champion, previous=previous)
        if champion:
            store.set_alias("previous", champion)
        store.set_alias("champion", version)
    reason = f"it takes the place of version {champion}" if champion else "it is the first champion"
    return PromoteReport(promoted=True, reason=reason, champion=version, previous=champion or previous)


def rollback() -> PromoteReport:
    """Let champion and previous change places.

    Raises: ConfigError if there is no previous champion.
    """
    store = registry()
    with store.lock():
        champion, previous = _version_of(store, "champion"), _version_of(store, "previous")
        if not champion or not previous or champion == previous:
            raise ConfigError(
                f"nothing to roll back to: champion {champion or 'none'}, previous {previous or 'none'}"
            )
        store.set_alias("champion", previous)
        store.set_alias("previous", champion)
    reason = f"version {champion} was rolled back"
    return PromoteReport(promoted=True, reason=reason, champion=previous, previous=champion)


def is_news(dataset_digest: str, settings_digest: str) -> bool:
    """Whether training again could end elsewhere: False if data, settings and code are the champion's."""
    champion = find_champion()
    if champion is None:
        return True
    now = {
        DATASET_DIGEST_TAG: dataset_digest,
        SETTINGS_DIGEST_TAG: settings_digest,
        CODE_DIGEST_TAG: code_digest(),
    }
    return any(champion.tags.get(name) != value for name, value in now.items())


def settings_digest(*configs: Any) -> str:
    """SHA-256 over the settings of several stages, by class and field; their order does not matter."""
    content = {type(config).__name__: asdict(config) for config in configs}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@cache
def code_digest() -> str:
    """SHA-256 over the sources of the installed prottune."""
    root, digest = Path(__file__).parent, hashlib.sha256(__version__.encode())
    for path in sorted(root.rglob("*.py")):
        digest.update(f"\n{path.relative_to(root).as_posix()}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def _version_of(store: Registry, alias: Alias) -> str:
    found = store.version_with_alias(alias)
    return str(found.version) if found else ""


def _facts(model: Path, report: Path) -> dict[str, str]:
    """Tags of a new version: what it was made from and how it scored."""
    metrics = json.loads((report / "metrics.json").read_text(encoding="utf-8"))
    description = json.loads((model / "prottune.json").read_text(encoding="utf-8"))
    scores = numbers({split: metrics[split] for split in ("test", "gate") if split in metrics})
    wanted = {name: value for name, value in scores.items() if name.split("/")[1] in _SCORES}
    return {
        DATASET_DIGEST_TAG: str(description.get("dataset_digest", "")),
        CODE_DIGEST_TAG: code_digest(),
        **{f"prottune.{name.replace('/', '_')}": f"{value:.4f}" for name, value in wanted.items()},
    }


def _needed(run_id: str, store: Registry) -> str:
    if not run_id:
        raise TrackingError(f"{masked(store.uri)}: no MLflow run to keep the model with; is the server up?")
    return run_id
