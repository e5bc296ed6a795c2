"""What the parent tells its ranks and what they answer: small JSON files in a private folder."""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import psutil

from prottune.errors import ProttuneError, error_named
from prottune.training.checkpoints import Checkpoints
from prottune.training.settings import TrainConfig, TrainReport

if TYPE_CHECKING:
    from prottune.model.base import Base

_JOB_FILE = "job.json"
REPORT_FILE = "report.json"
FAILURES = "failure-*.json"


@dataclass(frozen=True)
class Job:
    """One training run, checked by the parent: what every rank of it needs to know."""

    tokens: str
    """A folder whose manifest was checked."""
    model: str
    """An unfinished folder, written by rank 0 alone."""
    config: TrainConfig
    base: Base
    dataset_digest: str
    label_set: str
    labels: tuple[str, ...]
    max_residues: int
    cut: str
    checkpoints: Checkpoints | None = None
    """Where the run keeps its checkpoints, if anywhere."""
    resume_from: str = ""
    """Folder of the checkpoint that the run goes on from; empty: it begins."""

    def write(self, folder: Path) -> None:
        (folder / _JOB_FILE).write_text(json.dumps(asdict(self), default=str), encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Self:
        from prottune.model.base import Base
        from prottune.model.classifier import BaseFacts

        content: dict[str, Any] = json.loads((folder / _JOB_FILE).read_text(encoding="utf-8"))
        base = content["base"]
        content["base"] = Base(BaseFacts(**base["facts"]), Path(base["folder"]) if base["folder"] else None)
        content["config"] = TrainConfig(**content["config"])
        content["labels"] = tuple(content["labels"])
        if (kept := content["checkpoints"]) is not None:
            config, refused = TrainConfig(**kept["config"]), tuple(kept["refused"])
            content["checkpoints"] = Checkpoints(**{**kept, "config": config, "refused": refused})
        return cls(**content)


def write_report(report: TrainReport, folder: Path) -> None:
    (folder / REPORT_FILE).write_text(json.dumps(asdict(report)), encoding="utf-8")


def read_report(folder: Path) -> TrainReport:
    return TrainReport(**json.loads((folder / REPORT_FILE).read_text(encoding="utf-8")))


def write_failure(error: Exception, rank: int, folder: Path) -> None:
    """Leave word of what ended a rank: our own errors by name, others with their traceback."""
    content = {
        "error": type(error).__name__ if isinstance(error, ProttuneError) else None,
        "message": str(error),
        "traceback": "".join(traceback.format_exception(error)),
    }
    path = folder / f"failure-{rank:06d}.json"
    path.with_suffix(".partial").write_text(json.dumps(content), encoding="utf-8")
    path.with_suffix(".partial").replace(path)  # whoever sees it can read it


@contextmanager
def present(rank: int, folder: Path) -> Iterator[None]:
    """Leave word that a rank lives; the word is gone when the block has ended, however it ended."""
    word = folder / f"rank-{rank:06d}.pid"
    word.with_suffix(".partial").write_text(str(os.getpid()), encoding="utf-8")
    word.with_suffix(".partial").replace(word)
    try:
        yield
    finally:
        word.unlink()


def dead_rank(folder: Path) -> int | None:
    """A rank that died without ending its block: killed from outside, or by a crash of a library."""
    for word in sorted(folder.glob("rank-*.pid")):
        try:
            is_alive = psutil.pid_exists(int(word.read_text(encoding="utf-8")))
        except FileNotFoundError:  # it has ended just now
            continue
        if not is_alive and word.exists():
            return int(word.stem.removeprefix("rank-"))
    return None


def has_failed(folder: Path) -> bool:
    """Whether a rank has left word that it failed."""
    return any(folder.glob(FAILURES))


def read_failure(folder: Path) -> Exception | None:
    """What ended the ranks: a refusal of ours if one of them left word of one, else a bug's traceback."""
    failures = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob(FAILURES))]
    for failure in failures:
        if failure["error"] is not None:
            return error_named(failure["error"])(failure["message"])
    if failures:
        return RuntimeError(f"a training process failed:\n{failures[0]['traceback']}")
    return None
