"""How prottune reaches MLflow: a client with short time limits, no telemetry, no secrets in messages."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

EXPERIMENT = "prottune"


def mlflow_client(uri: str) -> MlflowClient:
    """Open MLflow's tracking and registry store at an address, with short time limits and no telemetry."""
    short_and_private = {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # the default blocks a caller for 245 s when the server dies
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
        "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
        "MLFLOW_LOGGING_LEVEL": "WARNING",
    }
    for name, value in short_and_private.items():
        os.environ.setdefault(name, value)
    if (database := sqlite_file(uri)) is not None:
        database.parent.mkdir(parents=True, exist_ok=True)
    from mlflow.tracking import MlflowClient

    logging.getLogger("alembic").setLevel(logging.WARNING)
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def sqlite_file(uri: str) -> Path | None:
    """The database behind `sqlite:///relative` or `sqlite:////absolute`; None for any other address."""
    return Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None


def experiment_id(client: MlflowClient, uri: str) -> str:
    """Find or make the experiment `prottune`; sqlite keeps its artifacts in `mlartifacts` beside the file."""
    from mlflow.exceptions import MlflowException

    if (experiment := client.get_experiment_by_name(EXPERIMENT)) is not None:
        return str(experiment.experiment_id)
    database = sqlite_file(uri)
    place = (database.absolute().parent / "mlartifacts").as_uri() if database else None
    try:
        return str(client.create_experiment(EXPERIMENT, artifact_location=place))
    except MlflowException:  # another process made it just now
        experiment = client.get_experiment_by_name(EXPERIMENT)
        if experiment is None:
            raise
        return str(experiment.experiment_id)


def masked(uri: str) -> str:
    """An address without the user name and password that it may carry."""
    return re.sub(r"//[^/@]*@", "//", uri)


def one_line(error: BaseException) -> str:
    """An error's words in one line, without passwords; its class if it has none."""
    return masked(" ".join(str(error).split())) or type(error).__name__
