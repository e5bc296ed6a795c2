"""The page's part about right and wrong answers: scores of all proteins, of parts of them, mistakes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prottune.evaluation.findings import Findings
from prottune.evaluation.metrics import LENGTH_BINS
from prottune.evaluation.wording import COLUMNS, FIGURES, FLOOR, compared, interval_of, low_to_high, percent
from prottune.homology import MIN_COVERAGE, MIN_IDENTITY
from prottune.records import Split
from prottune.reports.charts import bars, heat_map
from prottune.reports.page import paragraph, table

Scores = Mapping[str, Any]
"""Figures of some proteins, as metrics.json has them."""

_MEMBRANE_FIGURES = {
    "accuracy": "accuracy",
    "mcc": "MCC",
    "auc": "area under the ROC curve",
    "ece": "calibration error",
}
_Part = tuple[str, str, str]
"""Name of a division and of a group of it in metrics.json, and words for the group."""
_RELATIVES = ("all", "far", "near")
_PARTS: tuple[_Part, ...] = (
    ("by_cut", "whole", "read whole"),
    ("by_cut", "cut", "cut to the model's length"),
    ("by_membrane", "bound", "bound to a membrane"),
    ("by_membrane", "soluble", "soluble"),
    ("by_membrane", "unknown", "membrane flag unknown"),
)


def test_section(findings: Findings) -> str:
    """Scores of all official test proteins, with intervals, beside the floor's."""
    test, floor = findings.metrics[Split.TEST], findings.floor[Split.TEST]
    known = test["num_known"]
    words = (
        f"{known:,} of {test['num_proteins']:,} test proteins were in the model's own training, by base "
        "accession or sequence."
    )
    if known:
        words += " Of these it is no honest test."
    note = (
        "Macro F1 is the plain mean over the locations that occur. Intervals are 95 %, from resampled "
        "proteins. The floor is logistic regression on composition, residue pairs and both ends."
    )
    return table(COLUMNS, compared(test, floor)) + paragraph(words) + paragraph(note)


def gate_section(findings: Findings) -> str:
    """Scores of the proteins that decide, beside the floor's and the champion's."""
    gate, floor, comparison = findings.metrics[Split.GATE], findings.floor[Split.GATE], findings.comparison
    columns, rows = list(COLUMNS), compared(gate, floor)
    words = f"{gate['num_proteins']:,} proteins."
    if comparison is None:
        words += " There is no champion to compare with."
    elif comparison.obstacle:
        words += f" The champion cannot be compared: {comparison.obstacle}."
    else:
        columns += ["model, compared", "champion"]
        ours, theirs = comparison.candidate.to_json(), comparison.champion.to_json()
        for row, key in zip(rows, FIGURES, strict=True):
            row += [ours.get(key), theirs.get(key)]
        words += (
            f" The last two columns are on the {comparison.champion.num_proteins:,} of them that are new to "
            f"champion {comparison.version or '(a folder)'}: it was trained neither on them nor on others of "
            "their homology clusters."
        )
    knowledge = findings.champion_knowledge
    if knowledge and knowledge.test:
        words += (
            f" This champion was trained on {len(knowledge.test):,} proteins of the official test, e.g. "
            f"{', '.join(knowledge.test[:5])}: what it scored there was no test."
        )
    return table(columns, rows) + paragraph(words)


def relatives_section(findings: Findings) -> str:
    """Scores of proteins with and without a relative in training."""
    parts = [("by_relatives", name, name) for name in _RELATIVES]
    note = (
        f"Near: at least {percent(MIN_IDENTITY)} of the residues equal to a training protein's, over an "
        f"alignment of at least {percent(MIN_COVERAGE)} of the shorter of the two (MMseqs2), or seen in "
        "training itself. Far: all others. What is known of a relative helps to guess; far ones show what "
        "is learned."
    )
    if not findings.trained_on_these_records:
        note += " The model was trained on other records than these, so its own relatives may be others."
    return _chart_of_parts(findings, parts) + _table_of_parts(findings, parts) + paragraph(note)


def parts_section(findings: Findings) -> str:
    """Scores of proteins read whole or cut, and by membrane flag."""
    note = "Macro F1 of a part is the mean over its own locations: compare parts by accuracy and MCC."
    return _table_of_parts(findings, _PARTS) + paragraph(note)


def lengths_section(findings: Findings) -> str:
    """How accuracy changes with the number of residues."""
    parts = [("by_length", key, key.replace("_", " ")) for key, _ in LENGTH_BINS]
    return _chart_of_parts(findings, parts) + _table_of_parts(findings, parts)


def _chart_of_parts(findings: Findings, parts: Sequence[_Part]) -> str:
    scored = _scored(findings, parts)
    return bars(
        [f"{words} ({model['num_proteins']:,})" for words, model, _ in scored],
        [model["accuracy"] for _, model, _ in scored],
        x_label="accuracy on the official test, with 95 % interval",
        title="Accuracy (number of proteins)",
        intervals=[tuple(model["intervals"]["accuracy"]) for _, model, _ in scored],
        marks={FLOOR: [floor.get("accuracy") for *_, floor in scored]},
    )


def _table_of_parts(findings: Findings, parts: Sequence[_Part]) -> str:
    rows = [
        [
            words,
            model["num_proteins"],
            model["accuracy"],
            interval_of(model, "accuracy"),
            *(model[key] for key in ("macro_f1", "mcc", "top2_accuracy")),
            floor.get("accuracy"),
        ]
        for words, model, floor in _scored(findings, parts)
    ]
    columns = [
        "",
        "proteins",
        "accuracy",
        "95 % interval",
        "macro F1",
        "MCC",
        "first two",
        f"{FLOOR}, accuracy",
    ]
    return table(columns, rows)


def _scored(findings: Findings, parts: Sequence[_Part]) -> list[tuple[str, Scores, Scores]]:
    """Words, the model's and the floor's scores of each part that holds a test protein."""
    test, floor = findings.metrics[Split.TEST], findings.floor[Split.TEST]
    return [
        (words, test[division][name], floor.get(division, {}).get(name, {}))
        for division, name, words in parts
        if name in test[division]
    ]


def confusion_section(findings: Findings) -> str:
    """The confusion matrix of the official test."""
    chart = heat_map(
        findings.metrics[Split.TEST]["confusion"],
        findings.exam.locations,
        x_label="location that the model answers",
        y_label="true location",
        title="Official test: number of proteins",
    )
    return chart + paragraph("A cell is as strong as its share of its row; the diagonal is right.")


def locations_section(findings: Findings) -> str:
    """F1, precision and recall of each location, with a chart."""
    scores, floor = findings.metrics[Split.TEST]["per_class"], findings.floor[Split.TEST].get("per_class", {})
    names = [name for name in findings.exam.locations if scores[name]["support"]]
    chart = bars(
        names,
        [scores[name]["f1"] for name in names],
        x_label="F1 on the official test, with 95 % interval",
        title="F1 of each location",
        intervals=[tuple(scores[name]["f1_interval"]) for name in names],
        marks={FLOOR: [floor.get(name, {}).get("f1") for name in names]},
    )
    rows = [
        [
            name,
            scores[name]["support"],
            scores[name].get("precision"),
            scores[name]["recall"],
            scores[name]["f1"],
            low_to_high(scores[name]["f1_interval"]),
            floor.get(name, {}).get("f1"),
        ]
        for name in names
    ]
    columns = ["location", "proteins", "precision", "recall", "F1", "95 % interval", "floor's F1"]
    return chart + table(columns, rows)


def membrane_section(findings: Findings) -> str:
    """Scores of the second task, on both splits."""
    text = ""
    for split, name in ((Split.TEST, "official test"), (Split.GATE, "gate split")):
        scores = findings.membrane[split]
        assert scores is not None, "a model tells of all splits or of none"
        if "accuracy" in scores:
            floor = scores["baseline"]
            text += table([name, *COLUMNS[1:]], compared(scores, floor, _MEMBRANE_FIGURES))
            text += paragraph(
                f"{scores['num_proteins']:,} proteins with a known flag, {percent(scores['share_bound'])} "
                f"bound; {scores['num_unknown']:,} without one are left out. Always naming the more common "
                f"flag is right for {percent(scores['majority'])}."
            )
        elif "num_not_finite" in scores:
            text += paragraph(f"On the {name}, the model's answers are not all finite numbers.")
        else:
            text += paragraph(f"On the {name}, no protein has a known flag.")
    return text + paragraph("This task has no say in the decision.")
