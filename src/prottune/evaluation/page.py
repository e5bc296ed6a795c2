"""The page that shows what evaluation found: headline, decision, pictures, mistakes and provenance."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from prottune.artifacts import Manifest
from prottune.evaluation import page_mistakes, page_scores, page_trust
from prottune.evaluation.findings import Findings
from prottune.evaluation.summary import VERDICTS, headline
from prottune.evaluation.wording import FIGURES, FLOOR, interval_of
from prottune.records import Split
from prottune.reports.page import numbered, paragraph, table, tiles, write_page


def write_evaluation_page(path: Path, findings: Findings) -> None:
    """Write `report.html`; sections whose figures could not be computed are left out."""
    sections = [
        ("Decision", _decision),
        ("Scores on the official test", page_scores.test_section),
        ("Scores on the gate split", page_scores.gate_section),
    ]
    if "confusion" in findings.metrics[Split.TEST]:
        sections += [
            ("What is taken for what", page_scores.confusion_section),
            ("Each location", page_scores.locations_section),
            ("Near and far from the training proteins", page_scores.relatives_section),
            ("Short and long proteins", page_scores.lengths_section),
            ("Whole and cut, bound and soluble", page_scores.parts_section),
            ("Do the probabilities mean what they say?", page_trust.reliability_section),
            ("Only the surest answers", page_trust.rejection_section),
            ("Unlike the training proteins", page_trust.unlike_training_section),
            ("The surest mistakes", page_mistakes.mistakes_section),
        ]
    if findings.membrane[Split.TEST] is not None:
        sections.append(("Second task: bound to a membrane, or soluble?", page_scores.membrane_section))
    sections.append(("Where this comes from", _provenance))
    made = [(heading, make(findings)) for heading, make in sections]
    title = "Evaluation of a protein location model"
    write_page(path, title, headline(findings), made, lead=_headline_tiles(findings))


def _headline_tiles(findings: Findings) -> str:
    test, gate, floor = findings.metrics[Split.TEST], findings.metrics[Split.GATE], findings.floor[Split.TEST]
    boxes = [
        ("decision", VERDICTS[findings.decision.decision], f"on {gate['num_proteins']:,} gate proteins"),
        *(
            (
                f"{FIGURES[key]}, official test",
                f"{test[key]:.3f}",
                _beside(interval_of(test, key), floor, key),
            )
            for key in ("accuracy", "macro_f1", "mcc")
            if key in test
        ),
    ]
    return tiles(boxes)


def _beside(interval: str, floor: Mapping[str, float], key: str) -> str:
    return f"{interval}; {FLOOR} {floor[key]:.3f}" if key in floor else interval


def _decision(findings: Findings) -> str:
    gate, floor = findings.metrics[Split.GATE], findings.floor[Split.GATE]
    boxes = [
        (f"{FIGURES[key]}, gate", f"{gate[key]:.3f}", _beside(interval_of(gate, key), floor, key))
        for key in ("accuracy", "macro_f1")
        if key in gate
    ]
    if findings.comparison is not None and "accuracy" in (theirs := findings.comparison.champion.to_json()):
        version = findings.comparison.version
        boxes.append((f"champion {version}".strip(), f"{theirs['accuracy']:.3f}", "accuracy, same proteins"))
    if (found := findings.decision.difference) is not None:
        note = f"{found.low:+.3f}\u00a0to\u00a0{found.high:+.3f}, paired"
        boxes.append(("model less champion", f"{found.accuracy:+.3f}", note))
    rule = (
        "The gate split (training proteins set aside by homology cluster) decides, never the official test."
    )
    return (tiles(boxes) if boxes else "") + numbered(findings.decision.reasons) + paragraph(rule)


def _provenance(findings: Findings) -> str:
    records, model = findings.manifests["records"], findings.manifests["model"]
    described = {
        name: value for name, value in findings.description.items() if isinstance(value, (str, int, float))
    }
    data: dict[str, object] = {
        "records": records.digest,
        **_made_from(records),
        "label set": f"{records.facts['label_set']}: {', '.join(findings.exam.locations)}",
        "proteins": _counts(findings),
        **_in_words(records.settings),
    }
    made: dict[str, object] = {
        "model": model.digest,
        **_made_from(model),
        **_in_words(described),
    }
    if "champion" in findings.manifests:
        made["champion"] = findings.manifests["champion"].digest
    return (
        _facts("data", data)
        + _facts("model", made)
        + _facts("settings of training", _in_words(model.settings))
        + _facts(
            "software", {**records.versions, **model.versions, **findings.description.get("versions", {})}
        )
    )


def _made_from(manifest: Manifest) -> dict[str, object]:
    return {f"made from {name}": value for name, value in _in_words(manifest.inputs).items()}


def _counts(findings: Findings) -> str:
    test, gate = (len(findings.exam.rows(split)) for split in (Split.TEST, Split.GATE))
    return (
        f"{len(findings.exam.train):,} to train on, {gate:,} in the gate split, {test:,} in the official test"
    )


def _in_words(settings: Mapping[str, object]) -> dict[str, object]:
    return {name.replace("_", " "): value for name, value in sorted(settings.items()) if value != ""}


def _facts(name: str, facts: Mapping[str, object]) -> str:
    rows = [(key, f"{value:g}" if isinstance(value, float) else str(value)) for key, value in facts.items()]
    return table([name, ""], rows) if rows else ""
