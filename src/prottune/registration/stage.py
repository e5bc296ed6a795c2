"""A model becomes a version of the registered model, exactly once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from prottune.addresses import local_path, s3_uri
from prottune.errors import TrackingError
from prottune.registration.provenance import (
    ARTIFACT_TAG,
    COMPARED_WITH_TAG,
    MODEL_DIGEST_TAG,
    SETTINGS_DIGEST_TAG,
    VersionFacts,
)
from prottune.registration.registry import Registry, registry
from prottune.tracking.mlflow_store import PIPELINE_RUN_TAG, masked
from prottune.tracking.step import open_tracker

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion


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
    if not created:  # it may have been judged again since, and a promotion asks what the gate said last
        _judge(store, found, facts.judgement)
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


def _judge(store: Registry, found: ModelVersion, judgement: dict[str, str]) -> None:
    for name, value in judgement.items():
        if value and found.tags.get(name) != value:
            store.tag(str(found.version), name, value)
        elif not value and name in found.tags:
            store.untag(str(found.version), name)


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


def _needed(run_id: str, store: Registry) -> str:
    if not run_id:
        raise TrackingError(f"{masked(store.uri)}: no MLflow run to keep the model with; is the server up?")
    return run_id
