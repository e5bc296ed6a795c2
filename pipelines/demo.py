"""The whole pipeline on synthetic proteins, and a check that it learned: `python -m pipelines.demo`.

A broken pipeline must not look healthy: the floor may not solve the sample, the model must.
"""

import json
import shutil
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.parameters import run_flags
from pipelines.running import run
from pipelines.runs import LATEST, SUMMARY_FILE
from prottune.artifacts import manifest_of
from prottune.errors import ProttuneError
from prottune.registration.provenance import DATASET_DIGEST_TAG
from prottune.registration.registry import Registry
from prottune.sample import SampleConfig, write_sample

MAX_FLOOR_ACCURACY = 0.70
MIN_MODEL_ACCURACY = 0.85

SETTINGS = {
    "base_model": "tiny",
    "epochs": 8,
    "learning_rate": 1e-3,
    "tokens_per_batch": 4096,
    "precision": "fp32",  # at this width bf16 is the slower one
    "num_processes": 2,
}
"""What differs from a run on real proteins: a small model from scratch, in two processes."""


@dataclass(frozen=True, kw_only=True)
class DemoFlags:
    """Where the demo leaves what it makes."""

    runs: str = "runs"
    """Folder that keeps every run."""


def demo(runs: Path) -> int:
    """Write the sample, run the committed graph on it, check what came out; returns the exit code."""
    fasta = runs / "sample" / "sample.fasta"
    shutil.rmtree(fasta.parent, ignore_errors=True)  # an earlier demo's
    report = write_sample(fasta, SampleConfig())
    print(f"{report.num_proteins} SYNTHETIC proteins in {fasta}: no real protein is among them")
    flags = run_flags()(source=str(fasta), runs=str(runs), **SETTINGS)
    exit_code = run({name: value for name, value in vars(flags).items() if name != "runs"}, runs)
    return exit_code or _check(json.loads((runs / LATEST / SUMMARY_FILE).read_text(encoding="utf-8")))


def _check(summary: dict[str, Any]) -> int:
    if summary["decision"] == "same":
        return _check_known(summary)
    model, floor = summary["metrics"]["accuracy"], summary["metrics"]["baseline"]["accuracy"]
    learned = model >= MIN_MODEL_ACCURACY and floor <= MAX_FLOOR_ACCURACY and summary["promoted"]
    line = (
        f"test accuracy {model:.3f} (must reach {MIN_MODEL_ACCURACY:.2f}), "
        f"floor {floor:.3f} (at most {MAX_FLOOR_ACCURACY:.2f}), "
        f"{'promoted' if summary['promoted'] else 'not promoted'}"
    )
    if learned:
        print(f"\ndemo passed: {line}")
        return 0
    print(f"error: the demo shows a broken pipeline: {line}", file=sys.stderr)
    return 1


def _check_known(summary: dict[str, Any]) -> int:
    """Nothing was trained: fine if this sample made the champion, not if its model was held."""
    champion = Registry(summary["tracking_uri"], nullcontext).version_with_alias("champion")
    sample = manifest_of(Path(summary["folders"]["records"])).digest
    if champion is not None and champion.tags.get(DATASET_DIGEST_TAG) == sample:
        print(
            "\ndemo: the champion was trained on this sample with these settings; that run was checked then"
        )
        return 0
    print(
        "error: the demo shows a broken pipeline: what this sample makes was held or rolled back before; see "
        "that run, or name other --runs",
        file=sys.stderr,
    )
    return 1


def main(words: Sequence[str]) -> int:
    """Parse the flags and run the demo."""
    from prottune.flags import parse_flags

    flags = parse_flags(DemoFlags, words, "python -m pipelines.demo", "run everything on synthetic proteins")
    try:
        return demo(Path(flags.runs))
    except ProttuneError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
