"""Which benchmarks there are, and how each is run in a process and an environment of its own."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.rows import Options, Row, read_rows
from prottune.training.processes import rank_environment

_ROOT = Path(__file__).resolve().parent.parent

MODULES = {
    "tokenize": "benchmarks.tokenization",
    "ingest": "benchmarks.ingestion",
    "padding": "benchmarks.padding",
    "train-cpu": "benchmarks.train_cpu",
    "train-gpu": "benchmarks.train_gpu",
    "epoch-wall": "benchmarks.epoch_wall",
    "whole-protein": "benchmarks.whole_protein",
    "freeze": "benchmarks.freezing",
    "serve-latency": "benchmarks.serving_latency",
    "serve-mixed": "benchmarks.serving_mixed",
    "serve-overhead": "benchmarks.serving_overhead",
    "predict": "benchmarks.predicting",
    "cold-start": "benchmarks.cold_start",
}
"""Name of each benchmark -> where `rows(options)` measures it and `PLANNED` says what it is to show."""

_ONE_THREAD = ("tokenize", "ingest")
_MAX_SECONDS = 3600


def run_apart(name: str, options: Options) -> tuple[list[Row], str]:
    """Measure one benchmark in a new process; its rows, and why it failed if it did."""
    with TemporaryDirectory(prefix="prottune-bench-") as folder:
        output, errors = Path(folder) / "rows.json", Path(folder) / "errors"
        command = [sys.executable, "-m", "benchmarks.measure", name, "--output", str(output)]
        command += ["--quick"] if options.quick else []
        command += ["--source", str(options.source.resolve())] if options.source else []
        with errors.open("wb") as stream:
            try:
                code = subprocess.run(
                    command,
                    cwd=_ROOT,
                    env=environment(name),
                    stderr=stream,
                    timeout=_MAX_SECONDS,
                    check=False,
                ).returncode
            except subprocess.TimeoutExpired:
                code = None
        if code == 0:
            return read_rows(output), ""
        text = errors.read_text(encoding="utf-8", errors="replace").strip()
    print(text, file=sys.stderr)
    last = text.splitlines()[-1][:200] if text else f"exit code {code}"
    reason = f"failed: {last}" if code is not None else f"failed: no end within {_MAX_SECONDS} s"
    return [row.not_run(reason) for row in planned(name)], reason


def environment(name: str) -> dict[str, str]:
    """The environment of a measuring process: what prottune gives its ranks, or one thread; no network."""
    fixed = {"RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    quiet = {"TRANSFORMERS_VERBOSITY": "error", "TQDM_DISABLE": "1"}
    threads = {"OMP_NUM_THREADS": "1"} if name in _ONE_THREAD else {}
    return rank_environment(1, os.environ) | fixed | quiet | threads


def everything_planned() -> list[Row]:
    return [row for name in MODULES for row in planned(name)]


def planned(name: str) -> list[Row]:
    """The rows of a benchmark before it was run."""
    return list(getattr(importlib.import_module(MODULES[name]), "PLANNED", ()))


def in_order(rows: list[Row]) -> list[Row]:
    """Rows in the order of `MODULES`; unknown ones, of earlier versions, go."""
    names = list(MODULES)
    return sorted((row for row in rows if row.name in names), key=lambda row: names.index(row.name))
