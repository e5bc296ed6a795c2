"""The second task's scores: by value, from folder to folder, and without a say in the decision."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import matthews_corrcoef, roc_auc_score

from prottune.evaluation.exam import Exam
from prottune.evaluation.membrane import area_under_curve, score_membrane
from prottune.evaluation.settings import EvaluateConfig
from prottune.evaluation.stage import evaluate
from prottune.records import Membrane, Protein, Split
from tests.evaluation.test_stage import (
    CONFIG,
    LOCATIONS,
    Oracle,
    Said,
    make_proteins,
    write_model,
    write_records,
)

FLAGS = (Membrane.BOUND, Membrane.SOLUBLE, Membrane.UNKNOWN, Membrane.SOLUBLE)


def flagged(proteins: list[Protein]) -> list[Protein]:
    """In turn bound, soluble, unknown, soluble: a third of the known ones is bound."""
    return [replace(protein, membrane=FLAGS[n % 4]) for n, protein in enumerate(proteins)]


def says(probabilities: list[float | None]) -> list[Said]:
    nothing = np.full(3, 1 / 3, np.float32)
    return [Said(nothing, "Nucleus", 1 / 3, membrane=probability) for probability in probabilities]


def scored(proteins: list[Protein], probabilities: list[float | None], **settings: Any) -> Any:
    train = [protein for protein in proteins if protein.split is Split.TRAIN]
    asked = [protein for protein in proteins if protein.split in (Split.TEST, Split.GATE)]
    exam = Exam(LOCATIONS, train, asked)
    return score_membrane(exam, says(probabilities), EvaluateConfig(num_bootstraps=200, **settings))


@pytest.fixture
def proteins() -> list[Protein]:
    return flagged(make_proteins({Split.TRAIN: 40, Split.GATE: 8, Split.TEST: 40}))


def test_the_area_under_the_curve_is_scikit_learns_ties_included() -> None:
    generator = np.random.default_rng(0)
    truth, places = generator.integers(0, 2, (5, 60)), generator.integers(0, 9, (5, 60))
    expected = [roc_auc_score(flags, values) for flags, values in zip(truth, places, strict=True)]
    assert area_under_curve(truth, places) == pytest.approx(expected)
    assert np.isnan(area_under_curve(np.ones((1, 3), int), np.arange(3)[None])).all()


def test_proteins_with_a_known_flag_are_scored_and_the_others_counted(proteins: list[Protein]) -> None:
    generator = np.random.default_rng(1)
    probabilities = generator.random(48).tolist()
    found = scored(proteins, probabilities)[Split.TEST]
    known = [n for n in range(40) if n % 4 != 2]  # tests come after 8 gate proteins
    truth = [n % 4 == 0 for n in known]
    said = [probabilities[8 + n] for n in known]
    answered = [probability > 0.5 for probability in said]
    assert (found["num_proteins"], found["num_unknown"]) == (30, 10)
    assert found["share_bound"] == pytest.approx(1 / 3)
    assert found["majority"] == pytest.approx(2 / 3)
    assert found["accuracy"] == pytest.approx(np.mean([a == t for a, t in zip(answered, truth, strict=True)]))
    assert found["mcc"] == pytest.approx(matthews_corrcoef(truth, answered))
    assert found["auc"] == pytest.approx(roc_auc_score(truth, said))
    assert sum(map(sum, found["confusion"])) == 30
    assert set(found["intervals"]) == {"accuracy", "mcc", "auc"}
    for name, (low, high) in found["intervals"].items():
        assert low < found[name] < high
    assert set(found["baseline"]) == {"accuracy", "mcc", "auc", "intervals"}
    json.dumps(found, allow_nan=False)


def test_what_is_said_of_proteins_without_a_flag_changes_nothing(proteins: list[Protein]) -> None:
    probabilities = np.random.default_rng(1).random(48)
    before = scored(proteins, probabilities.tolist())
    probabilities[2::4] = 1 - probabilities[2::4]
    assert scored(proteins, probabilities.tolist()) == before


def test_the_floor_learns_from_the_flags_of_training_proteins_alone(proteins: list[Protein]) -> None:
    letters = {Membrane.BOUND: "L", Membrane.SOLUBLE: "K", Membrane.UNKNOWN: "A"}
    easy = [replace(protein, sequence=letters[protein.membrane] * 50) for protein in proteins]
    assert scored(easy, [0.5] * 48)[Split.TEST]["baseline"]["accuracy"] == 1.0
    untold = [
        replace(protein, membrane=Membrane.UNKNOWN) if protein.split is Split.TRAIN else protein
        for protein in easy
    ]
    assert scored(untold, [0.5] * 48)[Split.TEST]["baseline"] == {}


def test_what_cannot_be_computed_is_left_out(proteins: list[Protein]) -> None:
    nobody = [replace(protein, membrane=Membrane.UNKNOWN) for protein in proteins]
    assert scored(nobody, [0.5] * 48)[Split.TEST] == {"num_proteins": 0, "num_unknown": 40, "baseline": {}}
    bound = [replace(protein, membrane=Membrane.BOUND) for protein in proteins]
    found = scored(bound, [0.75] * 48)[Split.GATE]
    assert (found["accuracy"], found["majority"], found["mcc"]) == (1.0, 1.0, 0.0)
    assert "auc" not in found
    broken = scored(proteins, [float("nan")] * 48)[Split.GATE]
    assert (broken["num_not_finite"], "accuracy" in broken) == (6, False)


def test_a_model_that_does_not_tell_has_no_scores(proteins: list[Protein]) -> None:
    assert scored(proteins, [None] * 48) == {Split.TEST: None, Split.GATE: None}


class Telling(Oracle):
    """Right about the location as told, and always wrong about the membrane."""

    def _say(self, protein: Protein) -> Said:
        return replace(
            super()._say(protein), membrane=float(protein.membrane is not Membrane.BOUND) * 0.8 + 0.1
        )


def test_a_report_tells_of_the_second_task_apart_and_it_does_not_decide(tmp_path: Path) -> None:
    proteins = flagged(make_proteins())
    records = write_records(tmp_path / "records", proteins)
    model = write_model(tmp_path / "model", [p for p in proteins if p.split is Split.TRAIN])
    reports = {}
    for name, kind in (("silent", Oracle), ("telling", Telling)):
        oracle = kind(proteins, wrong=set())
        reports[name] = evaluate(
            records, model, tmp_path / name, CONFIG, load_model=lambda _, oracle=oracle: oracle
        )
    assert reports["telling"].decision == reports["silent"].decision == "promote"
    assert reports["telling"].reasons == reports["silent"].reasons
    metrics = json.loads((tmp_path / "telling" / "metrics.json").read_text())
    assert metrics["test"]["membrane"]["accuracy"] == metrics["gate"]["membrane"]["accuracy"] == 0.0
    assert metrics["test"]["membrane"]["auc"] == 0.0
    silent = json.loads((tmp_path / "silent" / "metrics.json").read_text())
    assert silent["test"]["membrane"] is silent["gate"]["membrane"] is None

    heading = "Second task: bound to a membrane, or soluble?"
    page = (tmp_path / "telling" / "report.html").read_text()
    section = page[page.index(f"<h2>{heading}") :].partition("</section>")[0]
    assert "This task has no say in the decision." in section
    assert "67 proteins with a known flag" in section
    assert heading not in (tmp_path / "silent" / "report.html").read_text()
    rows = pq.read_table(tmp_path / "telling" / "predictions.parquet").to_pylist()
    by_flag = {row["membrane_flag"]: row["membrane"] for row in rows}
    assert by_flag == {"M": pytest.approx(0.1), "S": pytest.approx(0.9), "U": pytest.approx(0.9)}
