"""A file of proteins to a table of locations, beside transformers' own pipeline on the same file's proteins.

Ours is what `prottune predict` runs after the model is loaded: FASTA read, sorted by length in windows,
answered without padding, written as CSV. The peer is `pipeline("text-classification")` with 16 proteins a
batch, padded to the longest of them, in the order of the file; it is given the sequences as a list and writes
nothing. Both read the same proteins in a turn and others in the next.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow.csv
import torch
from transformers import pipeline

from benchmarks.machine import matmul_rate
from benchmarks.proteins import sampled, sequences, write_fasta
from benchmarks.rows import Options, Row
from benchmarks.served import Sizes, write_served_model
from benchmarks.timing import WARM_UP, in_turns
from prottune.alphabet import NUM_SPECIAL_TOKENS
from prottune.model.inference import Predictor
from prottune.model.precision import choose_precision
from prottune.model.settings import MAX_GOLDEN_DIFFERENCE
from prottune.prediction.settings import PredictConfig
from prottune.prediction.stage import predict_with
from prottune.records import slug

PEER_BATCH = 16

_ROW = Row(
    name="predict",
    what="a file of proteins of real lengths, beside the pipeline in its own fp32",
    unit="proteins/s",
    peer_name=f"transformers' text-classification pipeline, {PEER_BATCH} a batch, padded, fp32",
    limit_name="matrix products of our precision, without padding",
    goal=3.0,
)
PLANNED = (
    _ROW,
    replace(
        _ROW,
        what="a file of proteins of real lengths, beside the pipeline in our precision",
        peer_name=f"transformers' text-classification pipeline, {PEER_BATCH} a batch, padded, our precision",
    ),
)


@dataclass(frozen=True)
class Scale:
    """How much is run."""

    num_layers: int
    num_proteins: int
    """Of each turn."""
    fp32_share: int
    """One in so many proteins is enough for the peer's fp32."""
    turns: int


FULL = Scale(num_layers=2, num_proteins=256, fp32_share=4, turns=3)
QUICK = Scale(num_layers=2, num_proteins=32, fp32_share=2, turns=1)

Answers = list[list[float]]


def rows(options: Options) -> list[Row]:
    scale = QUICK if options.quick else FULL
    sizes, precision = Sizes(scale.num_layers), choose_precision("auto", "cpu")
    proteins = sequences(options)
    with TemporaryDirectory(prefix="prottune-bench-") as scratch:
        bench = Bench(Path(scratch), write_served_model(Path(scratch) / "model", sizes), proteins, scale)
        difference = bench.check()
        samples = in_turns(bench.ways(), scale.turns)
    tokens = [len(protein) + NUM_SPECIAL_TOKENS for protein in bench.proteins(0)]
    operations = sum(sizes.operations(min(number, sizes.num_positions)) for number in tokens)
    limit = len(tokens) * matmul_rate(precision) / operations
    speed = {name: len(tokens) / found.median for name, found in samples.items()}
    facts = {"proteins_per_second": speed, "largest_difference": difference, "precision": str(precision)}
    return [
        replace(
            planned.measured(
                ours=speed["ours"],
                peer=speed[peer],
                ratio=speed["ours"] / speed[peer],
                samples=samples,
                compared=("ours", peer),
                limit=limit,
                facts=facts,
            ),
            scale=f"{sizes}, {len(tokens)} {'real' if options.source else 'random'} proteins",
            clock="wall time",
        )
        for planned, peer in zip(PLANNED, ("pipeline fp32", "pipeline"), strict=True)
    ]


class Bench:
    """Both sides, and the proteins of each turn."""

    def __init__(self, scratch: Path, folder: Path, proteins: list[str], scale: Scale) -> None:
        self._scratch, self._scale, self._proteins = scratch, scale, proteins
        self._predictor = Predictor.load(folder)
        self._precision = choose_precision("auto", "cpu")
        self._pipelines = {
            dtype: pipeline("text-classification", model=str(folder), dtype=dtype, device="cpu")
            for dtype in {torch.float32, self._precision}
        }

    def proteins(self, turn: int) -> list[str]:
        return sampled(self._proteins, 16 if turn == WARM_UP else self._scale.num_proteins, turn)

    def ways(self) -> dict[str, Callable[[int], float]]:
        return {
            "ours": lambda turn: self._timed(self._ours, self.proteins(turn)),
            "pipeline": lambda turn: self._timed(self._peer(self._precision), self.proteins(turn)),
            "pipeline fp32": self._in_fp32,
        }

    def check(self) -> float:
        """Both sides answer the same; returns the largest difference of a probability."""
        proteins = sampled(self._proteins, 8)
        ours, theirs = self._ours(proteins), self._peer(torch.float32)(proteins)
        difference = float(np.abs(np.subtract(ours, theirs)).max())
        assert difference <= MAX_GOLDEN_DIFFERENCE, f"probabilities differ by {difference:.4f}"
        return difference

    def _timed(self, answer: Callable[[list[str]], Answers], proteins: list[str]) -> float:
        begun = time.perf_counter()
        assert len(answer(proteins)) == len(proteins)
        return time.perf_counter() - begun

    def _in_fp32(self, turn: int) -> float:
        """Every so many-th protein by length, so that a part of them has the lengths of all."""
        share = 1 if turn == WARM_UP else self._scale.fp32_share
        proteins = self.proteins(turn)
        some = sampled(proteins, len(proteins) // share)
        return self._timed(self._peer(torch.float32), some) * len(proteins) / len(some)

    def _ours(self, proteins: list[str]) -> Answers:
        with TemporaryDirectory(dir=self._scratch) as folder:
            source, output = Path(folder) / "some.fasta", Path(folder) / "some.csv"
            write_fasta(proteins, source)
            predict_with(self._predictor, str(source), output, PredictConfig(), digest="bench")
            table = pyarrow.csv.read_csv(output)
        names = [f"p_{slug(label)}" for label in self._predictor.labels]
        return [[row[name] for name in names] for row in table.select(names).to_pylist()]

    def _peer(self, dtype: torch.dtype) -> Callable[[list[str]], Answers]:
        def answer(proteins: list[str]) -> Answers:
            found: Any = self._pipelines[dtype](proteins, batch_size=PEER_BATCH, top_k=None, truncation=True)
            said = [{entry["label"]: entry["score"] for entry in answers} for answers in found]
            return [[scores[label] for label in self._predictor.labels] for scores in said]

        return answer
