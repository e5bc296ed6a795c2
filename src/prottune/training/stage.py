"""Train: tokens and a base model in, a finished model folder out."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from prottune.alphabet import ALPHABET_SHA256
from prottune.artifacts import Draft, Manifest, new_folder, read_manifest
from prottune.errors import ArtifactError, ConfigError
from prottune.records import Split
from prottune.training.batching import count_steps
from prottune.training.examples import Examples, check_membrane_flags, read_examples
from prottune.training.history import HISTORY_FILE, HistoryFollower, Progress, Receiver, following
from prottune.training.job import Job, read_report
from prottune.training.processes import launched_by_torchrun, run_ranks
from prottune.training.settings import TrainConfig, TrainReport
from prottune.training.words import Listener


def train(tokens: Path, model: Path, config: TrainConfig, on_point: Receiver | None = None) -> TrainReport:
    """Fine-tune a base model on the training proteins and keep the weights that did best on validation.

    Starts `config.num_processes` ranks and hands `on_point` each line of `history.jsonl` while they write
    it. Under torchrun it starts none: it is one of the ranks, and only rank 0 writes and hands on.

    Raises: ConfigError for settings that do not fit together or this machine; ArtifactError for a damaged
        or foreign token folder; DataError if a protein does not fit into the base model; DivergedError if
        a loss or gradient is not finite.
    """
    if config.num_nodes > 1:
        raise ConfigError(
            f"num_nodes={config.num_nodes}: multi-node training needs the cluster launcher, which is not "
            "there yet; expected 1"
        )
    manifest = read_manifest(tokens, "tokenize")
    train_set = _check_tokens(tokens, manifest)
    check_membrane_flags(tokens, train_set, config)
    num_steps = count_steps(train_set.num_tokens_N, config.tokens_per_batch, config.epochs)
    run = _train_as_one_of_many if launched_by_torchrun(os.environ) else _train_in_new_processes
    with (
        tempfile.TemporaryDirectory(prefix="prottune-train-") as scratch,
        Progress(num_steps, config.epochs) as progress,
    ):
        receivers = (progress, on_point) if on_point else (progress,)
        return run(_Order(tokens, manifest, model, config), receivers, Path(scratch))


@dataclass(frozen=True)
class _Order:
    """What `train` was asked for, checked."""

    tokens: Path
    manifest: Manifest
    model: Path
    config: TrainConfig

    def new_model_folder(self) -> AbstractContextManager[Draft]:
        return new_folder(self.model, "train", self.config, {"tokens": self.manifest.digest})

    def finished(self, report: TrainReport) -> TrainReport:
        return replace(report, model_digest=read_manifest(self.model, "train").digest)


def _train_in_new_processes(order: _Order, receivers: Sequence[Receiver], scratch: Path) -> TrainReport:
    """Start the ranks, follow what they write, and wait for them."""
    with order.new_model_folder() as draft:
        _new_job(order, draft, scratch).write(scratch)
        followers = (Listener(scratch), HistoryFollower(draft.path / HISTORY_FILE, *receivers))

        def catch_up() -> None:
            for follower in followers:
                follower.catch_up()

        run_ranks(scratch, order.config.num_processes, catch_up)
        report = read_report(scratch)
    return order.finished(report)


def _train_as_one_of_many(order: _Order, receivers: Sequence[Receiver], scratch: Path) -> TrainReport:
    """Be one of the ranks that somebody's torchrun started; all of them return the same report."""
    from prottune.training.ranks import joined
    from prottune.training.worker import run_rank

    with joined() as ranks:
        if not ranks.leads:
            run_rank(_new_job(order, Draft(Path()), scratch), ranks)
            return TrainReport(**json.loads(ranks.tell("")))
        with order.new_model_folder() as draft:
            job = _new_job(order, draft, scratch)
            with following(HistoryFollower(draft.path / HISTORY_FILE, *receivers)):
                report = run_rank(job, ranks)
        assert report is not None, "rank 0 reports"
        return TrainReport(**json.loads(ranks.tell(json.dumps(asdict(order.finished(report))))))


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
    draft.inputs["base_model"] = base.facts.digest
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
    )
