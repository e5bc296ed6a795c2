"""Lengths of made-up proteins, distributed as those of DeepLoc."""

import numpy as np

from prottune.training.batching import Integers

GIANT = 13_102
"""Tokens of DeepLoc's longest protein."""


def deeploc_like_lengths(num_proteins: int = 13_704, longest: int = 6000) -> Integers:
    """Tokens of random proteins of at most so many residues (log-normal, median 400)."""
    lengths = np.random.default_rng(43).lognormal(5.993, 0.762, num_proteins)
    return np.clip(lengths, 40, longest).astype(np.int64) + 2
