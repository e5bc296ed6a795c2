"""The cluster's endpoint: an InferenceService in Standard mode, changed by a rollout that can go back.

The first endpoint of all is deleted again when it does not prove itself: nothing served before, and an
address that nobody has is plainer to who asks it than one whose answers are wrong.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from prottune.cluster.connection import Cluster, connect
from prottune.deployment.contract import check_endpoint
from prottune.deployment.endpoint import Endpoint, is_answering
from prottune.deployment.readiness import wait_until_ready
from prottune.deployment.revision import Revision
from prottune.deployment.rollout import Rollout
from prottune.deployment.settings import DeployConfig
from prottune.errors import DeploymentError, ProttuneError
from prottune.storage import fetch_from_folder

_REACH_SECONDS = 60.0
"""How long an address may take to lead to pods that are ready."""


class KServeDeployment:
    """Serves a model as an InferenceService, in the place of the one that serves now."""

    def __init__(self, cluster: Cluster | None = None) -> None:
        self._cluster = cluster

    @contextmanager
    def endpoint(
        self, folder: Path, model_uri: str, config: DeployConfig, model_version: str
    ) -> Iterator[Endpoint]:
        """Put a model into service; what served before is back when the block fails.

        A model that is there already and has proved itself is only asked again; nothing is written.

        Raises: DeploymentError with the reason and with what serves now; ClusterError if the API server is
            away or another rollout goes on; ConfigError if the cluster refuses for good.
        """
        revision = Revision.of_model(folder, model_uri, config, model_version)
        cluster = self._cluster or connect(config.namespace)
        begun = cluster.now()
        rollout = Rollout(cluster, revision)
        if rollout.is_done():
            url = _reached(cluster, revision, config)
            yield Endpoint(url, cluster.now() - begun, still_running=True)
            return
        with rollout.begun():
            try:
                url = _reached(cluster, revision, config)
                yield Endpoint(url, cluster.now() - begun, still_running=True)
            except ProttuneError as error:
                raise DeploymentError(f"{error}; {_gone_back(cluster, rollout, config)}") from error
            except BaseException:  # interrupted, or a bug: no time to look whether it serves again
                rollout.undo()
                raise


def _reached(cluster: Cluster, revision: Revision, config: DeployConfig) -> str:
    """Wait until a revision serves and its address answers; returns the address."""
    told = wait_until_ready(cluster, revision, config.rollout_seconds)
    url = config.endpoint.rstrip("/") or told
    if not url:
        raise DeploymentError(f"{revision} is ready, but KServe tells no address of it; name one: --endpoint")
    deadline = cluster.now() + _REACH_SECONDS
    with httpx.Client(timeout=5.0, trust_env=False) as client:
        while not is_answering(client, url):
            if cluster.now() >= deadline:
                raise DeploymentError(
                    f"{revision} is ready, but {url} does not answer from here; is there a network policy in "
                    "between, or another port (a headless service)? Name an address that does: --endpoint"
                )
            cluster.sleep(1.0)
    return url


def _gone_back(cluster: Cluster, rollout: Rollout, config: DeployConfig) -> str:
    """Undo a rollout, look whether what served before serves again, and say so."""
    try:
        if not rollout.undo():
            return "somebody else has put another revision there, which was left alone"
    except ProttuneError as error:
        return (
            f"it is still there, because it could not be undone ({error}); deploying again goes on from here"
        )
    if (stable := rollout.stable) is None:
        return "nothing served before, so the InferenceService was deleted"
    try:
        url = _reached(cluster, stable, config)
        if not stable.version:
            return f"{stable} is back and ready; its answers were not looked at"
        difference = check_endpoint(url, _golden(stable.model_uri), config, stable.version)
    except ProttuneError as error:
        return f"{stable} was put back, but does not serve as it should: {error}"
    return f"{stable} serves again (golden answers given, largest difference {difference:.2g})"


def _golden(model_uri: str) -> list[dict[str, object]]:
    from prottune.model.golden import GOLDEN_FILE, read_golden

    with tempfile.TemporaryDirectory(prefix="prottune-golden-") as scratch:
        return read_golden(fetch_from_folder(model_uri, GOLDEN_FILE, Path(scratch)).parent)
