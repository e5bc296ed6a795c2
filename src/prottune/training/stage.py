"""Train: tokens and a base model in, a finished model folder out."""

from __future__ import annotations

import json
import logging
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from prottune.addresses import local_path
from prottune.alphabet import ALPHABET_SHA256
from prottune.artifacts import Draft, Manifest, new_folder, read_manifest
from prottune.errors import ArtifactError, ConfigError, DivergedError
from prottune.machine import num_cores
from prottune.records import Split
from prottune.training.batching import count_steps
from prottune.training.checkpoints import Checkpoints
from prottune.training.examples import Examples, check_membrane_flags, read_examples
from prottune.training.history import HISTORY_FILE, HistoryFollower, Progress, Receiver, following
from prottune.training.job import Job, read_report
from prottune.training.launching import train_on_nodes
from prottune.training.order import Order
from prottune.training.processes import launched_by_torchrun, run_ranks
from prottune.training.seen import refuse_base_that_saw_the_exam
from prottune.training.settings import TrainConfig, TrainReport
from prottune.training.stopping import Stop, ending_when_stopped
from prottune.training.words import Listener

_MOST_PROCESSES_A_CORE = 4
"""Above this a number is a slip of the hand, which would bring the machine down."""

_log = logging.getLogger(__name__)


def train(
    tokens: Path,
    model: Path,
    config: TrainConfig,
    on_point: Receiver | None = None,
    checkpoints: str = "",
) -> TrainReport:
    """Fine-tune a base model on the training proteins and keep the weights that did best on validation.

    Starts `config.num_processes` ranks and hands `on_point` each line of `history.jsonl` while they write
    it. Under torchrun it starts none: it is one of the ranks, and only rank 0 writes and hands on. With
    `config.num_nodes` above 1 it has the nodes of a cluster do that.

    `checkpoints` is a folder or s3:// prefix for this run alone: a run that was interrupted, started again
    with the same one, goes on from the newest checkpoint there and hands on the points up to it once more.

    Raises: ConfigError for settings that do not fit together, this machine or the checkpoints there, or for a
        base that has learned from proteins which shall judge the new model;
        ArtifactError for a damaged or foreign token folder, or if no checkpoint there is whole; DataError if
        a protein does not fit into the base model; DivergedError if a loss or gradient is not finite, or was
        not when these settings were tried before; StorageError if a checkpoint cannot be written; of several
        nodes, what `train_on_nodes` raises.
    """
    manifest = read_manifest(tokens, "tokenize")
    train_set = _check_tokens(tokens, manifest)
    check_membrane_flags(tokens, train_set, config)
    if config.num_nodes > 1 and not launched_by_torchrun(os.environ):
        return train_on_nodes(Order.of(manifest.digest, config, checkpoints), tokens, model, on_point)
    num_steps = count_steps(train_set.num_tokens_N, config.tokens_per_batch, config.epochs)
    run = _train_as_one_of_many if launched_by_torchrun(os.environ) else _train_in_new_processes
    with (
        tempfile.TemporaryDirectory(prefix="prottune-train-", ignore_cleanup_errors=True) as scratch,
        Progress(num_steps, config.epochs) as progress,
    ):
        receivers = (progress, on_point) if on_point else (progress,)
        return run(_Order(tokens, manifest, model, config, checkpoints), receivers, Path(scratch))


@dataclass(frozen=True)
class _Order:
    """What `train` was asked for, checked."""

    tokens: Path
    manifest: Manifest
    model: Path
    config: TrainConfig
    checkpoints: str

    @property
    def kept_at(self) -> str:
        """Where checkpoints go, whatever folder a process is in."""
        here = local_path(self.checkpoints)
        return str(here.absolute()) if here else self.checkpoints

    def new_model_folder(self) -> AbstractContextManager[Draft]:
        return new_folder(self.model, "train", self.config, {"tokens": self.manifest.digest})

    def finished(self, report: TrainReport) -> TrainReport:
        return replace(report, model_digest=read_manifest(self.model, "train").digest)


def _train_in_new_processes(order: _Order, receivers: Sequence[Receiver], scratch: Path) -> TrainReport:
    """Start the ranks, follow what they write, and wait for them."""
    _refuse_crowd(order.config.num_processes)
    with order.new_model_folder() as draft:
        job = _resumed(_new_job(order, draft, scratch))
        job.write(scratch)
        followers = (Listener(scratch), HistoryFollower(draft.path / HISTORY_FILE, *receivers))

        def catch_up() -> None:
            for follower in followers:
                follower.catch_up()

        with _refusing_divergence(job):
            run_ranks(scratch, order.config.num_processes, catch_up)
        report = read_report(scratch)
    return order.finished(report)


def _refuse_crowd(num_processes: int) -> None:
    """Raises: ConfigError for more processes than a machine like this one can hold at once."""
    most = max(8, _MOST_PROCESSES_A_CORE * num_cores())
    if num_processes > most:
        raise ConfigError(
            f"num_processes={num_processes}: this machine has {num_cores()} cores; expected at most {most}, "
            "best one a GPU, or one a few cores"
        )


def _train_as_one_of_many(order: _Order, receivers: Sequence[Receiver], scratch: Path) -> TrainReport:
    """Be one of the ranks that somebody's torchrun started; all of them return the same report."""
    from prottune.training.ranks import joined
    from prottune.training.worker import run_rank

    heeding = ending_when_stopped(Stop(scratch)) if order.checkpoints else nullcontext()
    with heeding, joined(order.config.rank_timeout_seconds) as ranks:
        if not ranks.leads:
            job = _new_job(order, Draft(Path()), scratch)
            run_rank(_going_on_from(job, ranks.tell("")), ranks)
            return TrainReport(**json.loads(ranks.tell("")))
        with order.new_model_folder() as draft:
            job = _resumed(_new_job(order, draft, scratch))
            ranks.tell(Path(job.resume_from).name)
            follower = HistoryFollower(draft.path / HISTORY_FILE, *receivers)
            with _refusing_divergence(job), following(follower):
                report = run_rank(job, ranks)
        assert report is not None, "rank 0 reports"
        return TrainReport(**json.loads(ranks.tell(json.dumps(asdict(order.finished(report))))))


def _resumed(job: Job) -> Job:
    """The job, going on from the newest whole checkpoint if there is one.

    Raises: DivergedError if these settings were refused before; what `Checkpoints.newest` raises.
    """
    if job.checkpoints is None:
        return job
    job.checkpoints.raise_if_refused()
    folder, checkpoints = job.checkpoints.newest()
    if folder is None:
        return job
    _log.info("going on from checkpoint %s", folder.name)
    return replace(job, checkpoints=checkpoints, resume_from=str(folder))


def _going_on_from(job: Job, name: str) -> Job:
    """The job, going on from the checkpoint that rank 0 chose."""
    if job.checkpoints is None or not name:
        return job
    return replace(job, resume_from=str(job.checkpoints.fetch(name)))


@contextmanager
def _refusing_divergence(job: Job) -> Iterator[None]:
    """If training diverges, leave word of it beside the checkpoints."""
    try:
        yield
    except DivergedError as error:
        if job.checkpoints is not None:
            job.checkpoints.refuse(error)
        raise


def _check_tokens(tokens: Path, manifest: Manifest) -> Examples:
    """Refuse tokens that cannot be trained on, before any process is started; returns the train split."""
    made_with = manifest.facts.get("alphabet_sha256")
    if made_with != ALPHABET_SHA256:
        raise ArtifactError(
            f"{tokens}: tokenized with alphabet {made_with!r}, expected {ALPHABET_SHA256!r}; "
            "tokenize the records again"
        )
    num_labels = len(manifest.facts["labels"])
    train_set, _ = (read_examples(tokens, split, num_labels) for split in (Split.TRAIN, Split.VALIDATION))
    if len(found := set(train_set.labels_N.tolist())) < 2:
        location = manifest.facts["labels"][found.pop()]
        raise ArtifactError(
            f"{tokens}: all {len(train_set)} training proteins are {location!r}, expected 2 locations or more"
        )
    return train_set


def _new_job(order: _Order, draft: Draft, scratch: Path) -> Job:
    """Bring the base model here and write down what every rank needs to know."""
    from prottune.model.base import find_base

    config, facts = order.config, order.manifest.facts
    base = find_base(config.base_model, config.base_revision, scratch)
    refuse_base_that_saw_the_exam(base.folder, order.tokens, config.base_model)
    draft.inputs["base_model"] = base.facts.digest
    inputs = {"tokens": order.manifest.digest, "base": base.facts.digest, "labels": ",".join(facts["labels"])}
    return Job(
        tokens=str(order.tokens),
        model=str(draft.path),
        config=config,
        base=base,
        dataset_digest=order.manifest.inputs["records"],
        label_set=facts["label_set"],
        labels=tuple(facts["labels"]),
        max_residues=facts["max_residues"],
        cut=facts["cut"],
        checkpoints=Checkpoints(order.kept_at, config, inputs, str(scratch)) if order.checkpoints else None,
    )
