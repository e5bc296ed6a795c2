"""A thread that brings a stage's notes to MLflow, so that a server that is away costs the stage nothing.

The stage hands over parcels and goes on at once. The thread sends them in order, and when MLflow does not
answer it tries again, at first every second, later every half minute, until the stage ends. What is then
still here is given back (`Delivery.close`).

Nothing arrives twice. A parcel whose answer was lost may have been written all the same, so before it is sent
again the run is asked which of its numbers it has. A number is the same if key, step and value are. Numbers
keep the time at which they were noted: with the same time, MLflow's database refuses a double by itself, even
when the lost call is written after the question.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import monotonic, time
from typing import TYPE_CHECKING, Any, Self

from prottune.tracking.mlflow_store import RunAddress, masked, mlflow_client, one_line, open_run

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

Measurement = tuple[str, float, int, int]
"""Key, value, when it was noted in milliseconds since 1970, step."""

_NUMBERS_PER_CALL, _WORDS_PER_CALL = 500, 100
"""MLflow takes 1,000 numbers, 100 params and 100 tags in a call."""
_SEND_SECONDS = 5.0
"""Numbers wait so long for others to travel with."""
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 1.0, 30.0
_RUN_ID_SECONDS = 30.0
_REFUSALS = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS")
"""Not BAD_REQUEST: MLflow also says it when it has lost its own database for a moment."""

_log = logging.getLogger(__name__)


def now() -> int:
    """Milliseconds since 1970, as MLflow counts."""
    return int(time() * 1000)


@dataclass
class Parcel:
    """What travels in one call: numbers, params, tags, a file, or the word that the run has ended."""

    numbers: list[Measurement] = field(default_factory=list)
    params: list[tuple[str, str]] = field(default_factory=list)
    tags: list[tuple[str, str]] = field(default_factory=list)
    file: tuple[str, str] | None = None
    """Path of a file or folder here, and the folder it goes to."""
    ended: tuple[str, int] | None = None
    """How the run ended, and when, in milliseconds since 1970."""

    @property
    def can_grow(self) -> bool:
        """Whether this is a call of numbers with room for more."""
        return 0 < len(self.numbers) < _NUMBERS_PER_CALL

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        return cls(**content | {"numbers": [tuple(number) for number in content["numbers"]]})

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def parcels_of_numbers(numbers: list[Measurement]) -> Iterator[Parcel]:
    """Pack numbers, as many as MLflow takes in a call."""
    for start in range(0, len(numbers), _NUMBERS_PER_CALL):
        yield Parcel(numbers=numbers[start : start + _NUMBERS_PER_CALL])


def parcels_of_params(params: list[tuple[str, str]]) -> Iterator[Parcel]:
    """Pack params, as many as MLflow takes in a call."""
    for start in range(0, len(params), _WORDS_PER_CALL):
        yield Parcel(params=params[start : start + _WORDS_PER_CALL])


class RunWriter:
    """Writes parcels to one run, and no number that the run has already."""

    def __init__(self, client: MlflowClient, run_id: str) -> None:
        self._client, self._run_id = client, run_id
        self._keys: set[str] | None = None
        """Keys of which the run has numbers; None: not asked yet."""
        self._present: dict[str, set[tuple[int, float]]] = {}
        """Key -> (step, value) of the numbers that the run had when it was asked."""

    def write(self, parcel: Parcel) -> None:
        """Write what is new in a parcel; raises whatever MLflow raises."""
        try:
            self._write(parcel)
        except Exception:
            self._keys, self._present = None, {}  # the answer may be lost, not the call: ask before the next
            raise

    def _write(self, parcel: Parcel) -> None:
        from mlflow.entities import Metric, Param, RunTag

        metrics = [Metric(*number) for number in parcel.numbers if not self._has(number)]
        params = [Param(*param) for param in parcel.params]
        tags = [RunTag(*tag) for tag in parcel.tags]
        if metrics or params or tags:
            self._client.log_batch(self._run_id, metrics, params, tags)
        if parcel.file:
            place, folder = Path(parcel.file[0]), parcel.file[1]
            send = self._client.log_artifacts if place.is_dir() else self._client.log_artifact
            send(self._run_id, str(place), folder or None)
        if parcel.ended and self._client.get_run(self._run_id).info.status in ("RUNNING", "SCHEDULED"):
            self._client.set_terminated(self._run_id, *parcel.ended)

    def _has(self, number: Measurement) -> bool:
        key, value, _, step = number
        if self._keys is None:
            self._keys = set(self._client.get_run(self._run_id).data.metrics)
        if key not in self._present:
            history = self._client.get_metric_history(self._run_id, key) if key in self._keys else []
            self._present[key] = {(metric.step, metric.value) for metric in history}
        return (step, value) in self._present[key]


def is_refusal(error: Exception) -> bool:
    """Whether asking MLflow again would end the same way; if not, it is away and may come back."""
    from mlflow.exceptions import MlflowException

    if isinstance(error, MlflowException):
        return error.error_code in _REFUSALS
    gone = isinstance(error, FileNotFoundError)  # a file to keep that is no longer there
    return gone or (isinstance(error, TypeError | ValueError) and not isinstance(error, OSError))


class Delivery:
    """Brings parcels to one run of MLflow, from a thread of its own."""

    def __init__(
        self,
        address: RunAddress,
        afterwards: Callable[[MlflowClient], object] | None = None,
        connect: Callable[[str], MlflowClient] = mlflow_client,
    ) -> None:
        """`afterwards` is called once in the thread, when MLflow answers and nothing waits."""
        self.num_refused = 0
        """Calls that MLflow understood and refused."""
        self._address, self._afterwards, self._connect = address, afterwards, connect
        self._client: MlflowClient | None = None
        self._writer: RunWriter | None = None
        self._run_id = address.run_id
        self._changed = threading.Condition()  # guards all below
        self._waiting: deque[Parcel] = deque()
        self._on_its_way: Parcel | None = None
        self._num_tries = 0
        self._pause_seconds, self._not_before = 0.0, 0.0
        self._last_sent = monotonic()
        self._in_a_hurry = False
        self._is_away = False
        self._closed = False
        # Opened here: it asks no server yet but imports much, and two threads that import at once can meet
        # half-made modules. If it fails, the thread tries again and tells.
        with suppress(Exception):
            self._client = connect(address.uri)
        threading.Thread(target=self._work, name="MLflow delivery", daemon=True).start()

    @property
    def run_id(self) -> str:
        """The run's id, once MLflow has said it; empty after one more try in vain."""
        with self._changed:
            tries, self._not_before = self._num_tries, 0.0
            self._changed.notify_all()
            self._changed.wait_for(
                lambda: self._run_id or self._closed or self._num_tries > tries, _RUN_ID_SECONDS
            )
            return self._run_id

    def put(self, parcels: Iterable[Parcel]) -> None:
        """Hand over parcels; returns at once."""
        with self._changed:
            slept, had_none = self._waits_for_more(), not self._waiting
            for parcel in () if self._closed else parcels:
                last = self._waiting[-1] if self._waiting else None
                if parcel.can_grow and last and last.can_grow and last is not self._on_its_way:
                    last.numbers += parcel.numbers
                else:
                    self._waiting.append(parcel)
            # Woken only when it has to do something sooner: a thread that wakes takes time from this one.
            if had_none or (slept and not self._waits_for_more()):
                self._changed.notify_all()

    def flush(self, seconds: float) -> None:
        """Send all that waits, trying every second; gives up when nothing has arrived for so many."""
        with self._changed:
            self._in_a_hurry, self._not_before = True, 0.0
            self._changed.notify_all()
            begun = monotonic()
            while self._has_work() and not self._closed:
                left = max(begun, self._last_sent) + seconds - monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            self._in_a_hurry = False

    def close(self, seconds: float) -> list[Parcel]:
        """Flush and end the thread; returns what was not sent."""
        self.flush(seconds)
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            return list(self._waiting)

    def _has_work(self) -> bool:
        return bool(self._writer is None or self._waiting or self._afterwards)

    def _seconds_to_wait(self) -> float | None:
        """How long the thread may sleep; None: until something is handed over."""
        if not self._has_work():
            return None
        may_travel = self._not_before
        if self._writer and self._waits_for_more():
            may_travel = max(may_travel, self._last_sent + _SEND_SECONDS)
        return max(0.0, may_travel - monotonic())

    def _waits_for_more(self) -> bool:
        """Whether only a few numbers wait, for others to travel with."""
        return len(self._waiting) == 1 and self._waiting[0].can_grow and not self._in_a_hurry

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._closed and (seconds := self._seconds_to_wait()) != 0.0:
                    self._changed.wait(seconds)
                if self._closed:
                    return
                self._on_its_way = self._waiting[0] if self._writer and self._waiting else None
            try:
                self._take_a_step()
            except Exception as error:  # whatever MLflow raises, the stage goes on
                self._settle(error, is_refused=is_refusal(error))
            else:
                self._settle(None, is_refused=False)

    def _take_a_step(self) -> None:
        """Open the run; once it is open, send the first parcel; with none left, do what comes afterwards."""
        if self._client is None:
            self._client = self._connect(self._address.uri)
        if self._writer is None:
            self._run_id = open_run(self._client, self._address)
            self._writer = RunWriter(self._client, self._run_id)
        elif self._on_its_way is not None:
            self._writer.write(self._on_its_way)
        elif self._afterwards is not None:
            self._afterwards(self._client)
            self._afterwards = None

    def _settle(self, error: Exception | None, *, is_refused: bool) -> None:
        """Cross off a parcel that arrived or that MLflow will never take; else pause before the next try."""
        self._tell(error, is_refused=is_refused)
        with self._changed:
            self._num_tries += 1
            self._is_away = error is not None and not is_refused
            if self._is_away:
                longer = min(max(2 * self._pause_seconds, _FIRST_PAUSE_SECONDS), _LONGEST_PAUSE_SECONDS)
                self._pause_seconds = _FIRST_PAUSE_SECONDS if self._in_a_hurry else longer
                self._not_before = monotonic() + self._pause_seconds
            else:
                self._pause_seconds, self._not_before, self._last_sent = 0.0, 0.0, monotonic()
                if self._on_its_way is not None:
                    self._waiting.popleft()
                elif is_refused and self._writer is None:  # there is no run to write to, and never will be
                    self._waiting.clear()
                    self._closed = True
                elif is_refused:
                    self._afterwards = None
            self._on_its_way = None
            self._changed.notify_all()

    def _tell(self, error: Exception | None, *, is_refused: bool) -> None:
        """Say once that MLflow is away, once that it is back, and the first of its refusals."""
        where = masked(self._address.uri)
        if is_refused and error is not None:
            self.num_refused += 1
            if self.num_refused == 1:
                _log.warning("MLflow at %s: %s; the stage goes on without it", where, one_line(error))
        elif error is not None and not self._is_away:
            _log.warning("MLflow at %s: %s; what is noted waits until it answers", where, one_line(error))
        elif error is None and self._is_away:
            _log.info("MLflow at %s answers again", where)
