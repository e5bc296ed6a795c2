"""What one rank of a training run does; its parent starts `python -m prottune.training.worker FOLDER`."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch

from prottune.alphabet import NUM_SPECIAL_TOKENS
from prottune.errors import ConfigError, DataError, ProttuneError
from prottune.model.base import build_model
from prottune.model.classifier import LocationModel
from prottune.model.precision import choose_precision
from prottune.records import Split, read_tokens
from prottune.training.adaptation import adapt, adaptation_facts
from prottune.training.examples import Examples, read_examples
from prottune.training.features import with_features
from prottune.training.finishing import write_model
from prottune.training.history import HISTORY_FILE, HistoryWriter
from prottune.training.job import Job, present, write_failure, write_report
from prottune.training.keeping import NOBODY, CheckpointKeeper, Keeper
from prottune.training.loop import Loop
from prottune.training.ranks import Ranks, joined
from prottune.training.settings import TrainReport
from prottune.training.snapshots import Outcome, Snapshot
from prottune.training.stopping import STOPPED_EXIT_CODE, Stop, Stopped
from prottune.training.words import speak_into

_CPU_OUT_OF_MEMORY = "DefaultCPUAllocator: can't allocate memory"
"""What torch says of a processor's, in a RuntimeError without a class of its own."""


def run_rank(job: Job, ranks: Ranks) -> TrainReport | None:
    """Train as one of the ranks; rank 0 writes the model's folder and returns the report.

    Raises: DivergedError on all ranks; DataError if a protein is longer than the model reads; Stopped on
        rank 0, once the last step is kept, if the run was asked to end; StorageError on rank 0 if a
        checkpoint cannot be written; ConfigError if there is not enough memory.
    """
    try:
        return _run_rank(job, ranks)
    except (MemoryError, RuntimeError) as error:  # a GPU's shortage is a RuntimeError with a class of its own
        is_shortage = isinstance(error, (torch.OutOfMemoryError, MemoryError))
        if not is_shortage and _CPU_OUT_OF_MEMORY not in str(error):
            raise
        config = job.config
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise ConfigError(
            f"rank {ranks.rank} of {ranks.world_size} ran out of memory on {ranks.device} ({reason}); lower "
            f"tokens_per_pass (now {config.tokens_per_pass}, tokens_per_batch={config.tokens_per_batch}), "
            "set gradient_checkpointing, raise num_processes, or tokenize with a smaller max_residues: a "
            "longer protein goes alone"
        ) from error


def _run_rank(job: Job, ranks: Ranks) -> TrainReport | None:
    started = time.perf_counter()
    config = job.config
    train, validation = (
        read_examples(Path(job.tokens), split, len(job.labels)) for split in (Split.TRAIN, Split.VALIDATION)
    )
    torch.manual_seed(config.seed)  # every rank draws the same new weights
    membrane = config.membrane_weight > 0
    model = build_model(job.base, config.head, job.labels, config.head_dropout, membrane=membrane)
    adapt(model, config)
    for examples in (train, validation):
        _check_lengths(job, model, examples)
    precision = choose_precision(config.precision, ranks.device)
    adapted = adaptation_facts(model, config)
    train, validation = with_features(model, (train, validation), config, ranks, precision)
    history_file = Path(job.model) / HISTORY_FILE if ranks.leads else Path(os.devnull)
    with HistoryWriter(history_file) as history, _keeper(job, ranks) as keeper:
        loop = Loop(
            model=model,
            train=train,
            validation=validation,
            config=config,
            ranks=ranks,
            history=history,
            precision=precision,
            keeper=keeper,
        )
        if job.resume_from:
            _go_on(Path(job.resume_from), loop, history, keeper, ranks)
        outcome = loop.run()
    if not ranks.leads:
        return None
    temperature = write_model(job, model, outcome.best, validation).temperature
    facts = {
        "precision": str(precision).removeprefix("torch."),
        "device": ranks.device.type,
        "attention": "packed" if model.layout.is_packed else "padded",
        "processes": str(ranks.world_size),
        "threads_per_process": str(torch.get_num_threads()),
        "base_model_digest": job.base.facts.digest,
        **adapted,
    }
    if membrane:
        facts["membrane_flags"] = f"{train.has_flag.sum():,} of {len(train):,}"
    return _report(model, outcome, temperature, time.perf_counter() - started, facts)


def _go_on(checkpoint: Path, loop: Loop, history: HistoryWriter, keeper: Keeper, ranks: Ranks) -> None:
    """Restore a checkpoint. What is read is let go here: thrice the weights, in each process of a node."""
    snapshot = Snapshot.read(checkpoint, leads=ranks.leads)
    history.go_on_from(snapshot.history)
    keeper.resumed(checkpoint.name, snapshot.place)
    loop.restore(snapshot)


@contextmanager
def _keeper(job: Job, ranks: Ranks) -> Iterator[Keeper]:
    """Only rank 0 keeps checkpoints: the others have the same weights."""
    if job.checkpoints is None or not ranks.leads:
        yield NOBODY
        return
    stop = Stop(Path(job.checkpoints.scratch))
    keeper = CheckpointKeeper(job.checkpoints, stop, ranks.world_size)
    with stop.listening(), keeper.finishing():
        yield keeper


def _check_lengths(job: Job, model: LocationModel, examples: Examples) -> None:
    longest = int(examples.num_tokens_N.argmax())
    num_residues = int(examples.num_tokens_N[longest]) - NUM_SPECIAL_TOKENS
    if num_residues > model.max_residues:
        accession = read_tokens(Path(job.tokens))["accession"][int(examples.rows_N[longest])]
        raise DataError(
            f"{job.tokens}: protein {accession} has {num_residues} residues after the cut, base model "
            f"{job.base.facts.name} reads at most {model.max_residues}; "
            f"tokenize again with max_residues={model.max_residues} or less"
        )


def _report(
    model: LocationModel, outcome: Outcome, temperature: float, seconds: float, facts: dict[str, str]
) -> TrainReport:
    return TrainReport(
        num_parameters=sum(parameter.numel() for parameter in model.parameters()),
        num_steps=outcome.num_steps,
        epochs_run=outcome.epochs_run,
        best_epoch=outcome.best.epoch,
        validation_loss=outcome.best.loss,
        validation_accuracy=outcome.best.accuracy,
        temperature=temperature,
        seconds=seconds,
        tokens_per_second=outcome.num_tokens / outcome.training_seconds,
        model_digest="",  # known to whoever seals the folder
        facts=facts,
    )


def _follow_parent_to_death() -> None:
    """Wait until stdin closes, which the parent's death does, then end this process at once."""
    while os.read(0, 1):
        continue
    os._exit(1)


def main() -> int:
    """Run one rank; what ends it early is left as a file for the parent."""
    folder, rank = Path(sys.argv[1]), int(os.environ.get("RANK", "0"))
    threading.Thread(target=_follow_parent_to_death, daemon=True).start()
    if rank == 0:
        speak_into(folder)
    with present(rank, folder):
        try:
            job = Job.read(folder)
            heeding = Stop(folder).on_sigterm() if job.checkpoints else nullcontext()
            with heeding, joined(job.config.rank_timeout_seconds) as ranks:
                report = run_rank(job, ranks)
                if report is not None:
                    write_report(report, folder)
        except Stopped:
            return STOPPED_EXIT_CODE
        except Exception as error:  # whatever it is, the parent must hear of it
            write_failure(error, rank, folder)
            return error.exit_code if isinstance(error, ProttuneError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
