"""What MLflow could not take before a step ended waits in a folder until its server is back.

    PROTTUNE_UNSENT    folder or s3:// prefix; unset or empty: `runs/unsent`

A pod's disk ends with the pod, so on a cluster the place is an s3:// prefix. Every step that ends with
something unsent leaves one sealed folder there. The next step that reaches the same server sends what all of
them hold, to the runs that it belongs to; `python -m prottune.tracking.unsent` does so at once. Sending a
folder twice doubles nothing.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from prottune.addresses import local_path
from prottune.artifacts import MANIFEST_FILE, new_folder, read_manifest
from prottune.errors import ConfigError, ProttuneError, TrackingError
from prottune.storage import fetch_folder, list_files, remove_folder, upload_folder
from prottune.tracking.delivery import Parcel, RunWriter, is_refusal, now
from prottune.tracking.mlflow_store import RunAddress, masked, mlflow_client, one_line, open_run

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

PLACE_VARIABLE = "PROTTUNE_UNSENT"
_DEFAULT_PLACE = "runs/unsent"
_STAGE, _FILE = "unsent", "parcels.jsonl"

_log = logging.getLogger(__name__)


def place() -> str:
    """Where unsent parcels wait: a folder or an s3:// prefix."""
    return os.environ.get(PLACE_VARIABLE) or _DEFAULT_PLACE


def keep(address: RunAddress, parcels: Sequence[Parcel]) -> str:
    """Write down what could not be sent; returns where it lies.

    Raises: ProttuneError or OSError if the place cannot be written.
    """
    name = f"{now()}-{uuid4().hex[:8]}"
    known = replace(address, uri=masked(address.uri))  # a password stays in the environment
    lines = [
        json.dumps(asdict(known)),
        *(json.dumps(parcel.as_json(), allow_nan=False) for parcel in parcels),
    ]
    where = local_path(place())
    with tempfile.TemporaryDirectory(prefix="prottune-unsent-") as scratch:
        folder = (where or Path(scratch)) / name
        with new_folder(folder, _STAGE, None) as draft:
            (draft.path / _FILE).write_text("\n".join(lines) + "\n", encoding="utf-8")
        if where is None:
            upload_folder(folder, f"{place()}/{name}")
    return f"{place()}/{name}"


def keep_and_tell(address: RunAddress, parcels: Sequence[Parcel]) -> None:
    """Keep what MLflow could not take, and say in one line how much that is and where it waits."""
    points = f"{sum(len(parcel.numbers) for parcel in parcels):,} points"
    server = masked(address.uri)
    try:
        where = keep(address, parcels)
    except (ProttuneError, OSError) as error:
        _log.warning(
            "MLflow at %s does not answer, and %s cannot wait in %s (%s): it never gets them",
            *(server, points, place(), one_line(error)),
        )
    else:
        _log.warning(
            "MLflow at %s does not answer: %s wait in %s; the next step that reaches it sends them, or "
            "`python -m prottune.tracking.unsent`",
            *(server, points, where),
        )


def send_kept(client: MlflowClient, uri: str) -> int:
    """Send all that waits for one server to the runs that it belongs to; returns how many points that were.

    A folder that cannot be read, or of which MLflow refuses everything, is named and left as it is.

    Raises: whatever MLflow raises when it is away.
    """
    num_sent = 0
    for where in _waiting_folders():
        try:
            address, parcels = _read(where)
        except (ProttuneError, OSError, ValueError, TypeError) as error:
            _log.warning("%s: %s; it is left as it is", where, one_line(error))
            continue
        if address.uri == masked(uri) and _send(client, replace(address, uri=uri), parcels, where):
            num_sent += sum(len(parcel.numbers) for parcel in parcels)
            try:
                remove_folder(where)
            except ProttuneError as error:
                _log.warning("%s; it was sent, and will be again, which doubles nothing", one_line(error))
    return num_sent


def _send(client: MlflowClient, address: RunAddress, parcels: Sequence[Parcel], where: str) -> bool:
    """Write parcels to their run; False if MLflow refused every one."""
    num_refused = 0
    writer: RunWriter | None = None
    for parcel in parcels:
        try:
            writer = writer or RunWriter(client, open_run(client, address))
            writer.write(parcel)
        except Exception as error:
            if not is_refusal(error):
                raise
            num_refused += 1
            if num_refused == 1:
                _log.warning("MLflow at %s, %s: %s", masked(address.uri), where, one_line(error))
    return num_refused < len(parcels)


def _waiting_folders() -> Iterator[str]:
    """Where folders with something unsent lie, oldest first."""
    try:
        if (folder := local_path(place())) is not None and not folder.is_dir():
            return
        found = {name.split("/")[0] for name in list_files(place()) if name.endswith(f"/{MANIFEST_FILE}")}
    except (ProttuneError, OSError) as error:
        _log.warning("%s: %s; nothing is sent from there", place(), one_line(error))
        return
    for name in sorted(found):
        if not name.endswith(".partial"):  # in the making
            yield f"{place()}/{name}"


def _read(where: str) -> tuple[RunAddress, list[Parcel]]:
    with tempfile.TemporaryDirectory(prefix="prottune-unsent-") as scratch:
        folder = fetch_folder(where, Path(scratch) / "unsent")
        read_manifest(folder, _STAGE)
        first, *rest = (folder / _FILE).read_text(encoding="utf-8").splitlines()
    content = json.loads(first)
    address = RunAddress(**content | {"tag": tuple(content["tag"])})
    return address, [Parcel.from_json(json.loads(line)) for line in rest]


def main(words: Sequence[str] = ()) -> int:
    """Send all that waits for the server at MLFLOW_TRACKING_URI; returns the exit code."""
    if words:
        sys.stdout.write(__doc__ or "")
        return 0 if {"-h", "--help"} & set(words) else ConfigError.exit_code
    logging.basicConfig(format="%(message)s", level=logging.WARNING, stream=sys.stderr)
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    if not uri:
        sys.stderr.write("error: MLFLOW_TRACKING_URI is not set; expected the address of the MLflow server\n")
        return ConfigError.exit_code
    try:
        num_sent = send_kept(mlflow_client(uri), uri)
    except Exception as error:  # whatever MLflow raises when it is away
        sys.stderr.write(
            f"error: MLflow at {masked(uri)}: {one_line(error)}; what waits in {place()} stays\n"
        )
        return TrackingError.exit_code
    sys.stdout.write(f"{num_sent:,} points were sent from {place()} to {masked(uri)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
