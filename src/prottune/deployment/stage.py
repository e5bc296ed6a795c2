"""Deployment: a finished model gets an endpoint, and the endpoint must pass the contract test."""

from __future__ import annotations

import tempfile
from pathlib import Path

from prottune.addresses import local_path, s3_uri
from prottune.artifacts import read_manifest
from prottune.cluster.connection import in_cluster
from prottune.deployment.contract import check_endpoint
from prottune.deployment.endpoint import Deployment
from prottune.deployment.kserve import KServeDeployment
from prottune.deployment.local import LocalDeployment
from prottune.deployment.settings import DeployConfig, DeployReport
from prottune.storage import fetch_folder
from prottune.unwinding import sigterm_unwinds


def deploy(model_uri: str, config: DeployConfig, model_version: str) -> DeployReport:
    """Serve a model, ask it its golden sequences, and say how it answered.

    A local endpoint is stopped after the check; in a cluster the model serves from then on, or what served
    before it serves again, also if this program is asked to end (SIGTERM) before the model has proved itself.
    `model_version` is what every answer must carry.

    Raises: ArtifactError if the model is missing or damaged; DeploymentError if its endpoint does not become
        ready or answers otherwise than the model did when it was made; ClusterError if the cluster is away.
    """
    with sigterm_unwinds(), tempfile.TemporaryDirectory(prefix="prottune-deploy-") as scratch:
        folder = fetch_folder(s3_uri(model_uri), Path(scratch) / "model")
        read_manifest(folder, "train")
        from prottune.model.golden import read_golden  # here: a folder that is no model is refused at once

        golden = read_golden(folder)
        with _deployment(config, model_uri).endpoint(folder, model_uri, config, model_version) as endpoint:
            difference = check_endpoint(endpoint.url, golden, config, model_version)
        return DeployReport(
            url=endpoint.url,
            model_version=model_version,
            num_golden=len(golden),
            largest_difference=difference,
            seconds_to_ready=endpoint.seconds_to_ready,
            still_running=endpoint.still_running,
        )


def _deployment(config: DeployConfig, model_uri: str) -> Deployment:
    """Where to serve. `auto` keeps a model of this disk here, in a pod too: KServe could not fetch it."""
    is_in_reach = in_cluster() and local_path(s3_uri(model_uri)) is None
    to_cluster = is_in_reach if config.to == "auto" else config.to == "kserve"
    return KServeDeployment() if to_cluster else LocalDeployment()
