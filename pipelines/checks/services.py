"""Checks of the servers that the environment names: the object store and MLflow, as a step would use them."""

import os
import tempfile
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

from pipelines import manifests
from pipelines.checks.finding import Finding, NotCheckedError, failed, ok, warning
from pipelines.checks.surroundings import Surroundings
from prottune.cluster.objects import CONFIG_MAPS
from prottune.errors import ArtifactError, ConfigError, ProttuneError, StorageError, StoreAwayError
from prottune.s3.calls import patience
from prottune.s3.parts import PART_BYTES
from prottune.storage import fetch_file, list_files, remove_folder, upload_file
from prottune.tracking.mlflow_store import masked, sqlite_file

SMALL_BYTES = 64
LARGE_BYTES = PART_BYTES + 1
STORE_SECONDS = 2.0
"""How long a store that does not answer is asked again; a check has no minutes."""
MLFLOW_SECONDS = 5.0
_REACH = "look at S3_ENDPOINT and S3_SECURE, and at the network in between (docs/operations.md)"


def store(surroundings: Surroundings) -> Finding:
    """Whether the object store can be written, read, listed, written in parts and cleaned up."""
    if not os.environ.get("S3_ENDPOINT"):
        raise NotCheckedError(
            "S3_ENDPOINT is not set here",
            "set S3_ENDPOINT and credentials (docs/data.md), for example to a port-forward of the store",
        )
    root = surroundings.flags.store or manifests.pipeline_root()
    if not root.startswith("s3://"):
        raise ConfigError(f"--store {root}: expected s3://BUCKET/PREFIX")
    place = f"{root.rstrip('/')}/doctor-{uuid4().hex[:12]}"
    with patience(STORE_SECONDS):
        told, advice = _tried(place)
    if told:
        return failed(told, advice)
    return ok(f"{root} at {os.environ['S3_ENDPOINT']}: written, read, listed, written in parts, cleaned up")


def _tried(place: str) -> tuple[str, str]:
    """Try everything below a prefix that is nobody's; returns what went wrong first, if anything did, and
    what to do."""
    step, wrong = "writing", ("", "")
    with tempfile.TemporaryDirectory(prefix="prottune-doctor-") as scratch:
        try:
            _write_and_read(place, "small", SMALL_BYTES, Path(scratch))
            step = "listing"
            if (names := list_files(place)) != ["small"]:
                wrong = (f"listing: {place} holds {names}, though one object was written", _REACH)
            step = "writing in parts"
            _write_and_read(place, "large", LARGE_BYTES, Path(scratch))
        except (ProttuneError, OSError) as error:
            wrong = wrong if wrong[0] else _told(step, error)
    try:
        remove_folder(place)
        if left := list_files(place):
            wrong = wrong if wrong[0] else (f"deleting: {place} still holds {left}", _REACH)
    except ProttuneError as error:
        wrong = wrong if wrong[0] else _told("deleting", error)
    return wrong


def _told(step: str, error: Exception) -> tuple[str, str]:
    """What went wrong, and what the error itself says is to be done."""
    found, _, advice = str(error).partition("; ")
    is_told = advice and not isinstance(error, StoreAwayError)
    return (f"{step}: {found}", advice) if is_told else (f"{step}: {error}", _REACH)


def _write_and_read(place: str, name: str, size: int, scratch: Path) -> None:
    content = os.urandom(size)
    path = scratch / name
    path.write_bytes(content)
    upload_file(path, f"{place}/{name}")
    if fetch_file(f"{place}/{name}", scratch / f"{name}.back", size).read_bytes() != content:
        raise ArtifactError(f"{place}/{name}: came back with other bytes than were written")


def mlflow(surroundings: Surroundings) -> Finding:
    """Whether MLflow answers, also to the host name by which a pod asks it."""
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    if not uri:
        raise NotCheckedError(
            "MLFLOW_TRACKING_URI is not set here",
            "kubectl port-forward service/prottune-mlflow 5000:5000 and MLFLOW_TRACKING_URI=http://localhost:5000",
        )
    if not uri.startswith(("http://", "https://")):
        return _database(uri)
    own, pods = urlsplit(uri).netloc.rpartition("@")[2], _host_for_pods(surroundings)
    for host in dict.fromkeys((own, pods)):
        status, said = _asked(uri, host)
        if status != 200:
            return _refused(f"{masked(uri)} answers {status} to Host {host}", status, said, host)
    return ok(f"{masked(uri)} answers, to Host {pods} as well, the name by which pods ask")


def _database(uri: str) -> Finding:
    database = sqlite_file(uri)
    advice = "a cluster needs an http:// address"
    if database is None:
        return warning(f"{masked(uri)}: neither a server nor sqlite, so it was not looked at", advice)
    state = "is there" if database.is_file() else "will be made by the first run"
    return ok(f"{uri} {state}; runs on this machine only")


def _host_for_pods(surroundings: Surroundings) -> str:
    """Host and port under which pods ask for MLflow: what the cluster's settings say, else our manifests."""
    settings = next(iter(manifests.generated("configMap").items()))
    name, said = settings[0], settings[1]["MLFLOW_TRACKING_URI"]
    try:
        found = surroundings.cluster().get(CONFIG_MAPS, name)
    except ProttuneError:
        found = None
    if found:
        said = found.get("data", {}).get("MLFLOW_TRACKING_URI", said)
    return urlsplit(said).netloc.rpartition("@")[2]


def _asked(uri: str, host: str) -> tuple[int, str]:
    """Status and words of a call that needs MLflow's database; /health answers whatever the host is.

    Raises: StorageError if nobody answers.
    """
    import httpx

    token, user = os.environ.get("MLFLOW_TRACKING_TOKEN"), os.environ.get("MLFLOW_TRACKING_USERNAME")
    headers = {"Host": host} | ({"Authorization": f"Bearer {token}"} if token else {})
    auth = (user, os.environ.get("MLFLOW_TRACKING_PASSWORD", "")) if user and not token else None
    address = f"{uri.rstrip('/')}/api/2.0/mlflow/experiments/search"
    try:
        answer = httpx.post(
            address, json={"max_results": 1}, headers=headers, auth=auth, timeout=MLFLOW_SECONDS
        )
    except httpx.HTTPError as error:
        why = f"{type(error).__name__} ({str(error)[:200]})"
        raise StorageError(
            f"{masked(uri)}: {why}; does MLflow run, and is its port open from here?"
        ) from error
    return answer.status_code, " ".join(answer.text.split())[:200]


def _refused(found: str, status: int, said: str, host: str) -> Finding:
    if status == 403:
        advice = (
            f"give {host} to MLflow's --allowed-hosts (manifests/base/mlflow.yaml); if it is there, an "
            "access policy in between refuses"
        )
        return failed(found, advice)
    if status == 401:
        advice = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
        return failed(found, advice)
    return failed(f"{found}: {masked(said)}", "look into the log of deployment/prottune-mlflow")
