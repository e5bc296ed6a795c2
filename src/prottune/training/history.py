"""The curve of a training run: one JSON object a line, written by rank 0 and followed by its parent."""

from __future__ import annotations

import json
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import NoReturn, Self

from tqdm import tqdm

HISTORY_FILE = "history.jsonl"
Point = dict[str, float | int]
Receiver = Callable[[Point], None]

_log = logging.getLogger(__name__)


class HistoryWriter:
    """Append points to a file; each is there for readers as soon as `point` returns."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stream = path.open("a", encoding="utf-8")

    def so_far(self) -> bytes:
        """All points that were written."""
        return self._path.read_bytes()

    def go_on_from(self, points: bytes) -> None:
        """Begin with the points of the run that this one goes on from."""
        self._stream.write(points.decode())
        self._stream.flush()

    def point(self, point: Point) -> None:
        self._stream.write(json.dumps(point, allow_nan=False) + "\n")
        self._stream.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()


class NewLines:
    """The whole lines that a growing file got since it was last asked."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = 0

    def read(self) -> list[bytes]:
        if not self._path.exists():
            return []
        with self._path.open("rb") as stream:
            stream.seek(self._read)
            fresh = stream.read()
        whole = fresh[: fresh.rfind(b"\n") + 1]
        self._read += len(whole)
        return whole.splitlines()


class HistoryFollower:
    """Hand each new whole line of a growing history to its receivers, once and in order."""

    def __init__(self, path: Path, *receivers: Receiver) -> None:
        self._lines = NewLines(path)
        self._receivers = receivers

    def catch_up(self) -> None:
        for line in self._lines.read():
            for receive in self._receivers:
                receive(json.loads(line))


@contextmanager
def following(follower: HistoryFollower, every_seconds: float = 0.5) -> Iterator[None]:
    """Follow a history beside the block, in a thread; what is left is handed on when the block ends."""
    ended = threading.Event()

    def follow() -> None:
        while not ended.wait(every_seconds):
            follower.catch_up()

    thread = threading.Thread(target=follow, name="history follower")
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        follower.catch_up()


class Progress:
    """Show points to whoever started the training: a bar on a terminal, a line an epoch elsewhere."""

    def __init__(self, num_steps: int, epochs: int) -> None:
        self._num_steps, self._epochs = num_steps, epochs
        self._bar: tqdm[NoReturn] | None = None

    def __call__(self, point: Point) -> None:
        if self._bar is None:  # not before there is something to show: ranks without points show nothing
            on_terminal = sys.stderr.isatty()
            self._bar = tqdm(total=self._num_steps, unit="step", desc="train", disable=not on_terminal)
        self._bar.update(int(point["step"]) - self._bar.n)
        if "train/loss" in point:
            self._bar.set_postfix(
                loss=f"{point['train/loss']:.3f}", tokens_s=f"{point['train/tokens_per_second']:,.0f}"
            )
        if "validation/loss" in point:
            line = (
                f"epoch {point['epoch']} of {self._epochs}, step {point['step']}: validation loss "
                f"{point['validation/loss']:.4f}, accuracy {point['validation/accuracy']:.4f}"
            )
            if "validation/membrane_accuracy" in point:
                line += f", of the membrane flag {point['validation/membrane_accuracy']:.4f}"
            if self._bar.disable:
                _log.info(line)
            else:
                self._bar.write(line, file=sys.stderr)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
