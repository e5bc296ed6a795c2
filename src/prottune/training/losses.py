"""What training makes smaller, and what of it is measured: the location, and the membrane flag beside it.

Shapes: N proteins of a split, B of them together, C locations, O outputs of the model: the locations and, if
it has that output, the membrane's behind them.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own spelling
from torch import Tensor

from prottune.model.calibration import calibrated_loss
from prottune.model.classifier import split_logits
from prottune.training.batching import Integers
from prottune.training.examples import Examples
from prottune.training.optimization import class_weights
from prottune.training.settings import TrainConfig


class JointLoss:
    """The loss of a global batch, in parts that any rank can work out from the proteins it holds.

    The location counts as a mean over all proteins, weighted by location; the membrane flag as a mean over
    the proteins that have one, times `membrane_weight`.

    Source: light attention's own code, https://github.com/HannesStark/protein-localization, where the second
    loss is weighted by `solubility_loss` (0 unless set) and unknown flags are left out.
    """

    def __init__(self, examples: Examples, num_locations: int, config: TrainConfig) -> None:
        self._num_locations = num_locations
        self._labels_N = torch.from_numpy(examples.labels_N)
        weights_C = class_weights(config.class_weights, examples.labels_N, num_locations)
        self._weights_N = weights_C[examples.labels_N]
        self._flags_N = torch.from_numpy(np.nan_to_num(examples.membrane_N))
        self._is_known_N = torch.from_numpy(examples.has_flag).float()
        self._membrane_weight = config.membrane_weight

    def part(self, logits_BO: Tensor, proteins: Integers, batch: Integers) -> Tensor:
        """What some proteins add to the loss of their global batch; the parts add up to it.

        Proteins without a flag reach the membrane's parameters too, with a loss of 0: among several processes
        each must have a gradient for every parameter.
        """
        device = logits_BO.device
        logits_BC, membrane_B = split_logits(logits_BO, self._num_locations)
        losses_B = F.cross_entropy(logits_BC, self._labels_N[proteins].to(device), reduction="none")
        loss = (losses_B * self._weights_N[proteins].to(device)).sum() / self._weights_N[batch].sum()
        if membrane_B is None:
            return loss
        flags_B, is_known_B = self._flags_N[proteins].to(device), self._is_known_N[proteins].to(device)
        losses_B = F.binary_cross_entropy_with_logits(membrane_B, flags_B, reduction="none")
        num_known = self._is_known_N[batch].sum().clamp(min=1)
        return loss + self._membrane_weight * (losses_B * is_known_B).sum() / num_known


def figures(logits_NO: Tensor, examples: Examples, num_locations: int) -> dict[str, float]:
    """How good a model's answers about the proteins of a split are.

    Those about the membrane are of the proteins whose flag is known; left out if there is none, or if the
    model does not tell.
    """
    logits_NC, membrane_N = split_logits(logits_NO, num_locations)
    labels_N = torch.from_numpy(examples.labels_N)
    found = {
        "loss": float(F.cross_entropy(logits_NC, labels_N)),
        "calibrated_loss": calibrated_loss(logits_NC, labels_N),
        "accuracy": float((logits_NC.argmax(dim=1) == labels_N).double().mean()),
    }
    if membrane_N is not None and examples.has_flag.any():
        membrane_K = membrane_N[torch.from_numpy(examples.has_flag)]
        flags_K = torch.from_numpy(examples.membrane_N[examples.has_flag])
        found["membrane_loss"] = float(F.binary_cross_entropy_with_logits(membrane_K, flags_K))
        found["membrane_accuracy"] = float(((membrane_K > 0) == (flags_K > 0)).double().mean())
    return found
