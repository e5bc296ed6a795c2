"""Replace a model again and again while it is asked, and count what clients see: `-m benchmarks.rollout`.

A load of its own process asks one address at a steady rate while the servers behind it change: each new one
comes up, is checked and takes over, and the old one ends. Half-way a damaged model is rolled out as well; it
must be refused and change nothing. The exit code is 1 if a request failed.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from prottune.deployment.local_rollout import Rollout, rolling
from prottune.deployment.settings import DeployConfig
from prottune.errors import DeploymentError
from prottune.model.folder import WEIGHTS_FILE

_MAX_RESIDUES = "1000"
"""Longest protein that is asked about; the time goes into what is under test."""
_START_SECONDS = 2.0
"""For the load's own start."""


def main(words: list[str]) -> int:
    arguments = _parser().parse_args(words)
    with TemporaryDirectory(prefix="prottune-rollout-") as scratch:
        models = arguments.model
        damaged = damaged_copy(models[0], Path(scratch) / "damaged")
        with rolling(models[0], DeployConfig(), "1") as rollout:
            print(f"version 1 serves at {rollout.url}", flush=True)
            load = subprocess.Popen(_load(rollout.url, arguments))
            try:
                _roll(rollout, models, damaged, arguments, load)
                return load.wait()
            finally:
                load.kill()
                load.wait()


def damaged_copy(model: Path, folder: Path) -> Path:
    """A copy of a model folder with one bit of its weights turned round."""
    shutil.copytree(model, folder)
    weights = bytearray((folder / WEIGHTS_FILE).read_bytes())
    weights[-1] ^= 1
    (folder / WEIGHTS_FILE).write_bytes(weights)
    return folder


def _roll(
    rollout: Rollout,
    models: Sequence[Path],
    damaged: Path,
    arguments: argparse.Namespace,
    load: subprocess.Popen[bytes],
) -> None:
    """Spread the rollouts over the time that the load takes."""
    begun, seconds = time.monotonic() + _START_SECONDS, arguments.requests / arguments.rate
    for number in range(1, arguments.rollouts + 1):
        due = begun + seconds * number / (arguments.rollouts + 1)
        time.sleep(max(0.0, due - time.monotonic()))
        if number == (arguments.rollouts + 1) // 2:
            try:
                rollout.replace(damaged, "damaged")
                raise AssertionError("a damaged model took over")
            except DeploymentError as error:
                print(f"a damaged model was refused: {error}", flush=True)
        report = rollout.replace(models[number % len(models)], str(number + 1))
        under_way = "while requests came" if load.poll() is None else "after the last request"
        print(
            f"version {report.model_version} took over {under_way}: ready after "
            f"{report.seconds_to_ready:.1f} s, largest difference {report.largest_difference:.4f}",
            flush=True,
        )


def _load(url: str, arguments: argparse.Namespace) -> list[str]:
    command = [sys.executable, "-m", "benchmarks.serve", "--url", url, "--max-residues", _MAX_RESIDUES]
    command += ["--rate", str(arguments.rate), "--requests", str(arguments.requests)]
    return command + (["--source", str(arguments.source)] if arguments.source else [])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.rollout",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rate", type=float, default=50, help="requests a second")
    parser.add_argument("--requests", type=int, default=10_000, help="how many in all")
    parser.add_argument("--rollouts", type=int, default=6, help="how often the model is replaced")
    parser.add_argument(
        "--model",
        type=Path,
        action="append",
        required=True,
        help="model folder; may be repeated: they take turns",
    )
    parser.add_argument("--source", type=Path, help="FASTA of real proteins, instead of random ones")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
