"""When rank 0 keeps a checkpoint, and the thread that writes it while training goes on."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from typing import Protocol

from safetensors import SafetensorError

from prottune.errors import ConfigError, StorageError
from prottune.training.checkpoints import Checkpoints
from prottune.training.snapshots import Place, Snapshot
from prottune.training.stopping import Stop, Stopped

_log = logging.getLogger(__name__)


class Keeper(Protocol):
    """Whom the loop tells that it stands at a border between two steps, where nothing is half done."""

    def at_border(self, place: Place, take: Callable[[], Snapshot]) -> None:
        """Keep this moment if it is time for that; `take` copies it."""

    def at_end(self, place: Place, take: Callable[[], Snapshot]) -> None:
        """Keep the last moment of the run, and wait until it is kept."""

    def resumed(self, name: str, place: Place) -> None:
        """Hear which moment is kept already: that of the checkpoint the run goes on from."""


class NoKeeper:
    """Keeps nothing: for runs without checkpoints, and for all ranks but the first."""

    def at_border(self, place: Place, take: Callable[[], Snapshot]) -> None: ...

    def at_end(self, place: Place, take: Callable[[], Snapshot]) -> None: ...

    def resumed(self, name: str, place: Place) -> None: ...


NOBODY = NoKeeper()


class CheckpointKeeper:
    """Keeps a moment every so many steps and when the run is asked to end; one is written at a time."""

    def __init__(self, checkpoints: Checkpoints, stop: Stop, world_size: int) -> None:
        self._checkpoints, self._stop = checkpoints, stop
        self._facts = {"torch": version("torch"), "processes": world_size}
        self._kept = Place()
        """The moment kept last; a run that has not begun needs no keeping."""
        self._newest = "none"
        self._writing: threading.Thread | None = None
        self._error: Exception | None = None

    def resumed(self, name: str, place: Place) -> None:
        self._newest, self._kept = name, replace(place)

    def at_border(self, place: Place, take: Callable[[], Snapshot]) -> None:
        """Keep this moment if enough steps went by; at a request to end, keep it, wait, and end.

        A checkpoint that is due while the one before is being written waits for the first border after.

        Raises: Stopped; StorageError if the checkpoint before this one could not be written.
        """
        if self._stop.asked():
            self.at_end(place, take)
            raise Stopped(f"stopped after step {place.step}, which is kept")
        if self._writing is not None and self._writing.is_alive():
            return
        self.wait()
        if place.step - self._kept.step >= self._checkpoints.config.checkpoint_every:
            self._start(place, take)

    def at_end(self, place: Place, take: Callable[[], Snapshot]) -> None:
        self.wait()
        if place != self._kept:
            self._start(place, take)
            self.wait()

    def wait(self) -> None:
        """Wait until nothing is being written.

        Raises: StorageError if it could not be written.
        """
        if self._writing is not None:
            self._writing.join()
            self._writing = None
        if self._error is not None:
            raise self._error

    @contextmanager
    def finishing(self) -> Iterator[None]:
        """However the block ends, what is being written is written to its end."""
        try:
            yield
        except BaseException:
            try:
                self.wait()
            except Exception as error:  # the first error is the one to tell
                _log.warning("%s", error)
            raise
        self.wait()

    def _start(self, place: Place, take: Callable[[], Snapshot]) -> None:
        self._kept = replace(place)
        self._writing = threading.Thread(target=self._write, args=(take(),), name="checkpoint", daemon=True)
        self._writing.start()

    def _write(self, snapshot: Snapshot) -> None:
        step = snapshot.place.step
        try:
            self._newest = self._checkpoints.write(step, self._facts, snapshot.write)
        except (OSError, SafetensorError, StorageError, ConfigError) as error:
            self._error = StorageError(
                f"{self._checkpoints.place}: the checkpoint of step {step} could not be written ({error}); "
                f"the newest whole one is {self._newest}: see to the place and start again"
            )
        except Exception as error:  # a bug: the training thread raises it
            self._error = error
        else:
            self._prune()

    def _prune(self) -> None:
        """Remove what is older; a place that lets nobody look or delete keeps too much, and loses nothing."""
        try:
            self._checkpoints.prune()
        except (OSError, StorageError, ConfigError) as error:
            _log.warning("%s: older checkpoints stay there (%s)", self._checkpoints.place, error)
