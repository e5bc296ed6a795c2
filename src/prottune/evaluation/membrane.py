"""How good a model is at its second task: is a protein bound to a membrane, or soluble?

Reported on its own: nothing here is among what the gate looks at. Proteins whose flag nobody knows are left
out. Shapes: K proteins with a known flag, B resamples, P different probabilities.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from prottune.evaluation.exam import SCORED_SPLITS, Answer, Exam
from prottune.evaluation.floor import floor_answers
from prottune.evaluation.metrics import Floats, Ints, draws, interval, score
from prottune.evaluation.settings import EvaluateConfig
from prottune.records import Membrane, Protein, Split

_FLAGS = (Membrane.SOLUBLE, Membrane.BOUND)
"""The two answers, in the order in which probabilities are scored."""
_KEPT = ("num_not_finite", "accuracy", "mcc", "ece", "intervals", "confusion")
_FLOOR_KEPT = ("accuracy", "mcc", "auc", "intervals")

MembraneScores = Mapping[Split, Mapping[str, Any] | None]
"""Scores of each split; None for a model that does not tell."""


def score_membrane(exam: Exam, answers: Sequence[Answer], config: EvaluateConfig) -> MembraneScores:
    """Score what a model says of the membrane, beside a floor; `answers` follow `exam.scored` one by one.

    The floor is the location's, fitted on the flags of the training proteins. `majority` is the accuracy of
    always naming the flag that is more common.
    """
    said = [answer.membrane for answer in answers]
    if any(probability is None for probability in said):
        return dict.fromkeys(SCORED_SPLITS)
    probability_N = np.array(said, dtype=np.float64)
    flagged = np.flatnonzero([protein.membrane in _FLAGS for protein in exam.scored])
    floor_N = np.full(len(exam.scored), np.nan)
    floor_N[flagged] = _ask_floor(exam.train, [exam.scored[row] for row in flagged])
    scores: dict[Split, Mapping[str, Any]] = {}
    for split in SCORED_SPLITS:
        rows_K = np.intersect1d(exam.rows(split), flagged)
        proteins = [exam.scored[row] for row in rows_K]
        floor = _score(proteins, floor_N[rows_K], config)
        scores[split] = {
            "num_proteins": len(proteins),
            "num_unknown": len(exam.rows(split)) - len(proteins),
            **_shares(proteins),
            **_score(proteins, probability_N[rows_K], config),
            "baseline": {name: floor[name] for name in _FLOOR_KEPT if name in floor},
        }
    return scores


def _ask_floor(train: Sequence[Protein], asked: Sequence[Protein]) -> Floats:
    """Probability of being bound, [K]; NaN if the training proteins do not show both flags."""
    known = [protein for protein in train if protein.membrane in _FLAGS]
    truth = _truth(known)
    if not asked or len(np.unique(truth)) < len(_FLAGS):
        return np.full(len(asked), np.nan)
    trained, scored = ([protein.sequence for protein in part] for part in (known, asked))
    return floor_answers(trained, truth, scored, len(_FLAGS))[:, 1]


def _truth(proteins: Sequence[Protein]) -> Ints:
    return np.array([_FLAGS.index(protein.membrane) for protein in proteins], dtype=np.int64)


def _shares(proteins: Sequence[Protein]) -> dict[str, float]:
    if not proteins:
        return {}
    share = float(_truth(proteins).mean())
    return {"share_bound": share, "majority": max(share, 1 - share)}


def _score(proteins: Sequence[Protein], probability_K: Floats, config: EvaluateConfig) -> dict[str, Any]:
    """Figures with intervals; what is undefined is left out."""
    truth_K = _truth(proteins)
    scores = score(
        truth_K,
        np.stack([1 - probability_K, probability_K], axis=1),
        _FLAGS,
        np.array([protein.num_residues for protein in proteins], dtype=np.int64),
        num_bootstraps=config.num_bootstraps,
        seed=config.bootstrap_seed,
    )
    kept = {name: scores[name] for name in _KEPT if name in scores}
    if "accuracy" in kept:
        kept["intervals"] = {name: kept["intervals"][name] for name in ("accuracy", "mcc")}
    if "accuracy" in kept and len(np.unique(truth_K)) == len(_FLAGS):
        place_K = np.unique(probability_K, return_inverse=True)[1]
        resampled = [
            area_under_curve(truth_K[draws_BK], place_K[draws_BK])
            for draws_BK in draws(len(truth_K), config.num_bootstraps, config.bootstrap_seed)
        ]
        kept["auc"] = float(area_under_curve(truth_K[None], place_K[None])[0])
        kept["intervals"]["auc"] = interval(np.concatenate(resampled))
    return kept


def area_under_curve(truth_BK: Ints, place_BK: Ints) -> Floats:
    """The chance that a bound protein gets a higher probability than a soluble one, [B]; a tie is half of it.

    `place_BK` numbers the probabilities from the lowest, equal ones alike. NaN where all have one flag.

    Source: Hanley & McNeil 1982, The meaning and use of the area under a receiver operating characteristic
    (ROC) curve.
    """
    num_rows, num_places = len(place_BK), int(place_BK.max()) + 1
    cells = (place_BK + num_places * np.arange(num_rows)[:, None]).ravel()
    all_BP, bound_BP = (
        np.bincount(cells, weights, num_rows * num_places).reshape(num_rows, num_places)
        for weights in (None, truth_BK.ravel())
    )
    soluble_BP = all_BP - bound_BP
    below_BP = soluble_BP.cumsum(axis=1) - soluble_BP / 2
    pairs_B = bound_BP.sum(axis=1) * soluble_BP.sum(axis=1)
    area_B = np.full(len(pairs_B), np.nan)
    np.divide((bound_BP * below_BP).sum(axis=1), pairs_B, out=area_B, where=pairs_B > 0)
    return area_B
