"""How long our server takes from its start to its first right answer, beside imports that it cannot avoid.

Ours: `python -m prottune.serving` is executed, says where it listens, and answers a golden sequence as its
model does. The peer: Python imports torch, transformers and kserve, with the one class of transformers that
a server of a BERT needs (the package alone imports next to nothing). What checking and reading the weights
takes is measured apart and taken off ours: it grows with the model. Files are in the system's cache for both.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import safetensors.torch

from benchmarks.http_client import PREDICT_PATH
from benchmarks.rows import Options, Row
from benchmarks.served import Sizes, write_served_model
from benchmarks.timing import in_turns
from prottune.artifacts import read_manifest
from prottune.deployment.local import LocalDeployment
from prottune.deployment.settings import DeployConfig
from prottune.model.folder import WEIGHTS_FILE
from prottune.model.golden import read_golden
from prottune.model.settings import MAX_GOLDEN_DIFFERENCE

_IMPORTS = "import torch, transformers, kserve; from transformers import BertModel"
_BARE = "import torch, transformers, kserve"

PLANNED = (
    Row(
        name="cold-start",
        what="from the start of the program to its first right answer, without reading the weights",
        unit="s",
        peer_name=f"`{_IMPORTS}`",
        ratio_of="ours / peer",
        at_most=True,
        goal=1.2,
    ),
)


@dataclass(frozen=True)
class Scale:
    """How much is run."""

    num_layers: int
    turns: int


FULL = Scale(num_layers=4, turns=5)
QUICK = Scale(num_layers=2, turns=1)


def rows(options: Options) -> list[Row]:
    scale = QUICK if options.quick else FULL
    sizes = Sizes(scale.num_layers)
    with TemporaryDirectory(prefix="prottune-bench-") as scratch:
        folder = write_served_model(Path(scratch) / "model", sizes)
        golden = min(read_golden(folder), key=lambda entry: len(entry["sequence"]))
        ways = {
            "ours": lambda _: _to_first_answer(folder, golden),
            "imports": lambda _: _run([sys.executable, "-c", _IMPORTS]),
            "imports, no class": lambda _: _run([sys.executable, "-c", _BARE]),
            "weights": lambda _: _weights(folder),
        }
        samples = in_turns(ways, scale.turns)
        megabytes = (folder / WEIGHTS_FILE).stat().st_size / 1e6
    ours, peer, weights = (samples[name].median for name in ("ours", "imports", "weights"))
    row = PLANNED[0].measured(
        ours=ours - weights,
        peer=peer,
        ratio=(ours - weights) / peer,
        samples=samples,
        compared=("ours", "imports"),
        facts={"with_weights": ours, "weights": weights},
        note=f"{ours:.2f} s with {weights:.2f} s for {megabytes:.0f} MB of weights",
    )
    return [replace(row, scale=str(sizes), clock="wall time, files cached")]


def _to_first_answer(folder: Path, golden: dict[str, Any]) -> float:
    """Start, ask, stop; the seconds to the answer, which must be the golden one."""
    begun = time.perf_counter()
    with LocalDeployment().endpoint(folder, "", DeployConfig(), "1") as endpoint:
        reply = httpx.post(
            endpoint.url + PREDICT_PATH, json={"instances": [golden["sequence"]]}, trust_env=False
        )
        seconds = time.perf_counter() - begun
        answer = reply.raise_for_status().json()["predictions"][0]["probabilities"]
    expected = golden["probabilities"]
    difference = max(abs(answer[name] - expected[name]) for name in expected)
    assert difference <= MAX_GOLDEN_DIFFERENCE, f"a probability differs by {difference:.4f}"
    return seconds


def _run(command: Sequence[str]) -> float:
    begun = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - begun


def _weights(folder: Path) -> float:
    """Hash every file of the folder, and read the weights as the server does."""
    begun = time.perf_counter()
    read_manifest(folder, "train")
    safetensors.torch.load_file(folder / WEIGHTS_FILE)
    return time.perf_counter() - begun
