"""Models become versions of the registered model `prottune`, and three aliases say which is which.

    challenger   the version that is being tried
    champion     the version that serves
    previous     the champion before it, for `rollback`

A version carries as tags what it was made from (digests of data, settings and code), how it scored and what
the gate said, and a model card as its description. docs/registry.md has the rules.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from prottune.errors import ConfigError, TrackingError
from prottune.mlflow_store import PIPELINE_RUN_TAG, masked
from prottune.provenance import (
    ARTIFACT_TAG,
    CODE_DIGEST_TAG,
    COMPARED_WITH_TAG,
    DATASET_DIGEST_TAG,
    DECISION_TAG,
    MODEL_DIGEST_TAG,
    ROLLED_BACK_TAG,
    SETTINGS_DIGEST_TAG,
    VersionFacts,
    code_digest,
)
from prottune.registry import MODEL_NAME, Alias, Registry, registry
from prottune.storage import fetch_folder, local_path, s3_uri
from prottune.tracking import open_tracker

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

FROM_REGISTRY = "registry"
"""Names the champion, where a model's address is asked for."""


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
    compared_with: str = ""
    """The champion's version that the gate compared it with; empty if there was none."""
    card: str = ""
    """The model card, in Markdown."""


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
    with model_folder(champion.uri) as folder:
        yield folder, champion.version


def model_address(model: str) -> tuple[str, str]:
    """Where a model lies that is named by its address or by `registry`, the champion; and its version.

    Of a model that is named by its address no version is known.

    Raises: ConfigError if the registry has no champion.
    """
    if model == FROM_REGISTRY:
        if (champion := find_champion()) is None:
            raise ConfigError(
                f"model={model!r}: the registry {masked(registry().uri)} has no champion; promote a version, "
                "or name a model's folder or s3:// address"
            )
        return champion.uri, champion.version
    folder = local_path(model)
    return (str(folder.absolute()) if folder else s3_uri(model)), ""


@contextmanager
def model_folder(uri: str) -> Iterator[Path]:
    """Yield the model folder behind an address that the registry may have given, fetched if need be."""
    with tempfile.TemporaryDirectory(prefix="prottune-model-") as scratch:
        if uri.startswith(("mlflow-artifacts:", "runs:", "models:")):
            yield registry().download(uri, Path(scratch))
        else:
            yield fetch_folder(uri, Path(scratch) / "model")


def register(model: Path, uri: str, report: Path, run_key: str, settings_digest: str = "") -> RegisterReport:
    """Make a model a version with alias `challenger`, exactly once for each pipeline run and model.

    `uri` is where the pipeline keeps the folder `model`; `run_key` names the pipeline run;
    `settings_digest` is what `is_news` was asked with. Whatever died or was lost on the way, repeating it
    finds the version that is there and does what is left to do.

    Raises: ArtifactError if a folder is damaged or the report is about another model.
    """
    facts = VersionFacts.read(model, report)
    key = {PIPELINE_RUN_TAG: run_key or "by hand", MODEL_DIGEST_TAG: facts.model_digest}
    store, run_id = registry(), open_tracker().run_id
    found, uploaded, created = _first_version(store, key), False, False
    if found is None:
        folder = local_path(uri)
        source = str(folder.absolute()) if folder else s3_uri(uri)
        if uploaded := folder is not None and store.uri.startswith("http"):
            source = store.upload(model, _needed(run_id, store))
        tags = {**facts.tags, SETTINGS_DIGEST_TAG: settings_digest, ARTIFACT_TAG: source}
        own = store.create_version(source, run_id, key | {n: v for n, v in tags.items() if v})
        found = _first_version(store, key) or own
        created = str(found.version) == str(own.version)
    version = str(found.version)
    card = facts.card(found)
    store.describe(found, card)
    store.set_alias("challenger", version)
    return RegisterReport(
        version=version,
        uri=found.source,
        created=created,
        uploaded=uploaded,
        compared_with=facts.tags[COMPARED_WITH_TAG],
        card=card,
    )


def _first_version(store: Registry, key: dict[str, str]) -> ModelVersion | None:
    """The version of this pipeline run and model; None if there is none yet.

    MLflow cannot create a version only if none is there. So two processes that register the same model at
    once (a retry, while the lost pod still runs) both create one, and both look afterwards: the first one
    counts, for both, and any later one is taken out again.
    """
    found = store.versions_with_tags(key)
    for double in found[1:]:
        store.delete_unused(str(double.version))
    return found[0] if found else None


def promote(version: str, compared_with: str, *, overrule: bool = False) -> PromoteReport:
    """Make a version the champion, unless the champion is no longer the one it was compared with.

    `compared_with` is the champion's version that the gate saw, empty if there was none. A version that the
    gate held, or that was rolled back, is promoted only with `overrule`. Repeating a promotion that went
    through changes nothing.

    Raises: ConfigError if there is no such version.
    """
    store = registry()
    with store.lock():
        if (found := store.version(version)) is None:
            raise ConfigError(f"model {MODEL_NAME!r} has no version {version!r}; register it first")
        champion, previous = _version_of(store, "champion"), _version_of(store, "previous")
        if champion == version:
            return PromoteReport(
                promoted=True, reason="it is the champion already", champion=champion, previous=previous
            )
        reason = _against_promotion(version, found.tags, champion, compared_with, overrule=overrule)
        if reason:
            return PromoteReport(promoted=False, reason=reason, champion=champion, previous=previous)
        if champion:
            store.set_alias("previous", champion)  # first: who dies here has lost nothing that serves
        store.set_alias("champion", version)
        if ROLLED_BACK_TAG in found.tags:
            store.untag(version, ROLLED_BACK_TAG)
    reason = f"it takes the place of version {champion}" if champion else "it is the first champion"
    return PromoteReport(promoted=True, reason=reason, champion=version, previous=champion or previous)


def _against_promotion(
    version: str, tags: dict[str, str], champion: str, compared_with: str, *, overrule: bool
) -> str:
    """Why a version stays what it is; empty if nothing speaks against making it the champion."""
    if champion != compared_with:
        return (
            f"the champion is now version {champion or 'none'}, but version {version} was compared with "
            f"{compared_with or 'none'}; evaluate it again"
        )
    if overrule:
        return ""
    if tags.get(DECISION_TAG, "promote") != "promote":
        return f"the gate held version {version}; to promote it nevertheless: --overrule"
    if ROLLED_BACK_TAG in tags:
        return f"version {version} was rolled back; to promote it nevertheless: --overrule"
    return ""


def rollback() -> PromoteReport:
    """Let the previous champion serve again, and mark the one that is rolled back.

    Afterwards there is no `previous`: a second rollback, by a nervous hand or a retry, is refused and does
    not bring the bad model back. One that was interrupted is finished by repeating it.

    Raises: ConfigError if there is no previous champion.
    """
    store = registry()
    with store.lock():
        champion, previous = _version_of(store, "champion"), _version_of(store, "previous")
        if champion and champion == previous:  # an interrupted rollback, or promotion: nothing is before it
            store.remove_alias("previous")
            previous = ""
        if not champion or not previous:
            raise ConfigError(
                f"nothing to roll back to: champion {champion or 'none'}, previous {previous or 'none'}; "
                "nothing was changed"
            )
        store.tag(champion, ROLLED_BACK_TAG, "true")
        store.set_alias("champion", previous)
        store.remove_alias("previous")
    reason = f"version {champion} was rolled back"
    return PromoteReport(promoted=True, reason=reason, champion=previous, previous="")


def is_news(dataset_digest: str, settings_digest: str) -> bool:
    """Whether training again could end elsewhere than at a model that is known.

    False if data, settings and code are the champion's, or those of a model that was rolled back: trained
    again, it would be as bad, and the next scheduled run would undo the rollback.
    """
    champion = find_champion()
    if champion is None:
        return True
    now = {
        DATASET_DIGEST_TAG: dataset_digest,
        SETTINGS_DIGEST_TAG: settings_digest,
        CODE_DIGEST_TAG: code_digest(),
    }
    if all(champion.tags.get(name) == value for name, value in now.items()):
        return False
    return not registry().versions_with_tags(now | {ROLLED_BACK_TAG: "true"})


def _version_of(store: Registry, alias: Alias) -> str:
    found = store.version_with_alias(alias)
    return str(found.version) if found else ""


def _needed(run_id: str, store: Registry) -> str:
    if not run_id:
        raise TrackingError(f"{masked(store.uri)}: no MLflow run to keep the model with; is the server up?")
    return run_id
