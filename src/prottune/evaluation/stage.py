"""Evaluate: records, a model and perhaps the champion in; scores, predictions, a page and a decision out."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from prottune.artifacts import Manifest, new_folder, read_manifest
from prottune.evaluation.exam import (
    SCORED_SPLITS,
    Answer,
    Exam,
    Model,
    ModelLoader,
    ask,
    ask_floor,
    load_predictor,
    read_exam,
    score_rows,
    table_of_probabilities,
)
from prottune.evaluation.findings import Findings, Scores
from prottune.evaluation.gate import Comparison, GateScores, PairedAnswers, decide
from prottune.evaluation.groups import Groups, divide, score_divisions
from prottune.evaluation.leakage import ChampionKnowledge, champion_knowledge, refuse_contaminated
from prottune.evaluation.matching import obstacle_of, read_description, refuse_mismatch
from prottune.evaluation.membrane import score_membrane
from prottune.evaluation.metrics import Bools, Floats
from prottune.evaluation.mistakes import (
    Attribute,
    AttributorLoader,
    Explained,
    explain_mistakes,
    load_attributor,
)
from prottune.evaluation.page import write_evaluation_page
from prottune.evaluation.relatives import Relatives, find_relatives
from prottune.evaluation.reliability import confident_answers, judge_probabilities
from prottune.evaluation.roc import micro_average_roc
from prottune.evaluation.settings import EvaluateConfig, EvaluateReport
from prottune.evaluation.strangers import score_unlike_training
from prottune.evaluation.summary import summary_markdown
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
    load_attributor: AttributorLoader = load_attributor,
) -> EvaluateReport:
    """Score a model on the official test and the gate split, beside the floor, and decide on its promotion.

    `champion` is the model in use, asked about the same gate proteins; `champion_version` goes into
    `decision.json`, so that promotion can see whether it is still the one compared with.

    Raises: ArtifactError for a damaged or foreign folder, or one with another alphabet; DataError if the
        records cannot be scored, have other locations than the model, or hold too many proteins that the
        model was trained on; all of these before any model answers. ServiceError if MMseqs2 fails.
    """
    manifests = _read_manifests(records, model, champion)
    exam = read_exam(records, manifests["records"])
    description = read_description(model)
    refuse_mismatch(model, description, exam.locations)
    rival = None if champion is None else _meet(champion, champion_version, exam)
    inputs = {name: manifest.digest for name, manifest in manifests.items()}
    with new_folder(report, "evaluate", config, inputs) as draft:
        is_known = refuse_contaminated(model, exam, config.max_known_share)
        relatives = find_relatives(exam)
        asked = load_model(model)
        answers = ask(asked, exam.scored, "candidate")
        groups = divide(exam, relatives.has_relative | is_known, [answer.truncated for answer in answers])
        probabilities = table_of_probabilities(answers, len(exam.locations))
        candidate = _score_splits(exam, probabilities, groups, config)
        floor = _score_splits(exam, ask_floor(exam), groups, config)
        comparison = None
        if rival is not None:
            comparison = _compare(exam, probabilities, rival, load_model, config)
        findings = Findings(
            exam=exam,
            answers=answers,
            is_known=is_known,
            relatives=relatives,
            candidate=candidate,
            trust=_trust(
                exam,
                answers,
                probabilities,
                description.get("temperature", 1.0),
                strangers=_tell_strangers(asked, exam, is_known),
            ),
            explained=_explain(exam, answers, candidate, partial(load_attributor, model), config),
            floor=floor,
            membrane=score_membrane(exam, answers, config),
            comparison=comparison,
            champion_knowledge=None if rival is None else rival.knowledge,
            decision=decide(_gate_scores(candidate), _gate_scores(floor), comparison, config),
            manifests=manifests,
            description=description,
        )
        _write(draft.path, findings)
    return _report(findings)


@dataclass(frozen=True)
class _Rival:
    """The champion, met but not yet asked."""

    folder: Path
    version: str
    obstacle: str
    """Why it cannot be compared at all; empty if it can."""
    knowledge: ChampionKnowledge


def _meet(champion: Path, version: str, exam: Exam) -> _Rival:
    obstacle = obstacle_of(read_description(champion), exam.locations)
    return _Rival(champion, version, obstacle, champion_knowledge(champion, exam))


def _read_manifests(records: Path, model: Path, champion: Path | None) -> dict[str, Manifest]:
    manifests = {"records": read_manifest(records, "ingest"), "model": read_manifest(model, "train")}
    if champion is not None:
        manifests["champion"] = read_manifest(champion, "train")
    return manifests


def _score_splits(exam: Exam, probabilities_NC: Floats, groups: Groups, config: EvaluateConfig) -> Scores:
    scores = {}
    for split in SCORED_SPLITS:
        rows = exam.rows(split)
        scores[split] = {
            **score_rows(exam, rows, probabilities_NC[rows], config),
            **score_divisions(exam, rows, probabilities_NC[rows], groups, config),
        }
    return scores


def _tell_strangers(model: Model, exam: Exam, is_known_N: Bools) -> dict[str, Any] | None:
    """How well a model tells what is no protein from official test proteins that it was not trained on."""
    rows = exam.rows(Split.TEST)
    return score_unlike_training(model, [exam.scored[row].sequence for row in rows[~is_known_N[rows]]])


def _trust(
    exam: Exam,
    answers: Sequence[Answer],
    probabilities_NC: Floats,
    temperature: float,
    *,
    strangers: dict[str, Any] | None,
) -> Scores:
    """What each split shows of the candidate's probabilities; nothing where they are not finite."""
    flags_N2 = np.array([(answer.confident, answer.unlike_training) for answer in answers], dtype=bool)
    trust = {}
    for split in SCORED_SPLITS:
        rows = exam.rows(split)
        truth_K, chosen_KC = exam.labels([exam.scored[row] for row in rows]), probabilities_NC[rows]
        is_confident_K, is_unlike_K = flags_N2[rows].T
        trust[split] = judge_probabilities(truth_K, chosen_KC, is_confident_K, temperature)
        if trust[split]:
            trust[split]["unlike_training"] = confident_answers(
                is_unlike_K, chosen_KC.argmax(axis=1) == truth_K
            )
            trust[split]["roc"] = micro_average_roc(truth_K, chosen_KC)
    if trust[Split.TEST] and strangers is not None:
        trust[Split.TEST]["unlike_training"]["strangers"] = strangers
    return trust


def _explain(
    exam: Exam,
    answers: Sequence[Answer],
    scores: Scores,
    load: Callable[[], Attribute],
    config: EvaluateConfig,
) -> Explained:
    """Which residues misled the candidate; nothing of one whose answers are not finite."""
    if "accuracy" not in scores[Split.TEST]:
        return {}
    return explain_mistakes(exam, answers, config.explained_mistakes, load)


def _compare(
    exam: Exam, probabilities_NC: Floats, champion: _Rival, load_model: ModelLoader, config: EvaluateConfig
) -> Comparison:
    """Ask the champion about those gate proteins that are new to it, and score both on them."""
    if champion.obstacle:
        nothing = GateScores(num_proteins=0)
        return Comparison(
            version=champion.version, champion=nothing, candidate=nothing, obstacle=champion.obstacle
        )
    rows = champion.knowledge.fair_rows
    proteins = [exam.scored[row] for row in rows]
    answers = ask(load_model(champion.folder), proteins, "champion")
    theirs_NC = table_of_probabilities(answers, len(exam.locations))
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
        num_known=champion.knowledge.num_left_out,
    )


def _gate_scores(scores: Scores) -> GateScores:
    return GateScores.from_metrics(scores[Split.GATE])


def _write(folder: Path, findings: Findings) -> None:
    _write_json(folder / METRICS_FILE, findings.metrics)
    _write_json(folder / DECISION_FILE, findings.verdict)
    _write_predictions(folder / PREDICTIONS_FILE, findings.exam, findings.answers, findings.relatives)
    write_evaluation_page(folder / PAGE_FILE, findings)


def _report(findings: Findings) -> EvaluateReport:
    locations = list(findings.exam.locations)
    curve = findings.metrics[Split.TEST].get("roc", {})
    nothing = [[0] * len(locations) for _ in locations]
    return EvaluateReport(
        decision=findings.decision.decision,
        reasons=findings.decision.reasons,
        metrics=findings.metrics,
        locations=locations,
        confusion=findings.metrics[Split.TEST].get("confusion", nothing),
        roc=(
            curve.get("false_positive_rate", []),
            curve.get("true_positive_rate", []),
            curve.get("threshold", []),
        ),
        summary=summary_markdown(findings),
    )


def _write_predictions(path: Path, exam: Exam, answers: Sequence[Answer], relatives: Relatives) -> None:
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
        "relative": pa.array(relatives.accessions, pa.string()),
        "identity": pa.array(relatives.identities, pa.float32()),
    }
    pa.parquet.write_table(pa.table(columns), path, compression="zstd")


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
