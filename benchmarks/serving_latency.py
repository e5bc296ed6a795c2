"""How long one protein takes, by its length, beside KServe's stock way, ONNX Runtime and OpenVINO.

One process, all cores, wall seconds from the sequence as text to its probabilities. In each turn every way
answers a few times in a row, the first answer dropped: engines that share a process also share its cores, and
the threads of one may still spin when the next begins. The limit is the model's matrix products alone at the
rate of a large bf16 product, measured in the same run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import geometric_mean
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from benchmarks import engines
from benchmarks.machine import matmul_rate
from benchmarks.proteins import sequences
from benchmarks.rows import NotRun, Options, Row
from benchmarks.served import Sizes, write_served_model
from benchmarks.stock_model import StockModel
from benchmarks.timing import WARM_UP, Samples, Way, in_turns
from prottune.alphabet import NUM_SPECIAL_TOKENS
from prottune.model.inference import Predictor
from prottune.model.precision import choose_precision
from prottune.model.settings import MAX_GOLDEN_DIFFERENCE

LENGTHS = (64, 128, 256, 512, 1024)
_MAX_FP32_DIFFERENCE = 5e-4
"""Between probabilities in fp32; the stock way rounds its own to four digits."""
_STOCK, _STOCK_BF16 = "stock fp32", "stock bf16"
_FP32 = "ours fp32"
_LIMIT, _LIMIT_FP32 = "bf16 matrix products", "fp32 matrix products"


@dataclass(frozen=True)
class Scale:
    """How much is run."""

    num_layers: int
    turns: int
    calls: int
    """Answers of each way in each turn, after one that does not count; a quarter in fp32."""
    num_proteins: int
    """Different proteins of each length."""


FULL = Scale(num_layers=4, turns=12, calls=9, num_proteins=12)
QUICK = Scale(num_layers=2, turns=2, calls=3, num_proteins=3)


_STOCK_NAME = "KServe's huggingfaceserver re-created with transformers, fp32"


def _planned(length: int) -> tuple[Row, Row]:
    """Of one length: beside the limit, and beside the stock way."""
    row = Row(
        name="serve-latency",
        what=f"one protein of {length} residues, of what its matrix products take",
        unit="ms (p50)",
        peer_name="",
        limit_name=_LIMIT,
        ratio_of="ours / limit",
        at_most=True,
        goal=1.6,
    )
    beside = replace(
        row,
        what=f"one protein of {length} residues, beside the stock way",
        peer_name=_STOCK_NAME,
        ratio_of="peer / ours",
        at_most=False,
        goal=4.0,
    )
    return row, beside


_IN_FP32 = Row(
    name="serve-latency",
    what="all lengths, both in fp32",
    unit="ms (p50, geometric mean)",
    peer_name=_STOCK_NAME,
    limit_name="fp32 matrix products",
    ratio_of="peer / ours",
    goal=1.3,
)
_ENGINES = replace(
    _IN_FP32,
    what="all lengths, beside other engines",
    peer_name="the fastest at each length of ONNX Runtime fp32, OpenVINO f32 and bf16",
    limit_name=_LIMIT,
    goal=1.0,
)
PLANNED = (*(row for length in LENGTHS for row in _planned(length)), _IN_FP32, _ENGINES)


def rows(options: Options) -> list[Row]:
    scale = QUICK if options.quick else FULL
    sizes = Sizes(scale.num_layers)
    with TemporaryDirectory(prefix="prottune-bench-") as scratch:
        folder = write_served_model(Path(scratch) / "model", sizes)
        bench = Bench(folder, Path(scratch), sequences(options), sizes, scale)
        samples = {length: in_turns(bench.ways(length), scale.turns) for length in LENGTHS}
    facts = bench.facts | {"precision": str(choose_precision("auto", "cpu")), "seconds": bench.percentiles()}
    found = [row for length in LENGTHS for row in _at_length(length, samples[length], facts)]
    found += [
        _over_all(_IN_FP32, samples, facts, side=_FP32, peers=(_STOCK,), limit=_LIMIT_FP32),
        _over_all(_ENGINES, samples, facts, side="ours", peers=bench.engine_names, limit=_LIMIT),
    ]
    size = f"{sizes}, {scale.turns} turns of {scale.calls} answers"
    return [replace(row, scale=size, clock="wall time") for row in found]


def _at_length(length: int, samples: dict[str, Samples], facts: dict[str, Any]) -> Iterator[Row]:
    ours, limit, stock = (samples[name].median for name in ("ours", _LIMIT, _STOCK))
    p99 = facts["seconds"][str(length)]["ours"]["p99"]
    more: dict[str, Any] = {
        "samples": samples,
        "facts": facts,
        "limit": 1e3 * limit,
        "note": f"p99 {1e3 * p99:.3g} ms",
    }
    of_limit, of_stock = _planned(length)
    yield of_limit.measured(ours=1e3 * ours, peer=None, ratio=ours / limit, compared=("ours", _LIMIT), **more)
    yield of_stock.measured(
        ours=1e3 * ours, peer=1e3 * stock, ratio=stock / ours, compared=("ours", _STOCK), **more
    )


def _over_all(
    planned: Row,
    samples: dict[int, dict[str, Samples]],
    facts: dict[str, Any],
    *,
    side: str,
    peers: Sequence[str],
    limit: str,
) -> Row:
    """One row over all lengths: geometric means, and the ratio of each length in the note."""
    if not peers:
        return planned.not_run(facts["engines"])
    best = {length: min(peers, key=lambda name: found[name].median) for length, found in samples.items()}
    ours = [found[side].median for found in samples.values()]
    peer = [found[best[length]].median for length, found in samples.items()]
    ratios = [theirs / own for own, theirs in zip(ours, peer, strict=True)]
    said = (
        f"{length}: {ratio:.2f}" + (f" {best[length]}" if len(peers) > 1 else "")
        for length, ratio in zip(samples, ratios, strict=True)
    )
    return planned.measured(
        ours=1e3 * geometric_mean(ours),
        peer=1e3 * geometric_mean(peer),
        ratio=geometric_mean(ratios),
        samples={f"{length} {name}": way for length, found in samples.items() for name, way in found.items()},
        compared=(),
        limit=1e3 * geometric_mean([found[limit].median for found in samples.values()]),
        facts=facts,
        note=", ".join(said),
    )


class Bench:
    """All ways to answer for one protein, and the seconds of each single answer."""

    def __init__(self, folder: Path, scratch: Path, proteins: list[str], sizes: Sizes, scale: Scale) -> None:
        self._scale, self._sizes = scale, sizes
        self._long = [protein for protein in proteins if len(protein) >= max(LENGTHS)][: scale.num_proteins]
        ours, ours_fp32 = Predictor.load(folder), Predictor.load(folder, "fp32")
        stock = StockModel(folder)
        stock_bf16 = StockModel(folder, torch.bfloat16)
        self.facts: dict[str, Any] = {"engines": ""}
        self.engine_names: tuple[str, ...] = ()
        self._answers: dict[str, Callable[[str], Any]] = {
            "ours": lambda protein: ours.predict([protein])[0].probabilities,
            _FP32: lambda protein: ours_fp32.predict([protein])[0].probabilities,
            _STOCK: lambda protein: stock.probabilities([protein])[0],
            _STOCK_BF16: lambda protein: stock_bf16.probabilities([protein])[0],
            **self._engines(stock, scratch),
        }
        self._seconds: dict[str, dict[str, list[float]]] = {}
        """Length -> way -> the seconds of each answer."""
        self._check()

    def _engines(self, stock: StockModel, scratch: Path) -> dict[str, engines.Engine]:
        """ONNX Runtime with the better of two settings, and OpenVINO; none where they are not installed."""
        try:
            path = engines.export(stock, scratch / "model.onnx")
            candidates = {choice: engines.onnx_runtime(path, spinning=choice) for choice in (True, False)}
            seconds = {choice: _seconds(engine, self._long[:3]) for choice, engine in candidates.items()}
            best = min(seconds, key=lambda choice: seconds[choice])
            self.facts["onnxruntime_spinning"] = best
            found = {
                "ONNX Runtime fp32": candidates[best],
                "OpenVINO f32": engines.openvino(path, "f32"),
                "OpenVINO bf16": engines.openvino(path, "bf16"),
            }
        except (NotRun, ImportError) as reason:
            self.facts["engines"] = f"not run: {reason}".replace("not run: not run: ", "not run: ")
            return {}
        self.engine_names = tuple(found)
        return found

    def _check(self) -> None:
        """All ways give the same answers, bf16 within what a served model may differ."""
        proteins = [protein[:length] for length in LENGTHS for protein in self._long[:3]]
        truth = np.stack([self._answers[_FP32](protein) for protein in proteins])
        assert truth.std(axis=0).max() > MAX_GOLDEN_DIFFERENCE, "all proteins get nearly one answer"
        differences = {}
        for name, answer in self._answers.items():
            found = np.stack([answer(protein) for protein in proteins])
            differences[name] = float(np.abs(found - truth).max())
            close = _MAX_FP32_DIFFERENCE if "32" in name else MAX_GOLDEN_DIFFERENCE
            assert differences[name] <= close, f"{name} differs by {differences[name]:.4f}"
        self.facts["largest_difference"] = differences

    def ways(self, length: int) -> dict[str, Way]:
        """Each way as the median of a few answers for proteins of one length, and the limits."""
        operations = self._sizes.operations(length + NUM_SPECIAL_TOKENS)
        return {name: self._way(name, length) for name in self._answers} | {
            _LIMIT: lambda _: operations / matmul_rate(torch.bfloat16),
            _LIMIT_FP32: lambda _: operations / matmul_rate(torch.float32),
        }

    def _way(self, name: str, length: int) -> Way:
        proteins = [protein[:length] for protein in self._long]
        calls = max(2, self._scale.calls // 4) if "32" in name else self._scale.calls
        kept = self._seconds.setdefault(str(length), {}).setdefault(name, [])

        def seconds(turn: int) -> float:
            chosen = [proteins[(turn * calls + call) % len(proteins)] for call in range(calls)]
            self._answers[name](chosen[0])
            each = [_seconds(self._answers[name], [protein]) for protein in chosen]
            if turn != WARM_UP:
                kept.extend(each)
            return float(np.median(each))

        return seconds

    def percentiles(self) -> dict[str, dict[str, dict[str, float]]]:
        """p50, p99 and number of the single answers, by length and way."""
        return {
            length: {
                name: {
                    "p50": float(np.percentile(each, 50)),
                    "p99": float(np.percentile(each, 99)),
                    "answers": len(each),
                }
                for name, each in ways.items()
            }
            for length, ways in self._seconds.items()
        }


def _seconds(answer: Callable[[str], Any], proteins: list[str]) -> float:
    begun = time.perf_counter()
    for protein in proteins:
        answer(protein)
    return (time.perf_counter() - begun) / len(proteins)
