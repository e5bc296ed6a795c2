"""What one rank of a training run does; its parent starts `python -m prottune.training.worker FOLDER`."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

import torch

from prottune.alphabet import NUM_SPECIAL_TOKENS
from prottune.errors import DataError, ProttuneError
from prottune.model.base import build_model
from prottune.model.classifier import LocationModel
from prottune.model.precision import choose_precision
from prottune.records import Split, read_tokens
from prottune.training.adaptation import adapt, adaptation_facts
from prottune.training.examples import Examples, read_examples
from prottune.training.features import with_features
from prottune.training.finishing import write_model
from prottune.training.history import HISTORY_FILE, HistoryWriter
from prottune.training.job import Job, write_failure, write_report
from prottune.training.loop import Loop, Outcome
from prottune.training.ranks import Ranks, joined
from prottune.training.settings import TrainReport
from prottune.training.words import speak_into


def run_rank(job: Job, ranks: Ranks) -> TrainReport | None:
    """Train as one of the ranks; rank 0 writes the model's folder and returns the report.

    Raises: DivergedError on all ranks; DataError if a protein is longer than the model reads.
    """
    started = time.perf_counter()
    config = job.config
    train, validation = (
        read_examples(Path(job.tokens), split, len(job.labels)) for split in (Split.TRAIN, Split.VALIDATION)
    )
    torch.manual_seed(config.seed)  # every rank draws the same new weights ...
    membrane = config.membrane_weight > 0
    model = build_model(job.base, config.head, job.labels, config.head_dropout, membrane=membrane)
    adapt(model, config)
    torch.manual_seed(config.seed + ranks.rank)  # ... and its own dropout
    for examples in (train, validation):
        _check_lengths(job, model, examples)
    precision = choose_precision(config.precision, ranks.device)
    adapted = adaptation_facts(model, config)
    train, validation = with_features(model, (train, validation), config, ranks, precision)
    history_file = Path(job.model) / HISTORY_FILE if ranks.leads else Path(os.devnull)
    with HistoryWriter(history_file) as history:
        loop = Loop(
            model=model,
            train=train,
            validation=validation,
            config=config,
            ranks=ranks,
            history=history,
            precision=precision,
        )
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
    folder = Path(sys.argv[1])
    threading.Thread(target=_follow_parent_to_death, daemon=True).start()
    if os.environ.get("RANK", "0") == "0":
        speak_into(folder)
    try:
        with joined() as ranks:
            report = run_rank(Job.read(folder), ranks)
            if report is not None:
                write_report(report, folder)
    except Exception as error:  # whatever it is, the parent must hear of it
        write_failure(error, int(os.environ.get("RANK", "0")), folder)
        return error.exit_code if isinstance(error, ProttuneError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
