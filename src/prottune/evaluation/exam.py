"""The proteins that are scored, and what candidate, floor and champion answer about them.

Shapes: N proteins, C locations.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from prottune.artifacts import Manifest
from prottune.errors import DataError
from prottune.evaluation.floor import floor_answers
from prottune.evaluation.metrics import Floats, Ints, score
from prottune.evaluation.settings import EvaluateConfig
from prottune.records import Protein, Split, read_proteins, slug

_log = logging.getLogger(__name__)
_PROTEINS_AT_ONCE = 512

SCORED_SPLITS = (Split.TEST, Split.GATE)


class Answer(Protocol):
    """What a model says about one protein; `probabilities` are in the order of the model's labels."""

    @property
    def probabilities(self) -> npt.NDArray[np.float32]: ...
    @property
    def location(self) -> str: ...
    @property
    def probability(self) -> float: ...
    @property
    def confident(self) -> bool: ...
    @property
    def unlike_training(self) -> bool: ...
    @property
    def unlikeness(self) -> float | None: ...
    @property
    def truncated(self) -> bool: ...
    @property
    def membrane(self) -> float | None: ...


class Model(Protocol):
    """What evaluation needs of a model; each tokenizes and cuts the same proteins its own way."""

    @property
    def labels(self) -> tuple[str, ...]: ...
    def predict(self, sequences: Sequence[str], /) -> Sequence[Answer]: ...


ModelLoader = Callable[[Path], Model]


def load_predictor(folder: Path) -> Model:
    """Open a model folder just as the endpoint does."""
    from prottune.model.inference import Predictor

    return Predictor.load(folder)


@dataclass(frozen=True)
class Exam:
    """Proteins with known locations: some to fit the floor on, the others to be scored."""

    locations: tuple[str, ...]
    train: list[Protein]
    scored: list[Protein]
    """Official test and gate."""

    def labels(self, proteins: Sequence[Protein]) -> Ints:
        """True locations as positions in the label set."""
        return np.array([self.locations.index(protein.location) for protein in proteins], dtype=np.int64)

    def rows(self, split: Split) -> Ints:
        """Where the proteins of a split stand among the scored ones."""
        return np.flatnonzero([protein.split is split for protein in self.scored])


def read_exam(records: Path, manifest: Manifest) -> Exam:
    """Read the proteins of a checked records folder.

    Raises: DataError if there is nothing to train the floor on or nothing to test on, or if two locations
        would share a column of the predictions.
    """
    locations = tuple(manifest.facts["labels"])
    proteins = read_proteins(records)
    for split in (Split.TRAIN, Split.TEST):
        if not any(protein.split is split for protein in proteins):
            raise DataError(f"{records}: no protein in split {split.value!r}; expected at least one")
    slugs = [slug(location) for location in locations]
    shared = [location for location, name in zip(locations, slugs, strict=True) if slugs.count(name) > 1]
    if shared:
        raise DataError(
            f"{records}: locations {', '.join(shared[:5])} differ in nothing but signs; rename them"
        )
    train = [protein for protein in proteins if protein.split is Split.TRAIN]
    return Exam(locations, train, [protein for protein in proteins if protein.split in SCORED_SPLITS])


def ask(model: Model, proteins: Sequence[Protein], who: str) -> list[Answer]:
    """Let a model answer about some proteins, in their order; `who` names it to whoever watches."""
    answers: list[Answer] = []
    with tqdm(total=len(proteins), unit="protein", desc=who, disable=not sys.stderr.isatty()) as bar:
        for start in range(0, len(proteins), _PROTEINS_AT_ONCE):
            asked = proteins[start : start + _PROTEINS_AT_ONCE]
            answers += model.predict([protein.sequence for protein in asked])
            bar.update(len(asked))
    _log.info("the %s answered about %s proteins", who, f"{len(proteins):,}")
    return answers


def table_of_probabilities(answers: Sequence[Answer], num_locations: int) -> Floats:
    """Put the answers' probabilities into one table, [N, C]."""
    rows = [answer.probabilities for answer in answers]
    return np.array(rows, dtype=np.float64).reshape(len(answers), num_locations)


def ask_floor(exam: Exam) -> Floats:
    """What the floor, fitted on the training proteins, answers about the scored ones, [N, C]."""
    trained, asked = ([protein.sequence for protein in part] for part in (exam.train, exam.scored))
    return floor_answers(trained, exam.labels(exam.train), asked, len(exam.locations))


def score_rows(exam: Exam, rows_N: Ints, probabilities_NC: Floats, config: EvaluateConfig) -> dict[str, Any]:
    """Score answers about some of the exam's proteins; `probabilities_NC` has a row for each."""
    proteins = [exam.scored[row] for row in rows_N]
    return score(
        exam.labels(proteins),
        probabilities_NC,
        exam.locations,
        np.array([protein.num_residues for protein in proteins], dtype=np.int64),
        num_bootstraps=config.num_bootstraps,
        seed=config.bootstrap_seed,
    )
