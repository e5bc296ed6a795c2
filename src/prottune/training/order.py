"""What a training over several nodes is told, and where in the object store its nodes and its step meet.

CHECKPOINTS/launch/tokens/              the step puts them there, every process fetches and checks them
CHECKPOINTS/launch/failure-000001.json  what ended the process of rank 1, if something did
CHECKPOINTS/launch/model/               rank 0 puts it there, its manifest last
CHECKPOINTS/launch/report.json          then how the training went
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Self

from prottune.addresses import local_path, s3_uri
from prottune.artifacts import check_vacant, read_manifest
from prottune.errors import ArtifactError, ConfigError
from prottune.storage import fetch_file, fetch_folder, list_files, remove_folder, upload_file
from prottune.storage import upload_folder as upload
from prottune.training.job import (
    FAILURES,
    REPORT_FILE,
    read_failure,
    read_report,
    write_failure,
    write_report,
)
from prottune.training.settings import TrainConfig, TrainReport

ORDER_VARIABLE = "PROTTUNE_ORDER"
"""Environment variable of a node that holds its order."""
POINT_MARK = "point "
"""How a line of rank 0's log begins that holds a point of the history."""

_PLACE = "launch"
_MAX_WORD_BYTES = 1 << 20


def check_nodes(config: TrainConfig, checkpoints: str, step_gpus: int = 0) -> None:
    """Refuse what would keep several nodes from training together; one node is asked nothing.

    `step_gpus` are the GPUs of the step's own pod. Who submits asks before anything is sent, the step before
    anything is made.

    Raises: ConfigError if the nodes could not reach the checkpoints or the base model, or if the step would
        hold GPUs while it waits for them.
    """
    if config.num_nodes == 1:
        return
    told = f"num_nodes={config.num_nodes}"
    if not s3_uri(checkpoints).startswith("s3://"):
        raise ConfigError(
            f"{told}: checkpoints={checkpoints!r}, expected an s3:// prefix; nodes have no folder in common"
        )
    folder = local_path(config.base_model)
    if folder is not None and folder.expanduser().is_dir():
        raise ConfigError(
            f"{told}: base_model={config.base_model!r} is a folder of this machine; put it where the nodes "
            "can fetch it, and name its s3:// prefix"
        )
    if step_gpus:
        raise ConfigError(
            f"{told}: num_gpus={step_gpus}, expected 0; the step's own pod only waits, and GPUs of the nodes "
            "are node_gpus"
        )


@dataclass(frozen=True)
class Order:
    """One training over several nodes, as each of its processes reads it."""

    config: TrainConfig
    checkpoints: str
    """s3:// prefix of this run alone."""
    tokens_digest: str

    @classmethod
    def of(cls, tokens_digest: str, config: TrainConfig, checkpoints: str) -> Self:
        """Raises: ConfigError for what `check_nodes` refuses."""
        check_nodes(config, checkpoints)
        return cls(config, s3_uri(checkpoints).rstrip("/"), tokens_digest)

    @classmethod
    def parse(cls, text: str) -> Self:
        content = json.loads(text)
        return cls(**content | {"config": TrainConfig(**content["config"])})

    @property
    def text(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    def at(self, name: str) -> str:
        """Address of a part of this training in the store."""
        return f"{self.checkpoints}/{_PLACE}/{name}"

    # What the step does.

    def place(self, tokens: Path) -> None:
        """Clear what an earlier launch left, and put the tokens where the nodes fetch them.

        Raises: StorageError when the store refuses or vanishes.
        """
        self.clear()
        upload(tokens, self.at("tokens"))

    def failure(self) -> Exception | None:
        """What ended a process, if one has left word of it.

        Raises: StorageError when the store refuses or vanishes.
        """
        with tempfile.TemporaryDirectory(prefix="prottune-words-") as scratch:
            for name in list_files(self.at("")):
                if fnmatch(name, FAILURES):
                    fetch_file(self.at(name), Path(scratch) / name, _MAX_WORD_BYTES)
            return read_failure(Path(scratch))

    def collect(self, model: Path) -> TrainReport:
        """Bring the model into its folder, checked, and return how the training went.

        Raises: ArtifactError if it is damaged or not what rank 0 has reported; StorageError when the store
            refuses, vanishes, or has none.
        """
        check_vacant(model)
        with tempfile.TemporaryDirectory(prefix="prottune-report-") as scratch:
            fetch_file(self.at(REPORT_FILE), Path(scratch) / REPORT_FILE, _MAX_WORD_BYTES)
            report = read_report(Path(scratch))
        fetch_folder(self.at("model"), model)
        if (found := read_manifest(model, "train").digest) != report.model_digest:
            raise ArtifactError(
                f"{self.at('model')}: digest {found}, but rank 0 has reported {report.model_digest}"
            )
        return report

    def clear(self) -> None:
        """Remove all that was exchanged; the checkpoints stay."""
        remove_folder(f"{self.checkpoints}/{_PLACE}")

    # What a process of a node does.

    def fetch_tokens(self, folder: Path) -> Path:
        """Raises: ArtifactError if they are damaged or others than were ordered; StorageError when the store
        refuses or vanishes."""
        tokens = fetch_folder(self.at("tokens"), folder)
        if (found := read_manifest(tokens, "tokenize").digest) != self.tokens_digest:
            raise ArtifactError(f"{self.at('tokens')}: digest {found}, expected {self.tokens_digest}")
        return tokens

    def deliver(self, model: Path, report: TrainReport) -> None:
        """Raises: StorageError when the store refuses or vanishes."""
        upload(model, self.at("model"))
        with tempfile.TemporaryDirectory(prefix="prottune-report-") as scratch:
            write_report(report, Path(scratch))
            upload_file(Path(scratch) / REPORT_FILE, self.at(REPORT_FILE))

    def leave_word(self, error: Exception, rank: int) -> None:
        """Raises: StorageError when the store refuses or vanishes."""
        with tempfile.TemporaryDirectory(prefix="prottune-words-") as scratch:
            write_failure(error, rank, Path(scratch))
            for path in Path(scratch).glob(FAILURES):
                upload_file(path, self.at(path.name))
