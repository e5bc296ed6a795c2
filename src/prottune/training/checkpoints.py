"""Where one training run keeps its checkpoints: numbered folders below a folder or an s3:// prefix.

    PLACE/step-00000200/    sealed: its manifest is written last and names every file's hash
    PLACE/step-00000400/
    PLACE/refused.json      why the run may not be started again, if it diverged

There is one writer. A name is never used twice: what was left half-written or damaged keeps its own, and the
same step is kept again as `step-00000400-2`. Order comes from the numbers, never from a clock.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

from prottune.addresses import local_path
from prottune.artifacts import MANIFEST_FILE, Manifest, new_folder, read_manifest
from prottune.errors import ArtifactError, ConfigError, DivergedError, StorageError
from prottune.storage import fetch_file, fetch_folder, list_files, list_unfinished, remove_folder, upload_file
from prottune.storage import upload_folder as upload
from prottune.training.settings import TrainConfig

STAGE = "checkpoint"
REFUSED_FILE = "refused.json"
DECIDES_NOTHING = (
    *("num_processes", "num_nodes", "node_gpus", "rank_timeout_seconds"),
    *("checkpoint_every", "keep_checkpoints"),
    *("tokens_per_pass", "gradient_checkpointing", "cache_features"),  # memory against time
    *("base_model", "base_revision"),  # its digest decides, not where it was found
    "confident_accuracy",  # read when the last step is done
)
"""Settings that may differ when a run is resumed: they say how it runs, not which steps it takes."""

_MAX_REFUSAL_BYTES = 1 << 20
_UNFINISHED = ".partial"

_log = logging.getLogger(__name__)


def place_of_run(place: str) -> str:
    """The place of this pipeline run below the one that all runs share, so that a retry finds its own."""
    run = os.environ.get("PROTTUNE_PIPELINE_RUN", "")
    return f"{place.rstrip('/')}/{run}" if place and run else place


@dataclass(frozen=True, order=True)
class Name:
    """A checkpoint's name: the step it was taken after, and how often that step was kept."""

    step: int
    attempt: int = 1

    def __str__(self) -> str:
        return f"step-{self.step:08d}" + (f"-{self.attempt}" if self.attempt > 1 else "")

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """The name that a folder has; None for a folder that is no checkpoint."""
        found = re.fullmatch(r"step-(\d{8,})(?:-(\d+))?", text)
        return cls(int(found[1]), int(found[2] or 1)) if found else None


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one run."""

    place: str
    """Folder or s3:// prefix that belongs to this run alone."""
    config: TrainConfig
    inputs: Mapping[str, str]
    """Digests of what the run learns from and starts from."""
    scratch: str
    """Folder on this machine for what comes from or goes to a store."""
    refused: tuple[str, ...] = ()
    """Names that were found damaged: they do not count among those that are kept."""

    @property
    def run(self) -> str:
        """SHA-256 over what decides the run's numbers: settings and inputs."""
        content = json.dumps([self._deciding(asdict(self.config)), dict(self.inputs)], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()

    def newest(self) -> tuple[Path | None, Self]:
        """Find the newest checkpoint that is whole, here or brought here; None if none was ever finished.

        Damaged and unfinished ones are named in the log; the second result remembers them.

        Raises: ArtifactError if there are finished ones, but none is whole; ConfigError if it is of another
            run; StorageError when the store refuses or vanishes.
        """
        reasons: dict[str, str] = {}
        folders = self._folders()
        for name in sorted(folders, reverse=True):
            if MANIFEST_FILE not in folders[name]:
                _log.warning("checkpoint %s was never finished (no %s): passed over", name, MANIFEST_FILE)
                continue
            try:
                folder = self.fetch(str(name))
                manifest = read_manifest(folder, STAGE)
            except ArtifactError as error:
                reasons[str(name)] = str(error)
                _log.warning("checkpoint %s refused: %s; looking at the one before it", name, error)
                continue
            self._check_run(folder, manifest)
            return folder, replace(self, refused=tuple(reasons))
        if reasons:
            raise ArtifactError(
                f"{self.place}: none of its {len(reasons)} finished checkpoints is whole ("
                + "; ".join(list(reasons.values())[:5])
                + "); restore one, or name another --checkpoints to start from the beginning"
            )
        return None, self

    def fetch(self, name: str) -> Path:
        """Bring a checkpoint to this machine, if it is not here.

        Raises: ArtifactError if it is damaged; StorageError when the store refuses or vanishes.
        """
        return fetch_folder(self._uri(name), Path(self.scratch) / name)

    def write(self, step: int, facts: Mapping[str, Any], fill: Callable[[Path], None]) -> str:
        """Keep a checkpoint that `fill` writes into a folder; returns its name.

        Raises: OSError if this machine's disk is full; StorageError when the store refuses or vanishes.
        """
        refused = {name for name in map(Name.parse, self.refused) if name is not None}
        taken = [name.attempt for name in self._folders().keys() | refused if name.step == step]
        name = str(Name(step, max(taken, default=0) + 1))
        here = local_path(self.place)
        folder = (here or Path(self.scratch)) / name
        with new_folder(folder, STAGE, self.config, self.inputs) as draft:
            fill(draft.path)
            draft.facts.update(facts, run=self.run, step=step)
        if here is None:
            try:
                upload(folder, self._uri(name))
            finally:
                shutil.rmtree(folder)
        return name

    def prune(self) -> None:
        """Remove all but the newest whole checkpoints, and what was left unfinished or damaged."""
        folders = self._folders()
        whole = [n for n in sorted(folders) if MANIFEST_FILE in folders[n] and str(n) not in self.refused]
        kept = {str(name) for name in whole[-self.config.keep_checkpoints :]}
        broken = {file.partition("/")[0] for file in list_unfinished(self.place)}
        found = {str(name) for name in folders} | {name for name in broken if Name.parse(name)}
        for name in sorted(found - kept) + self._left_overs():
            try:
                remove_folder(self._uri(name))
            except StorageError as error:  # a store that lets nobody delete; nothing is lost by it
                _log.warning("checkpoint %s cannot be removed: %s", name, error)

    def refuse(self, error: DivergedError) -> None:
        """Leave word that this run, with these settings, would only diverge again.

        Raises: StorageError when the place refuses or vanishes.
        """
        word = Path(self.scratch) / REFUSED_FILE
        word.write_text(
            json.dumps({"run": self.run, "reason": str(error)}, indent=1) + "\n", encoding="utf-8"
        )
        if (here := local_path(self.place)) is not None:
            here.mkdir(parents=True, exist_ok=True)
        upload_file(word, self._uri(REFUSED_FILE))

    def raise_if_refused(self) -> None:
        """Do not train what diverged before.

        Raises: DivergedError with the reason of then, if settings and inputs are those of then;
            ArtifactError if the word that was left cannot be read.
        """
        if REFUSED_FILE not in self._files():
            return
        uri = self._uri(REFUSED_FILE)
        path = fetch_file(uri, Path(self.scratch) / f"earlier-{REFUSED_FILE}", _MAX_REFUSAL_BYTES)
        try:
            word = json.loads(path.read_bytes())
            run, reason = word["run"], word["reason"]
        except (ValueError, KeyError, TypeError) as error:
            raise ArtifactError(f"{uri}: cannot be read ({error!r}); remove it to train again") from error
        if run == self.run:
            raise DivergedError(
                f"{reason} (an earlier start with the same settings left word of it in {uri})"
            )

    def _check_run(self, folder: Path, manifest: Manifest) -> None:
        """Refuse a checkpoint of other settings or inputs; a setting unknown to it had its default."""
        known_then = asdict(TrainConfig()) | manifest.settings
        now = self._deciding(asdict(self.config)) | dict(self.inputs)
        then = self._deciding(known_then) | manifest.inputs
        names = sorted(name for name in now.keys() | then.keys() if now.get(name) != then.get(name))
        if names:
            changes = ", ".join(f"{name} was {then.get(name)}, now {now.get(name)}" for name in names[:5])
            raise ConfigError(
                f"{self.place}: {folder.name} is a checkpoint of another run ({changes}); "
                "name another --checkpoints, or start with the settings of then"
            )

    @staticmethod
    def _deciding(settings: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in settings.items() if name not in DECIDES_NOTHING}

    def _folders(self) -> dict[Name, set[str]]:
        """Names of all checkpoints, finished or not, and of the files in each."""
        found: dict[Name, set[str]] = {}
        for file in self._files():
            folder, _, rest = file.partition("/")
            if rest and (name := Name.parse(folder)):
                found.setdefault(name, set()).add(rest)
        return found

    def _left_overs(self) -> list[str]:
        folders = {file.partition("/")[0] for file in self._files()}
        return sorted(
            name
            for name in folders
            if name.endswith(_UNFINISHED) and Name.parse(name.removesuffix(_UNFINISHED))
        )

    def _files(self) -> list[str]:
        here = local_path(self.place)
        return [] if here is not None and not here.is_dir() else list_files(self.place)

    def _uri(self, name: str) -> str:
        return f"{self.place.rstrip('/')}/{name}"
