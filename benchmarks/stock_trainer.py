"""The second peer of training: Hugging Face's `Trainer`, with the settings that are fastest for it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import (
    BertForSequenceClassification,
    BertTokenizer,
    DataCollatorWithPadding,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.trainer_pt_utils import get_length_grouped_indices

from benchmarks.rows import NotRun
from prottune.tokenization import encode_column

MEGA_BATCH = 50
"""Batches that the Trainer sorts by length together. Source: transformers' `get_length_grouped_indices`."""


class _Stopwatch(TrainerCallback):
    """Seconds from the first step to the end: what the Trainer prepares before does not count."""

    def __init__(self) -> None:
        self.start: float | None = None
        self.seconds = 0.0

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        if self.start is None:
            self.start = time.perf_counter()

    def on_train_end(self, *_: Any, **__: Any) -> None:
        assert self.start is not None, "at least one step"
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.seconds = time.perf_counter() - self.start


def grouped_order(lengths: Sequence[int], batch_size: int) -> list[int]:
    """The order in which the Trainer's `group_by_length` reads proteins, by its own function."""
    generator = torch.Generator().manual_seed(43)
    order: list[int] = get_length_grouped_indices(lengths, batch_size, MEGA_BATCH, generator)
    return order


def examples(sequences: Sequence[str], targets: Sequence[int], max_tokens: int) -> list[dict[str, Any]]:
    """Proteins as the Trainer wants them, tokenized once before: the head of each longer one is kept."""
    import pyarrow as pa

    ids = encode_column(pa.array([sequence[: max_tokens - 2] for sequence in sequences], pa.large_string()))
    return [
        {"input_ids": protein, "labels": target}
        for protein, target in zip(ids.to_pylist(), targets, strict=True)
    ]


def trainer_seconds(
    base: Path,
    dataset: list[dict[str, Any]],
    num_labels: int,
    *,
    batch_size: int,
    precision: torch.dtype,
    attention: str = "sdpa",
    strategy: str = "sequential",
) -> float:
    """Seconds of one epoch of the Trainer. `sequential` keeps an order that was grouped by length before.

    Its settings: padded to the longest of the batch, bf16 where the machine has it, fused AdamW, no logs,
    no checkpoints, tokenized before.
    """
    try:
        import accelerate  # noqa: F401 - the Trainer's own need
    except ImportError:
        raise NotRun("not run: the Trainer needs the package accelerate") from None
    model = BertForSequenceClassification.from_pretrained(
        base, num_labels=num_labels, attn_implementation=attention, dtype=torch.float32
    )
    stopwatch = _Stopwatch()
    with TemporaryDirectory(prefix="prottune-trainer-") as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=batch_size,
            num_train_epochs=1,
            learning_rate=3e-6,
            weight_decay=0.01,
            max_grad_norm=1.0,
            bf16=precision == torch.bfloat16,
            use_cpu=not torch.cuda.is_available(),
            optim="adamw_torch_fused",
            train_sampling_strategy=strategy,
            dataloader_pin_memory=torch.cuda.is_available(),
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
            seed=43,
        )
        trainer = Trainer(
            model=model,
            args=arguments,
            train_dataset=dataset,
            data_collator=DataCollatorWithPadding(BertTokenizer.from_pretrained(base, do_lower_case=False)),
            callbacks=[stopwatch],
        )
        trainer.remove_callback(PrinterCallback)
        loss = trainer.train().training_loss
    if not loss < float("inf"):
        raise FloatingPointError(f"the Trainer ended with loss {loss}")
    return stopwatch.seconds
