"""Evaluate: records, a model and perhaps the champion in; scores, predictions, a page and a decision out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet

from prottune.artifacts import Manifest, new_folder, read_manifest
from prottune.errors import DataError
from prottune.evaluation.exam import (
    SCORED_SPLITS,
    Answer,
    Exam,
    Model,
    ModelLoader,
    ask,
    ask_floor,
    load_predictor,
    read_description,
    read_exam,
    score_rows,
    table_of_probabilities,
)
from prottune.evaluation.findings import Findings, Scores
from prottune.evaluation.gate import Comparison, GateScores, PairedAnswers, decide
from prottune.evaluation.leakage import known_proteins
from prottune.evaluation.membrane import score_membrane
from prottune.evaluation.metrics import Floats
from prottune.evaluation.page import write_evaluation_page
from prottune.evaluation.settings import EvaluateConfig, EvaluateReport
from prottune.records import Split, slug

METRICS_FILE = "metrics.json"
DECISION_FILE = "decision.json"
PREDICTIONS_FILE = "predictions.parquet"
PAGE_FILE = "report.html"


def evaluate(  # noqa: PLR0917  # the shape that every stage has
    records: Path,
    model: Path,
    report: Path,
    config: EvaluateConfig,
    champion: Path | None = None,
    champion_version: str = "",
    *,
    load_model: ModelLoader = load_predictor,
) -> EvaluateReport:
    """Score a model on the official test and the gate split, beside the floor, and decide on its promotion.

    `champion` is the model in use, asked about the same gate proteins; `champion_version` goes into
    `decision.json`, so that promotion can see whether it is still the one compared with.

    Raises: ArtifactError for a damaged or foreign folder; DataError if the records cannot be scored, have
        other locations than the model, or hold gate proteins that the model was trained on.
    """
    manifests = _read_manifests(records, model, champion)
    exam = read_exam(records, manifests["records"])
    inputs = {name: manifest.digest for name, manifest in manifests.items()}
    with new_folder(report, "evaluate", config, inputs) as draft:
        is_known = _check_known(model, exam)
        answers = ask(_load_candidate(model, exam, load_model), exam.scored, "candidate")
        probabilities = table_of_probabilities(answers, len(exam.locations))
        candidate = _score_splits(exam, probabilities, config)
        floor = _score_splits(exam, ask_floor(exam), config)
        comparison = None
        if champion is not None:
            rival = _Rival(load_model(champion), champion, champion_version)
            comparison = _compare(exam, probabilities, rival, config)
        findings = Findings(
            exam=exam,
            answers=answers,
            is_known=is_known,
            candidate=candidate,
            floor=floor,
            membrane=score_membrane(exam, answers, config),
            comparison=comparison,
            decision=decide(_gate_scores(candidate), _gate_scores(floor), comparison, config),
            manifests=manifests,
            description=read_description(model),
        )
        _write(draft.path, findings)
    return _report(findings)


@dataclass(frozen=True)
class _Rival:
    """The champion: the model, its folder and its version."""

    model: Model
    folder: Path
    version: str


def _read_manifests(records: Path, model: Path, champion: Path | None) -> dict[str, Manifest]:
    manifests = {"records": read_manifest(records, "ingest"), "model": read_manifest(model, "train")}
    if champion is not None:
        manifests["champion"] = read_manifest(champion, "train")
    return manifests


def _check_known(model: Path, exam: Exam) -> npt.NDArray[np.bool_]:
    """Say which scored proteins the candidate was trained on.

    Raises: DataError if some of them are to decide about it.
    """
    is_known = np.array(known_proteins(model, exam.scored), dtype=bool)
    known = [exam.scored[row].accession for row in exam.rows(Split.GATE) if is_known[row]]
    if known:
        raise DataError(
            f"{model}: trained on {len(known)} proteins of the gate split, e.g. {', '.join(known[:5])}; "
            "evaluate on the records it was trained from, or train on records without these proteins"
        )
    return is_known


def _load_candidate(folder: Path, exam: Exam, load_model: ModelLoader) -> Model:
    """Raises: DataError if the model answers with other locations, or in another order."""
    model = load_model(folder)
    if model.labels != exam.locations:
        raise DataError(
            f"{folder}: answers with locations {', '.join(model.labels)}; the records have "
            f"{', '.join(exam.locations)}; evaluate it on records with its own label set"
        )
    return model


def _score_splits(exam: Exam, probabilities_NC: Floats, config: EvaluateConfig) -> Scores:
    return {
        split: score_rows(exam, exam.rows(split), probabilities_NC[exam.rows(split)], config)
        for split in SCORED_SPLITS
    }


def _compare(exam: Exam, probabilities_NC: Floats, champion: _Rival, config: EvaluateConfig) -> Comparison:
    """Ask the champion about those gate proteins that it was not trained on, and score both on them."""
    labels = champion.model.labels
    if labels != exam.locations:
        nothing = GateScores(num_proteins=0)
        obstacle = f"it answers with other locations ({', '.join(labels)})"
        return Comparison(version=champion.version, champion=nothing, candidate=nothing, obstacle=obstacle)
    rows = exam.rows(Split.GATE)
    is_known = np.array(known_proteins(champion.folder, [exam.scored[row] for row in rows]), dtype=bool)
    rows = rows[~is_known]
    proteins = [exam.scored[row] for row in rows]
    theirs_NC = table_of_probabilities(ask(champion.model, proteins, "champion"), len(labels))
    return Comparison(
        version=champion.version,
        champion=GateScores.from_metrics(score_rows(exam, rows, theirs_NC, config)),
        candidate=GateScores.from_metrics(score_rows(exam, rows, probabilities_NC[rows], config)),
        answers=PairedAnswers(
            locations=exam.locations,
            truth_N=exam.labels(proteins),
            candidate_N=probabilities_NC[rows].argmax(axis=1),
            champion_N=theirs_NC.argmax(axis=1),
        ),
        num_known=int(is_known.sum()),
    )


def _gate_scores(scores: Scores) -> GateScores:
    return GateScores.from_metrics(scores[Split.GATE])


def _write(folder: Path, findings: Findings) -> None:
    _write_json(folder / METRICS_FILE, findings.metrics)
    _write_json(folder / DECISION_FILE, findings.verdict)
    _write_predictions(folder / PREDICTIONS_FILE, findings.exam, findings.answers)
    write_evaluation_page(folder / PAGE_FILE, findings)


def _report(findings: Findings) -> EvaluateReport:
    locations = list(findings.exam.locations)
    nothing = [[0] * len(locations) for _ in locations]
    return EvaluateReport(
        decision=findings.decision.decision,
        reasons=findings.decision.reasons,
        metrics=findings.metrics,
        locations=locations,
        confusion=findings.metrics[Split.TEST].get("confusion", nothing),
    )


def _write_predictions(path: Path, exam: Exam, answers: Sequence[Answer]) -> None:
    """Write one row a scored protein, in the order of the records; probabilities in label-set order."""
    proteins = exam.scored
    probabilities_CN = table_of_probabilities(answers, len(exam.locations)).T
    columns: dict[str, Any] = {
        "accession": [protein.accession for protein in proteins],
        "split": [protein.split.value for protein in proteins],
        "location": [protein.location for protein in proteins],
        "predicted": [answer.location for answer in answers],
        "probability": pa.array([answer.probability for answer in answers], pa.float32()),
    }
    for location, values in zip(exam.locations, probabilities_CN, strict=True):
        columns[f"p_{slug(location)}"] = pa.array(values, pa.float32())
    columns |= {
        "confident": [answer.confident for answer in answers],
        "unlike_training": [answer.unlike_training for answer in answers],
        "truncated": [answer.truncated for answer in answers],
        "num_residues": pa.array([protein.num_residues for protein in proteins], pa.int32()),
        "correct": [
            answer.location == protein.location for answer, protein in zip(answers, proteins, strict=True)
        ],
        "membrane_flag": [protein.membrane.value for protein in proteins],
        "membrane": pa.array([answer.membrane for answer in answers], pa.float32()),
    }
    pa.parquet.write_table(pa.table(columns), path, compression="zstd")


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
