"""What a stage says about itself while it runs: a tracker that writes to MLflow, and its silent twin."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass, replace
from numbers import Real
from pathlib import Path
from typing import Protocol

from prottune.tracking.delivery import (
    Delivery,
    Measurement,
    Parcel,
    now,
    parcels_of_numbers,
    parcels_of_params,
)
from prottune.tracking.mlflow_store import RunAddress
from prottune.tracking.unsent import keep_and_tell, send_kept

_LONGEST_WORD = 6000
_FLUSH_SECONDS = 10.0
"""How long a step that ends waits for MLflow to take anything."""
_FLUSH_SECONDS_WHEN_KILLED = 3.0
"""The same when a signal ends the step: Kubernetes grants 30 seconds, of which the ranks take some."""


_log = logging.getLogger(__name__)


class Tracker(Protocol):
    """What a stage may say about itself while it runs; nobody waits for MLflow to hear it."""

    @property
    def run_id(self) -> str:
        """The MLflow run's id; empty when nothing is tracked or MLflow is away."""

    def settings(self, values: Mapping[str, object]) -> None:
        """Note settings, each once and for good."""

    def point(self, values: Mapping[str, float | int]) -> None:
        """Note one line of a history: numbers at `values["step"]`."""

    def numbers(self, values: Mapping[str, float | int]) -> None:
        """Note final numbers, at step 0."""

    def artifact(self, path: Path, folder: str = "") -> None:
        """Keep a copy of a file or of a folder's content, which must lie there until the step ends."""

    def tags(self, values: Mapping[str, str]) -> None:
        """Set words by which the run is found; they may change."""

    def flush(self) -> None:
        """Wait until all that was noted is sent, or until MLflow has taken nothing for some seconds."""


class SilentTracker:
    """The twin that keeps nothing."""

    run_id = ""

    def settings(self, values: Mapping[str, object]) -> None: ...

    def point(self, values: Mapping[str, float | int]) -> None: ...

    def numbers(self, values: Mapping[str, float | int]) -> None: ...

    def artifact(self, path: Path, folder: str = "") -> None: ...

    def tags(self, values: Mapping[str, str]) -> None: ...

    def flush(self) -> None: ...


class MlflowTracker:
    """Writes to one MLflow run from a thread of its own; a failure is told once and never raised."""

    def __init__(self, address: RunAddress) -> None:
        self._address = address
        self._delivery = Delivery(address, afterwards=lambda client: send_kept(client, address.uri))

    @property
    def run_id(self) -> str:
        return self._delivery.run_id

    @property
    def num_refused(self) -> int:
        """Calls that MLflow understood and refused."""
        return self._delivery.num_refused

    def settings(self, values: Mapping[str, object]) -> None:
        params = [(_key(name), str(value)[:_LONGEST_WORD]) for name, value in values.items()]
        self._delivery.put(parcels_of_params(params))

    def point(self, values: Mapping[str, float | int]) -> None:
        self._put_numbers(values, int(values.get("step", 0)))

    def numbers(self, values: Mapping[str, float | int]) -> None:
        self._put_numbers(values, 0)

    def artifact(self, path: Path, folder: str = "") -> None:
        self._delivery.put([Parcel(file=(str(path.absolute()), folder))])

    def tags(self, values: Mapping[str, str]) -> None:
        self._delivery.put([Parcel(tags=[(name, value[:_LONGEST_WORD]) for name, value in values.items()])])

    def flush(self) -> None:
        self._delivery.flush(_FLUSH_SECONDS)

    def close(self, status: str) -> None:
        """End the step: send what waits, keep what cannot be sent, end a run that is the step's own."""
        if self._address.ends_with_its_step:
            self._delivery.put([Parcel(ended=(status, now()))])
        seconds = _FLUSH_SECONDS_WHEN_KILLED if status == "KILLED" else _FLUSH_SECONDS
        if unsent := self._delivery.close(seconds):
            keep_and_tell(replace(self._address, run_id=self.run_id), unsent)

    def _put_numbers(self, values: Mapping[str, float | int], step: int) -> None:
        noted = now()
        found = numbers({name: value for name, value in values.items() if name != "step"})
        measured: list[Measurement] = [(_key(name), value, noted, step) for name, value in found.items()]
        self._delivery.put(parcels_of_numbers(measured))


def numbers(report: object, prefix: str = "") -> dict[str, float]:
    """Flatten a report's finite numbers into names like `test/accuracy`; words, lists and NaN stay out."""
    if is_dataclass(report) and not isinstance(report, type):
        report = asdict(report)
    if isinstance(report, Mapping):
        parts = [
            numbers(value, f"{prefix}/{name}" if prefix else str(name)) for name, value in report.items()
        ]
        return {name: value for part in parts for name, value in part.items()}
    if isinstance(report, bool) or not isinstance(report, Real) or not math.isfinite(report):
        return {}
    return {prefix: float(report)}


def _key(name: str) -> str:
    """Spell a name with the characters that MLflow allows."""
    return re.sub(r"[^\w\-. /:]", "_", name, flags=re.ASCII)
