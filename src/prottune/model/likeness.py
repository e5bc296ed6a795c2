"""Whether a protein is like those that a model learned from: how far its features lie from theirs.

Shapes: N training proteins, B proteins of a batch, C locations, D width of the features.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

LIKENESS_FILE = "likeness.safetensors"
LIKE_SHARE = 0.99
"""Share of the validation proteins that count as like training: one in a hundred alarms is false."""
MAX_FITTED = 2048
"""Most training proteins that centres and spread are worked out from: twice ProtBERT's width, and on DeepLoc
less than a tenth of an epoch's time."""

_NEVER_NOTHING = 1e-12
_LEAST_WEIGHT = 1e-6
"""Of equal variances in the covariance, so that it has an inverse where few proteins look certain."""


@dataclass(frozen=True)
class Likeness:
    """Where the features of training proteins lie: a centre for each location, and one spread around them."""

    centres_CD: Tensor
    """Whitened, fp32; a location without training proteins has none."""
    whitening_DD: Tensor
    """Features times this are as spread in one direction as in any other."""

    def distance(self, features_BD: Tensor) -> Tensor:
        """How far proteins lie from the nearest centre, [B]: 1 is a usual training protein's distance.

        The Mahalanobis distance, divided by the square root of D.

        Source: Lee et al. 2018, A Simple Unified Framework for Detecting Out-of-Distribution Samples and
        Adversarial Attacks, equation 2 (its score is minus the square).
        """
        whitened_BD = features_BD.float() @ self.whitening_DD
        # Not by matrix products, which would lose small distances between large numbers.
        away_BC = torch.cdist(whitened_BD, self.centres_CD, compute_mode="donot_use_mm_for_euclid_dist")
        return away_BC.amin(dim=1) / math.sqrt(features_BD.shape[1])

    def to(self, device: torch.device | str) -> Likeness:
        """The same on another device."""
        return Likeness(self.centres_CD.to(device), self.whitening_DD.to(device))

    def save(self, folder: Path) -> None:
        """Write it into a model folder in the making."""
        tensors = {"centres_CD": self.centres_CD, "whitening_DD": self.whitening_DD}
        tensors = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
        safetensors.torch.save_file(tensors, folder / LIKENESS_FILE)


def read_likeness(folder: Path) -> Likeness | None:
    """What a checked model folder knows of its training proteins; None if it was made before folders did."""
    path = folder / LIKENESS_FILE
    return Likeness(**safetensors.torch.load_file(path)) if path.is_file() else None


def fit_likeness(features_ND: Tensor, labels_N: Tensor) -> Likeness:
    """Work out centres and spread from the features of training proteins.

    Source: Lee et al. 2018, equation 1: a mean for each class, and one covariance around all of them.
    """
    features_ND = features_ND.double()
    present_C, place_N = labels_N.unique(return_inverse=True)
    sums_CD = features_ND.new_zeros(len(present_C), features_ND.shape[1]).index_add(0, place_N, features_ND)
    centres_CD = sums_CD / place_N.bincount()[:, None]
    covariance_DD = shrunk_covariance(features_ND - centres_CD[place_N])
    whitening_DD = torch.linalg.cholesky(torch.linalg.inv(covariance_DD))
    return Likeness((centres_CD @ whitening_DD).float(), whitening_DD.float())


def shrunk_covariance(deviations_ND: Tensor) -> Tensor:
    """Estimate a covariance from deviations that may be fewer than their width, so that it has an inverse.

    The plain estimate is drawn towards equal variances without correlation, the further the less sure it is.

    Source: Ledoit and Wolf 2004, A well-conditioned estimator for large-dimensional covariance matrices,
    lemma 3.2 to 3.4.
    """
    num_proteins, width = deviations_ND.shape
    plain_DD = deviations_ND.T @ deviations_ND / num_proteins
    variance = (plain_DD.trace() / width).clamp_min(_NEVER_NOTHING)
    target_DD = variance * torch.eye(width, dtype=plain_DD.dtype, device=plain_DD.device)
    squares_ND = deviations_ND**2
    noise = ((squares_ND.T @ squares_ND / num_proteins) - plain_DD**2).sum() / num_proteins
    spread = ((plain_DD - target_DD) ** 2).sum()
    weight = float((noise / spread).clamp(_LEAST_WEIGHT, 1)) if spread > 0 else 1.0
    return weight * target_DD + (1 - weight) * plain_DD


def fit_unlike_above(distance_N: Tensor) -> float:
    """The distance that `LIKE_SHARE` of the validation proteins keep within; the rest is unlike training."""
    return float(distance_N.double().quantile(LIKE_SHARE))
