"""What a benchmark ran on, and what that machine can do at best: matrix products, reading memory."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import time
from importlib import metadata
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from prottune import __version__
from prottune.machine import num_cores

_FLAGS = ("amx_bf16", "avx512_bf16", "avx512f", "avx2")
"""Instruction sets that decide the speed of matrix products, best first."""
_PACKAGES = ("torch", "transformers", "accelerate", "tokenizers", "biopython", "pyarrow", "numpy")
_PROBE_WIDTH = {"cpu": 2048, "cuda": 8192}
_ROOT = Path(__file__).resolve().parent.parent


def machine() -> str:
    """Processor, cores and threads in use, memory, GPU, system: what figures depend on."""
    processor, flags = _processor()
    best_flags = [flag for flag in _FLAGS if flag in flags][:2]
    gibibytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return ", ".join(
        [
            f"{num_cores()} cores of {' '.join([processor, *best_flags])}",
            f"{torch.get_num_threads()} threads",
            f"{gibibytes:.0f} GiB",
            torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU",
            f"{platform.system()}, Python {platform.python_version()}",
        ]
    )


def versions() -> dict[str, str]:
    """prottune with its commit, and the packages that do the work on either side."""
    found = {"prottune": " ".join([__version__, *_commit()])}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def load() -> str:
    """How busy the machine is, by its own account: runnable threads of everybody, mean of the last minute."""
    return f"{os.getloadavg()[0]:.1f} on {num_cores()} cores"


def _processor() -> tuple[str, frozenset[str]]:
    """Name and instruction sets, as Linux tells them."""
    facts: dict[str, str] = {}
    path = Path("/proc/cpuinfo")
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        key, _, value = line.partition(":")
        facts.setdefault(key.strip(), value.strip())
    name = facts.get("model name", platform.processor() or platform.machine())
    return name, frozenset(facts.get("flags", "").split())


def _commit() -> list[str]:
    """The commit of this checkout, and whether files were changed since; nothing outside a checkout."""
    git = ["git", "-C", str(_ROOT)]
    try:
        named = subprocess.run(
            [*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
        )
        changed = subprocess.run(
            [*git, "status", "--porcelain", "--untracked-files=no"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return []
    return [f"{named.stdout.strip()}{' and changes' if changed.stdout.strip() else ''}"]


def matmul_rate(dtype: torch.dtype, device: str = "cpu", width: int = 0) -> float:
    """Operations a second of a square matrix product on random numbers: the limit of training."""
    width = width or _PROBE_WIDTH[device]
    generator = torch.Generator().manual_seed(43)
    left, right = (torch.randn(width, width, generator=generator).to(device, dtype) for _ in range(2))
    seconds = []
    for _ in range(8):
        start = time.perf_counter()
        product = left @ right
        product[0, 0].item()  # waits for a GPU
        seconds.append(time.perf_counter() - start)
    return 2 * width**3 / statistics.median(seconds[1:])


def training_operations(
    num_tokens_N: npt.NDArray[np.int64], num_layers: int, width: int, feed_forward: int
) -> float:
    """Operations to learn once from each of N proteins: forward, and twice as many backward.

    Source: a BERT layer's matrix products, 8 t d^2 + 4 t d f for t tokens of width d and an inner width f,
    and 4 t^2 d of attention; embeddings and head are left out.
    """
    linear_N = num_tokens_N * (8.0 * width**2 + 4.0 * width * feed_forward)
    attention_N = 4.0 * width * num_tokens_N.astype(float) ** 2
    return 3 * num_layers * float((linear_N + attention_N).sum())
