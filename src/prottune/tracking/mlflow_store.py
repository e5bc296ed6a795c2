"""How prottune reaches MLflow and finds its run: short time limits, no telemetry, no secrets in messages."""

from __future__ import annotations

import importlib.util
import logging
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from prottune.errors import ConfigError

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

EXPERIMENT = "prottune"
PIPELINE_RUN_TAG = "prottune.pipeline_run"
STEP_TAG = "prottune.step"
"""Tag of a run that belongs to one step alone: a random word, by which it is found after any failure."""


@dataclass(frozen=True)
class RunAddress:
    """Which MLflow run is meant; it need not exist yet, and its server may be away."""

    uri: str
    run_id: str = ""
    """Known from the start if somebody else made the run."""
    tag: tuple[str, str] = ("", "")
    """Else the run carries this tag: it is found by it, or made with it."""
    begun: int | None = None
    """Start of a run that has to be made, in milliseconds since 1970; None: when it is made."""

    @property
    def ends_with_its_step(self) -> bool:
        """Whether the run belongs to one step alone."""
        return not self.run_id and self.tag[0] == STEP_TAG


def mlflow_client(uri: str) -> MlflowClient:
    """Open MLflow's tracking and registry store at an address, with short time limits and no telemetry.

    Raises: ConfigError for a database where only MLflow's client is installed, as in the images, and for one
        of which no driver is.
    """
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
        if importlib.util.find_spec("sqlalchemy") is None:
            raise ConfigError(
                f"got the database {masked(uri)}, expected a server's address in MLFLOW_TRACKING_URI: only "
                "MLflow's client is installed here"
            )
        database.parent.mkdir(parents=True, exist_ok=True)
    from mlflow.tracking import MlflowClient

    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("urllib3.connectionpool").setLevel(
        logging.ERROR
    )  # a line for every try; ours says it once
    try:
        return MlflowClient(tracking_uri=uri, registry_uri=uri)
    except ImportError as error:
        raise ConfigError(
            f"got {masked(uri)}, expected a server's address or sqlite:///FILE in MLFLOW_TRACKING_URI: "
            f"{error}"
        ) from error


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


def find_run(client: MlflowClient, address: RunAddress) -> str:
    """The id of the run that is meant; empty if it does not exist yet."""
    if address.run_id:
        return address.run_id
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is None:
        return ""
    name, value = address.tag
    found = client.search_runs([experiment.experiment_id], f"tags.`{name}` = '{value}'", max_results=1)
    return str(found[0].info.run_id) if found else ""


def open_run(client: MlflowClient, address: RunAddress) -> str:
    """Find or make the run that is meant; returns its id."""
    if run_id := find_run(client, address):
        return run_id
    name, value = address.tag
    run = client.create_run(
        experiment_id(client, address.uri),
        start_time=address.begun,
        tags={name: value},
        run_name=value if name == PIPELINE_RUN_TAG else None,
    )
    return str(run.info.run_id)


def masked(uri: str) -> str:
    """An address without the user name and password that it may carry."""
    return re.sub(r"//[^/@]*@", "//", uri)


def one_line(error: BaseException) -> str:
    """An error's words in one line, without passwords; its class if it has none."""
    return masked(" ".join(str(error).split())) or type(error).__name__
