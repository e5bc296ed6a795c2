"""The registered model `prottune` in MLflow, in the few words that registration needs."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from prottune.cache import cache_folder
from prottune.cluster.connection import connect, in_cluster
from prottune.cluster.lease import held
from prottune.errors import TrackingError
from prottune.tracking.mlflow_store import EXPERIMENT, masked, mlflow_client, one_line, sqlite_file

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

MODEL_NAME = "prottune"
"""Name of the registered model."""

Alias = Literal["challenger", "champion", "previous"]

PROMOTION_LEASE = "prottune-promotion"
_LOCK_SECONDS = 60.0
_LONGEST_DESCRIPTION = 5000
"""Characters that MLflow's column holds."""


class Registry:
    """The registered model `prottune` in MLflow, in the few words that prottune needs."""

    def __init__(self, uri: str, lock: Callable[[], AbstractContextManager[object]]) -> None:
        self.uri = uri
        self.lock = lock
        """Keeps every other promotion out for the length of a `with` block."""
        self._client = mlflow_client(uri)

    def version(self, version: str) -> ModelVersion | None:
        """One version; None if it does not exist, or is no number."""
        if not version.isdecimal():
            return None
        return self._find(lambda: self._client.get_model_version(MODEL_NAME, version))

    def version_with_alias(self, alias: Alias) -> ModelVersion | None:
        """The version that carries an alias; None if there is no such alias or no model yet."""
        return self._find(lambda: self._client.get_model_version_by_alias(MODEL_NAME, alias))

    def versions_with_tags(self, tags: Mapping[str, str]) -> list[ModelVersion]:
        """All versions that carry all these tags, the oldest first."""
        query = f"name = '{MODEL_NAME}' and {_carries(tags)}"
        with self._told():
            return list(self._client.search_model_versions(query, order_by=["version_number ASC"]))

    def has_run_with_tags(self, tags: Mapping[str, str]) -> bool:
        """Whether a run of the experiment carries all these tags; one that was deleted does not count."""
        with self._told():
            ids = self._experiment_ids()
            return bool(ids) and bool(self._client.search_runs(ids, _carries(tags), max_results=1))

    def create_version(self, source: str, run_id: str, tags: Mapping[str, str]) -> ModelVersion:
        """Add a version, and the registered model itself if this is its first one.

        Version and tags are written in one transaction: none of them is ever there without the others.
        """
        from mlflow.exceptions import MlflowException

        with self._told():
            try:
                self._client.create_registered_model(MODEL_NAME)
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            return self._client.create_model_version(MODEL_NAME, source, run_id or None, tags=dict(tags))

    def delete_unused(self, version: str) -> None:
        """Take a version out of the registry, unless it is gone already or carries an alias."""
        found = self.version(version)
        if found is None or found.aliases:
            return
        self._find(lambda: self._client.delete_model_version(MODEL_NAME, version))

    def set_alias(self, alias: Alias, version: str) -> None:
        with self._told():
            self._client.set_registered_model_alias(MODEL_NAME, alias, version)

    def remove_alias(self, alias: Alias) -> None:
        with self._told():
            self._client.delete_registered_model_alias(MODEL_NAME, alias)

    def tag(self, version: str, name: str, value: str) -> None:
        with self._told():
            self._client.set_model_version_tag(MODEL_NAME, version, name, value)

    def untag(self, version: str, name: str) -> None:
        with self._told():
            self._client.delete_model_version_tag(MODEL_NAME, version, name)

    def describe(self, version: ModelVersion, text: str) -> None:
        """Show a text with a version, cut to what MLflow takes, and keep the whole with the version's run."""
        with self._told():
            if version.run_id:
                self._client.log_text(version.run_id, text, f"register/model-card-{version.version}.md")
            self._client.update_model_version(MODEL_NAME, version.version, text[:_LONGEST_DESCRIPTION])

    def upload(self, model: Path, run_id: str) -> str:
        """Copy a model folder to the server, as an artifact of a run; returns its URI there."""
        with self._told():
            self._client.log_artifacts(run_id, str(model), "model")
            return f"{self._client.get_run(run_id).info.artifact_uri}/model"

    def download(self, uri: str, target: Path) -> Path:
        """Fetch a folder that `upload` has copied."""
        from mlflow.artifacts import download_artifacts

        with self._told():
            return Path(download_artifacts(artifact_uri=uri, dst_path=str(target), tracking_uri=self.uri))

    def _experiment_ids(self) -> list[str]:
        """Where the runs of pipelines are: our experiment and, if somebody else made this run, that one's."""
        ours = self._client.get_experiment_by_name(EXPERIMENT)
        found = {str(ours.experiment_id)} if ours else set()
        if own_run := os.environ.get("MLFLOW_RUN_ID"):
            found.add(str(self._client.get_run(own_run).info.experiment_id))
        return sorted(found)

    def _find(self, get: Callable[[], ModelVersion | None]) -> ModelVersion | None:
        """MLflow has two errors for what is not there: one for a missing model, one for a missing alias."""
        from mlflow.exceptions import MlflowException

        with self._told():
            try:
                return get()
            except MlflowException as error:
                missing_model = error.error_code == "RESOURCE_DOES_NOT_EXIST"
                missing_alias = error.error_code == "INVALID_PARAMETER_VALUE" and "alias" in str(error)
                if missing_model or missing_alias:
                    return None
                raise

    @contextmanager
    def _told(self) -> Iterator[None]:
        from mlflow.exceptions import MlflowException

        try:
            yield
        except MlflowException as error:
            raise TrackingError(f"model registry at {masked(self.uri)}: {one_line(error)}") from error


def _carries(tags: Mapping[str, str]) -> str:
    """MLflow's words for: with all these tags."""
    return " and ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())


def registry() -> Registry:
    """The registry at MLFLOW_TRACKING_URI, or in `runs/mlflow.db`.

    All programs of this machine share the lock of a file. A server may have others, so in a cluster all pods
    of the namespace share its lock.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///runs/mlflow.db"
    shared = in_cluster() and sqlite_file(uri) is None
    return Registry(uri, _lease if shared else partial(_file_lock, uri))


def _lease() -> AbstractContextManager[object]:
    return held(connect(), PROMOTION_LEASE, "a promotion")


@contextmanager
def _file_lock(uri: str) -> Iterator[None]:
    """Raises: TrackingError if another promotion holds the lock for a minute."""
    from filelock import FileLock, Timeout

    database = sqlite_file(uri)
    if database:
        path = database.absolute().parent / "promotion.lock"
    else:  # the same for all programs of this machine, whatever folder they are in
        path = cache_folder() / f"promotion-{hashlib.sha256(masked(uri).encode()).hexdigest()[:16]}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(path, timeout=_LOCK_SECONDS):
            yield
    except Timeout as error:
        raise TrackingError(f"{path}: held by another promotion for {_LOCK_SECONDS:.0f} s") from error
