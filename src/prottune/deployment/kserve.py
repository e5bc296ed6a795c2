"""The cluster's endpoint: an InferenceService. Not there yet."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from prottune.deployment.endpoint import Endpoint
from prottune.deployment.settings import DeployConfig
from prottune.errors import ConfigError


class KServeDeployment:
    """Serves a model as an InferenceService of a cluster."""

    def endpoint(
        self, folder: Path, model_uri: str, config: DeployConfig, model_version: str
    ) -> AbstractContextManager[Endpoint]:
        """Raises: ConfigError; this version of prottune deploys on this machine only."""
        raise ConfigError("to='kserve': this version cannot deploy to a cluster yet; take to=local")
