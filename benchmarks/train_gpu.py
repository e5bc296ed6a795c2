"""A whole epoch of DeepLoc's lengths through ProtBERT on a GPU, as a share of its matrix products' rate.

Random weights serve: speed does not depend on what they say. Both sides learn from the same proteins, cut
to 1,024 tokens, about as many a step. Only residues and their [CLS] and [SEP] count as tokens or work.
"""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from benchmarks.machine import matmul_rate, training_operations
from benchmarks.own_training import (
    FEED_FORWARD,
    PROTBERT_LAYERS,
    PROTBERT_POSITIONS,
    WIDTH,
    own_report,
    write_base,
)
from benchmarks.proteins import labels, sampled, sequences, write_tokens
from benchmarks.rows import NotRun, Options, Row
from benchmarks.stock_trainer import examples, trainer_seconds
from benchmarks.timing import WARM_UP, Way, in_turns
from prottune.records import DEEPLOC10

MAX_TOKENS = 1024
_LARGE_MEMORY = 100 * 2**30
_BATCH_SIZE = {"large": 64, "small": 16}
"""Proteins a step that fit beside ProtBERT's optimizer, on GPUs of more and of less than 100 GiB."""
_WARM_UP_PROTEINS = 256
_STRETCH = 0.6

PLANNED = (
    Row(
        name="train-gpu",
        what="an epoch of ProtBERT at 1,024 tokens, of the matrix products' rate",
        unit="tokens/s",
        peer_name="Trainer: grouped by length, bf16, fused AdamW",
        limit_name="bf16 matrix products of 8192, without padding",
        ratio_of="ours / limit",
        goal=0.45,
    ),
    Row(
        name="train-gpu",
        what="an epoch of ProtBERT at 1,024 tokens, beside the best Trainer",
        unit="tokens/s",
        peer_name="Trainer: grouped by length, bf16, fused AdamW, the fastest attention that is there",
        limit_name="bf16 matrix products of 8192, without padding",
        goal=1.15,
    ),
)


def rows(options: Options) -> list[Row]:
    if not torch.cuda.is_available():
        raise NotRun("not run: no GPU here")
    proteins = sequences(options)
    if options.quick:
        proteins = sampled(proteins, 2000)
    cut = [protein[: MAX_TOKENS - 2] for protein in proteins]
    with TemporaryDirectory() as scratch:
        batch_size = _batch_size()
        samples = in_turns(_ways(Path(scratch), cut, batch_size), 1 if options.quick else 2)
    num_tokens = np.array([len(protein) + 2 for protein in cut])
    operations = training_operations(num_tokens, PROTBERT_LAYERS, WIDTH, FEED_FORWARD)
    peak = matmul_rate(torch.bfloat16, "cuda")
    tokens = int(num_tokens.sum())
    speed = {name: tokens / found.median for name, found in samples.items()}
    best = max((name for name in speed if name != "ours"), key=lambda name: speed[name])
    limit = tokens * peak / operations
    shares = {"share_of_peak": {name: value / limit for name, value in speed.items()}, "stretch": _STRETCH}
    facts = {"tokens_per_second": speed, "peak_tflops": peak / 1e12, **shares}
    return [
        replace(
            planned.measured(
                ours=speed["ours"],
                peer=speed[best],
                ratio=speed["ours"] / against,
                samples=samples,
                compared=("ours", best),
                limit=limit,
                facts=facts,
                note=best,
            ),
            scale=f"{len(cut)} {'real' if options.source else 'random'} proteins, about {batch_size} a step",
            clock="wall time, device synchronised",
        )
        for planned, against in zip(PLANNED, (limit, speed[best]), strict=True)
    ]


def _batch_size() -> int:
    memory = torch.cuda.get_device_properties(0).total_memory
    return _BATCH_SIZE["large" if memory > _LARGE_MEMORY else "small"]


def _ways(folder: Path, proteins: list[str], batch_size: int) -> dict[str, Way]:
    """Ours, and the Trainer with each attention that this machine has."""
    base = write_base(folder / "base", PROTBERT_LAYERS, PROTBERT_POSITIONS)
    few = sampled(proteins, _WARM_UP_PROTEINS)
    validation = [protein[:40] for protein in proteins[:8]]
    tokens = {
        True: write_tokens(folder / "few", few, validation),
        False: write_tokens(folder / "all", proteins, validation),
    }
    budget = round(batch_size * float(np.mean([len(protein) + 2 for protein in proteins])))

    def ours(turn: int) -> float:
        num_tokens = sum(len(protein) + 2 for protein in (few if turn == WARM_UP else proteins))
        report = own_report(base, tokens[turn == WARM_UP], budget)
        return num_tokens / report.tokens_per_second

    def trainer(attention: str) -> Way:
        def way(turn: int) -> float:
            chosen = few if turn == WARM_UP else proteins
            return trainer_seconds(
                base,
                examples(chosen, labels(chosen), MAX_TOKENS),
                len(DEEPLOC10),
                batch_size=batch_size,
                precision=torch.bfloat16,
                attention=attention,
                strategy="group_by_length",
            )

        return way

    attentions = ["sdpa"] + (["flash_attention_2"] if find_spec("flash_attn") else [])
    return {"ours": ours, **{f"Trainer {attention}": trainer(attention) for attention in attentions}}
