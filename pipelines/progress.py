"""What a person sees while a run goes on: one calm line a step, made from kfp's log.

kfp.local prints a line when a step begins and one when it ends; all that a step says stands between them,
indented. Only the shape of those two lines is known here. If kfp changed it the run would go on, silently.
"""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from shutil import get_terminal_size
from time import monotonic
from typing import Any, TextIO

_STAMP = re.compile(r"\d\d:\d\d:\d\d\.\d{3} - [A-Z]+ - ")
_COLOR = re.compile(r"\x1b\[\d+m")
_BEGINS = re.compile(r"Executing task '(?P<step>[\w-]+)'")
_ENDS = re.compile(r"Task '(?P<step>[\w-]+)' finished with status (?P<status>SUCCESS|FAILURE)")
_LOGGED = re.compile(r"\s*\[KFP Executor [^\]]* (?P<level>[A-Z]+)\]: (?P<text>.*)")
_OF_KFP = re.compile(
    r"\s*(Looking for component|Loading KFP|Got executor_input|Wrote executor|-{9}|[{}\[\]\"]|$)"
)
_EPOCH = re.compile(r"epoch \d+ of \d+")
_WIDTH = 11

KEY_NUMBERS = {
    "ingest": ("num_proteins", "splits/train", "splits/validation", "splits/gate", "splits/test"),
    "tokenize": ("num_proteins", "num_tokens", "num_truncated"),
    "train": ("epochs_run", "best_epoch", "validation_accuracy", "tokens_per_second"),
    "evaluate": ("accuracy", "baseline/accuracy", "gate/accuracy", "gate/baseline/accuracy"),
    "deploy": ("num_golden", "largest_difference", "seconds_to_ready"),
    "split": ("num_proteins", "num_residues", "num_skipped"),
    "merge": ("num_proteins", "num_shards", "num_confident"),
}
"""Metrics worth a place in a step's line, where the step has them."""

QUIET = ("finish",)


class Progress:
    """Follows kfp's log line by line; tells begin and end of each step, and keeps what a failed one said."""

    def __init__(
        self, steps: Path, screen: TextIO | None = None, clock: Callable[[], float] = monotonic
    ) -> None:
        self.seconds: dict[str, float] = {}
        """Step -> seconds, of the steps that ended; of one that ran several times, in sum."""
        self.failed = ""
        """Name of the step that failed."""
        self.said: list[str] = []
        """What the running step, or the one that failed, has said."""
        self._steps, self._screen, self._clock = steps, screen or sys.stdout, clock
        self._running: list[tuple[str, float]] = []
        """Steps that run now, and since when; those of a loop run at once."""

    def line(self, text: str) -> None:
        """Take one line of kfp's log."""
        stamp = _STAMP.match(text)
        if stamp is None:
            self._hear(text)
            return
        event = _COLOR.sub("", text[stamp.end() :])
        if begins := _BEGINS.match(event):
            self._begin(begins["step"])
        elif ends := _ENDS.match(event):
            self._end(ends["step"], is_done=ends["status"] == "SUCCESS")

    def tick(self) -> None:
        """On a terminal, show how long the running step has run and the last thing it said."""
        if self._running and self._screen.isatty():
            step, begun = self._running[0]
            last = self.said[-1] if self.said and not self.failed else ""
            shown = f"{step:{_WIDTH}} {self._clock() - begun:7.0f} s  {last}"
            self._rewrite(shown[: get_terminal_size().columns - 1])

    def _hear(self, text: str) -> None:
        logged = _LOGGED.match(text)
        words = logged["text"] if logged else text.removeprefix("    ").rstrip()
        if self.failed or _OF_KFP.match(words):
            return
        self.said.append(words)
        if _EPOCH.match(words):  # training takes minutes to days: its epochs are worth a line each
            self._write(f"{'':{_WIDTH}} {words}")

    def _begin(self, step: str) -> None:
        self._running = [entry for entry in self._running if entry[0] == step]  # only a loop's run at once
        self._running.append((step, self._clock()))
        if self.failed:
            return
        self.said = []
        if self._screen.isatty():
            self.tick()
        elif step not in QUIET:
            self._write(f"{step:{_WIDTH}} begins")

    def _end(self, step: str, *, is_done: bool) -> None:
        now = self._clock()
        begun = next((entry for entry in self._running if entry[0] == step), (step, now))
        self._running = [entry for entry in self._running if entry is not begun]
        seconds = round(now - begun[1], 1)
        self.seconds[step] = round(self.seconds.get(step, 0.0) + seconds, 1)
        if not is_done:
            self.failed = self.failed or step
        if step not in QUIET:
            outcome = key_numbers(self._steps, step) if is_done else "FAILED"
            self._write(f"{step:{_WIDTH}} {seconds:7.1f} s  {outcome}".rstrip())

    def _write(self, text: str) -> None:
        self._screen.write(("\r\x1b[K" if self._screen.isatty() else "") + text + "\n")
        self._screen.flush()

    def _rewrite(self, text: str) -> None:
        self._screen.write(f"\r\x1b[K{text}")
        self._screen.flush()


def key_numbers(steps: Path, step: str) -> str:
    """The few figures of a finished step that a person waits for, in words."""
    outputs = step_outputs(steps, step)
    metrics = outputs["metrics"]
    words = [
        f"{name.replace('num_', '').replace('/', ' ').replace('_', ' ')} {_readable(metrics[name])}"
        for name in KEY_NUMBERS.get(step, ())
        if name in metrics
    ]
    answer = str(outputs["parameters"].get("Output", ""))
    if step == "register" and answer:
        answer = f"version {answer}"
    return ", ".join(([answer] if answer else []) + words)


def step_outputs(steps: Path, step: str) -> dict[str, Any]:
    """What a finished step handed on: `parameters` (name -> value), `metrics`, and its `folder`."""
    found = sorted(steps.glob(f"*/{step}/executor_output.json"))
    if not found:
        return {"parameters": {}, "metrics": {}, "folder": None}
    written = json.loads(found[-1].read_text(encoding="utf-8"))
    artifacts = written.get("artifacts", {}).get("metrics", {}).get("artifacts", [{}])
    return {
        "parameters": written.get("parameterValues", {}),
        "metrics": artifacts[0].get("metadata", {}),
        "folder": found[-1].parent,
    }


def _readable(value: Any) -> str:
    if not isinstance(value, int | float):
        return str(value)
    if float(value).is_integer() or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"
