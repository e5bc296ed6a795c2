"""How good a model's answers are: figures with intervals, from true locations and answered probabilities.

Shapes: N proteins, C locations, B resamples. `truth_N` and `answers_N` hold positions in the label set.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

NUM_CALIBRATION_BINS = 15
"""Equal-width bins of confidence. Source: Guo et al. 2017, On Calibration of Modern Neural Networks."""

LENGTH_BINS: tuple[tuple[str, int], ...] = (
    ("up_to_128", 128),
    ("129_to_256", 256),
    ("257_to_510", 510),
    ("511_to_1022", 1022),
    ("above_1022", np.iinfo(np.int64).max),
)
"""Name and largest number of residues; 510 and 1022 residues fill 512 and 1024 tokens."""

_MOST_DRAWS_AT_ONCE = 2_000_000


def score(
    truth_N: Ints,
    probabilities_NC: Floats,
    locations: Sequence[str],
    num_residues_N: Ints,
    *,
    num_bootstraps: int,
    seed: int,
) -> dict[str, Any]:
    """Score the answers on one split, in plain numbers; what is undefined is left out, never NaN.

    Without proteins there is only `num_proteins`; when answers are not finite, only how many are not.
    """
    if len(truth_N) == 0:
        return {"num_proteins": 0}
    num_not_finite = int((~np.isfinite(probabilities_NC).all(axis=1)).sum())
    if num_not_finite:
        return {"num_proteins": len(truth_N), "num_not_finite": num_not_finite}
    answers_N = probabilities_NC.argmax(axis=1)
    confidence_N = probabilities_NC.max(axis=1)
    confusion_CC = confusion(truth_N, answers_N, len(locations))
    is_correct_N = truth_N == answers_N
    measured, resampled_f1_BC = _measure(truth_N, probabilities_NC, num_bootstraps, seed)
    return {
        **measured,
        "ece": calibration_error(confidence_N, is_correct_N),
        "per_class": _per_class(confusion_CC, locations, resampled_f1_BC),
        "confusion": confusion_CC.tolist(),
        "by_length": score_groups(
            truth_N, probabilities_NC, _by_length(num_residues_N), num_bootstraps=num_bootstraps, seed=seed
        ),
        "reliability": reliability(confidence_N, is_correct_N),
    }


def score_groups(
    truth_N: Ints, probabilities_NC: Floats, groups: Mapping[str, Bools], *, num_bootstraps: int, seed: int
) -> dict[str, dict[str, Any]]:
    """Score some groups of proteins, each by itself; `groups` holds True where a protein belongs to it.

    Each has accuracy, macro F1, MCC and top-2 accuracy with intervals; a group without proteins is left out.
    """
    return {
        name: _measure(truth_N[inside_N], probabilities_NC[inside_N], num_bootstraps, seed)[0]
        for name, inside_N in groups.items()
        if inside_N.any()
    }


def _measure(
    truth_N: Ints, probabilities_NC: Floats, num_bootstraps: int, seed: int
) -> tuple[dict[str, Any], Floats]:
    """The figures of some proteins with their intervals, and F1 of each location in each resample, [B, C]."""
    num_locations, answers_N = probabilities_NC.shape[1], probabilities_NC.argmax(axis=1)
    in_top2_N = ranks(truth_N, probabilities_NC) < 2
    codes_N = truth_N * num_locations + answers_N
    resampled = _bootstrap(codes_N, in_top2_N, num_locations, num_bootstraps, seed)
    measured = {
        "num_proteins": len(truth_N),
        **figures(confusion(truth_N, answers_N, num_locations)),
        "top2_accuracy": float(in_top2_N.mean()),
        "intervals": {name: interval(resampled[name]) for name in (*_FIGURES, "top2_accuracy")},
    }
    return measured, resampled["f1"]


def ranks(truth_N: Ints, probabilities_NC: Floats) -> Ints:
    """How many locations a model holds for more probable than the true one, [N]; 0 is a right answer.

    Of equally probable locations the first in the label set counts as more probable, as in the answer.
    """
    true_N1 = truth_N[:, None]
    own_N1 = np.take_along_axis(probabilities_NC, true_N1, axis=1)
    is_earlier_NC = np.arange(probabilities_NC.shape[1]) < true_N1
    is_above_NC = (probabilities_NC > own_N1) | ((probabilities_NC == own_N1) & is_earlier_NC)
    above_N: Ints = is_above_NC.sum(axis=1)
    return above_N


def figures(confusion_CC: Ints) -> dict[str, float]:
    """Accuracy, macro F1 and MCC of one confusion matrix (rows are true, columns answered)."""
    matrices_1CC = confusion_CC[None].astype(np.float64)
    return {name: float(measure(matrices_1CC)[0]) for name, measure in _FIGURES.items()}


def confusion(truth_N: Ints, answers_N: Ints, num_locations: int) -> Ints:
    """Count proteins by true location (rows) and answered location (columns)."""
    codes_N = truth_N * num_locations + answers_N
    return np.bincount(codes_N, minlength=num_locations**2).reshape(num_locations, num_locations)


def calibration_error(confidence_N: Floats, is_correct_N: npt.NDArray[np.bool_]) -> float:
    """Expected calibration error: how far confidence lies from accuracy, averaged over bins by size."""
    gap_N = is_correct_N - confidence_N
    sums = np.bincount(_bins(confidence_N), weights=gap_N, minlength=NUM_CALIBRATION_BINS)
    return float(np.abs(sums).sum() / len(gap_N))


def reliability(confidence_N: Floats, is_correct_N: npt.NDArray[np.bool_]) -> list[dict[str, float | int]]:
    """Mean confidence and accuracy of each bin of confidence that holds a protein."""
    bins_N = _bins(confidence_N)
    return [
        {
            "confidence": float(confidence_N[bins_N == number].mean()),
            "accuracy": float(is_correct_N[bins_N == number].mean()),
            "num_proteins": int((bins_N == number).sum()),
        }
        for number in np.unique(bins_N)
    ]


def _bins(confidence_N: Floats) -> Ints:
    """Bin k holds confidences above k/15, up to and including (k+1)/15."""
    numbers_N = np.ceil(confidence_N * NUM_CALIBRATION_BINS).astype(np.int64) - 1
    return np.clip(numbers_N, 0, NUM_CALIBRATION_BINS - 1)


def _accuracy(matrices_BCC: Floats) -> Floats:
    share_B: Floats = np.trace(matrices_BCC, axis1=1, axis2=2) / matrices_BCC.sum(axis=(1, 2))
    return share_B


def _f1(matrices_BCC: Floats) -> Floats:
    """F1 of each location; NaN where it does not occur in the truth."""
    true_BC, answered_BC = matrices_BCC.sum(axis=2), matrices_BCC.sum(axis=1)
    hits_BC = np.diagonal(matrices_BCC, axis1=1, axis2=2)
    f1_BC = np.full(hits_BC.shape, np.nan)
    np.divide(2 * hits_BC, true_BC + answered_BC, out=f1_BC, where=true_BC > 0)
    return f1_BC


def _macro_f1(matrices_BCC: Floats) -> Floats:
    """Plain mean of F1 over the locations that occur in the truth; others of the label set do not count."""
    mean_B: Floats = np.nanmean(_f1(matrices_BCC), axis=1)
    return mean_B


def _mcc(matrices_BCC: Floats) -> Floats:
    """Matthews correlation for many classes; 0, as scikit-learn has it, when all answers are one location.

    Source: Gorodkin 2004, Comparing two K-category assignments by a K-category correlation coefficient.
    """
    true_BC, answered_BC = matrices_BCC.sum(axis=2), matrices_BCC.sum(axis=1)
    num_B = matrices_BCC.sum(axis=(1, 2))
    correct_B = np.trace(matrices_BCC, axis1=1, axis2=2)
    agreement_B = correct_B * num_B - (true_BC * answered_BC).sum(axis=1)
    spread_true_B = num_B**2 - (true_BC**2).sum(axis=1)
    spread_answered_B = num_B**2 - (answered_BC**2).sum(axis=1)
    root_B = np.sqrt(spread_true_B * spread_answered_B)
    mcc_B: Floats = np.zeros_like(root_B)
    np.divide(agreement_B, root_B, out=mcc_B, where=root_B > 0)
    return mcc_B


def _per_class(
    confusion_CC: Ints, locations: Sequence[str], resampled_f1_BC: Floats
) -> dict[str, dict[str, Any]]:
    """Precision, recall, F1 and support of each location; a figure without a denominator is left out."""
    f1_C = _f1(confusion_CC[None].astype(np.float64))[0]
    scores: dict[str, dict[str, Any]] = {}
    for number, location in enumerate(locations):
        hits = int(confusion_CC[number, number])
        support, answered = int(confusion_CC[number].sum()), int(confusion_CC[:, number].sum())
        scores[location] = {"support": support}
        if answered:
            scores[location]["precision"] = hits / answered
        if support:
            scores[location] |= {"recall": hits / support, "f1": float(f1_C[number])}
            scores[location]["f1_interval"] = interval(resampled_f1_BC[:, number])
    return scores


def _by_length(num_residues_N: Ints) -> dict[str, Bools]:
    """Which proteins each bin of lengths holds."""
    edges = [largest for _, largest in LENGTH_BINS]
    bins_N = np.searchsorted(edges, num_residues_N)  # an edge belongs to the bin it ends
    return {name: bins_N == number for number, (name, _) in enumerate(LENGTH_BINS)}


def _bootstrap(
    codes_N: Ints, in_top2_N: Bools, num_locations: int, num_bootstraps: int, seed: int
) -> dict[str, Floats]:
    """Score resamples of proteins drawn with replacement; `codes_N` are cells of the confusion matrix.

    The calibration error gets no interval: a resample's is larger by construction, so the interval
    would lie off its own figure.
    """
    num_cells = num_locations**2
    matrices, top2 = [], []
    for draws_BN in draws(len(codes_N), num_bootstraps, seed):
        first_cell_B1 = num_cells * np.arange(len(draws_BN))[:, None]
        cells = (codes_N[draws_BN] + first_cell_B1).ravel()
        matrices.append(np.bincount(cells, minlength=num_cells * len(draws_BN)))
        top2.append(in_top2_N[draws_BN].mean(axis=1))
    matrices_BCC = np.concatenate(matrices).reshape(-1, num_locations, num_locations).astype(np.float64)
    resampled = {name: measure(matrices_BCC) for name, measure in _FIGURES.items()}
    return resampled | {"top2_accuracy": np.concatenate(top2), "f1": _f1(matrices_BCC)}


def draws(num_proteins: int, num_bootstraps: int, seed: int) -> Iterator[Ints]:
    """Yield all resamples, some at a time so that memory stays bounded; the same ones for equal sizes."""
    generator = np.random.default_rng(seed)
    step = max(1, _MOST_DRAWS_AT_ONCE // num_proteins)
    for start in range(0, num_bootstraps, step):
        size = (min(step, num_bootstraps - start), num_proteins)
        yield generator.integers(0, num_proteins, size)


def interval(values_B: Floats) -> list[float]:
    """95 % percentile interval. Source: Efron 1979, Bootstrap methods: another look at the jackknife."""
    low, high = np.nanquantile(values_B, (0.025, 0.975))
    return [float(low), float(high)]


_FIGURES = {"accuracy": _accuracy, "macro_f1": _macro_f1, "mcc": _mcc}
