"""The page that shows what evaluation found: headline, decision, pictures, mistakes and provenance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prottune.evaluation.findings import Findings
from prottune.evaluation.metrics import LENGTH_BINS, NUM_CALIBRATION_BINS
from prottune.homology import MIN_COVERAGE, MIN_IDENTITY
from prottune.records import Split
from prottune.reports import bars, heat_map, lines, paragraph, table, tiles, write_page

_FIGURES = {"accuracy": "accuracy", "macro_f1": "macro F1", "mcc": "MCC", "ece": "calibration error"}
_MEMBRANE_FIGURES = {"accuracy": "accuracy", "mcc": "MCC", "auc": "area under the ROC curve"}
_FLOOR = "floor"
_SHARES = {
    "accuracy": "accuracy",
    "macro_f1": "macro F1",
    "mcc": "MCC",
    "top2_accuracy": "among the first two",
}
_RELATIVES = {"all": "all", "far": "far (no relative in training)", "near": "near (a relative in training)"}


def write_evaluation_page(path: Path, findings: Findings) -> None:
    """Write `report.html`; sections whose figures could not be computed are left out."""
    sections = [
        ("Decision", _decision(findings)),
        ("Scores on the official test", _scores(findings)),
        ("Scores on the gate split", _gate_scores(findings)),
    ]
    if "confusion" in findings.metrics[Split.TEST]:
        sections += [
            ("Near and far from the training proteins", _relatives(findings)),
            ("What is taken for what", _confusion(findings)),
            ("Each location", _per_class(findings)),
            ("Short and long proteins", _by_length(findings)),
            ("Do the probabilities mean what they say?", _reliability(findings)),
            ("Most confident mistakes", _mistakes(findings)),
        ]
    if findings.membrane[Split.TEST] is not None:
        sections.append(("Second task: bound to a membrane, or soluble?", _membrane(findings)))
    sections.append(("Where this comes from", _provenance(findings)))
    write_page(path, "Evaluation of a protein location model", _summary(findings), sections)


def _summary(findings: Findings) -> str:
    test, verdict = findings.metrics[Split.TEST], findings.decision.decision
    ending = "It may be promoted." if verdict == "promote" else "It is held: see the reasons below."
    if "accuracy" not in test:
        return f"The model's answers on the official test are not all finite numbers. {ending}"
    low, high = test["intervals"]["accuracy"]
    floor = test["baseline"].get("accuracy", 0.0)
    return (
        f"The model names the right location for {_percent(test['accuracy'])} of {test['num_proteins']:,} "
        f"official test proteins (95 % interval {_percent(low)} to {_percent(high)}). The floor, which only "
        f"counts residues, reaches {_percent(floor)}. {ending}"
    )


def _decision(findings: Findings) -> str:
    gate, floor = findings.metrics[Split.GATE], findings.floor[Split.GATE]
    word = {"promote": "Promote", "hold": "Hold"}[findings.decision.decision]
    boxes = [("decision", word, f"on {gate['num_proteins']:,} gate proteins")]
    for key in ("accuracy", "macro_f1"):
        if key in gate and key in floor:
            boxes.append((f"{_FIGURES[key]}, gate", f"{gate[key]:.3f}", f"floor {floor[key]:.3f}"))
    if findings.comparison is not None and "accuracy" in (theirs := findings.comparison.champion.to_json()):
        version = findings.comparison.version
        boxes.append((f"champion {version}".strip(), f"{theirs['accuracy']:.3f}", "accuracy, same proteins"))
    reasons = [(str(number), reason) for number, reason in enumerate(findings.decision.reasons, start=1)]
    rule = (
        "The gate split (training proteins set aside by homology cluster) decides, never the official test."
    )
    return tiles(boxes) + table(["", "because"], reasons) + paragraph(rule)


def _scores(findings: Findings) -> str:
    test, floor = findings.metrics[Split.TEST], findings.floor[Split.TEST]
    rows = [
        [name, test.get(key), _interval(test, key), floor.get(key), _interval(floor, key)]
        for key, name in _FIGURES.items()
    ]
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
    columns = ["", "model", "95 % interval", _FLOOR, "95 % interval"]
    return table(columns, rows) + paragraph(words) + paragraph(note)


def _gate_scores(findings: Findings) -> str:
    gate, floor, comparison = findings.metrics[Split.GATE], findings.floor[Split.GATE], findings.comparison
    columns = ["", "model", "95 % interval", _FLOOR]
    rows = [[name, gate.get(key), _interval(gate, key), floor.get(key)] for key, name in _FIGURES.items()]
    words = f"{gate['num_proteins']:,} proteins."
    if comparison is None:
        words += " There is no champion to compare with."
    elif comparison.obstacle:
        words += f" The champion cannot be compared: {comparison.obstacle}."
    else:
        columns += ["model, compared", "champion"]
        ours, theirs = comparison.candidate.to_json(), comparison.champion.to_json()
        for row, key in zip(rows, _FIGURES, strict=True):
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


def _confusion(findings: Findings) -> str:
    chart = heat_map(
        findings.metrics[Split.TEST]["confusion"],
        findings.exam.locations,
        x_label="location that the model answers",
        y_label="true location",
        title="Official test: number of proteins",
    )
    return chart + paragraph("A cell is as strong as its share of its row; the diagonal is right.")


def _per_class(findings: Findings) -> str:
    scores, floor = findings.metrics[Split.TEST]["per_class"], findings.floor[Split.TEST].get("per_class", {})
    names = [name for name in findings.exam.locations if scores[name]["support"]]
    chart = bars(
        names,
        [scores[name]["f1"] for name in names],
        x_label="F1 on the official test, with 95 % interval",
        title="F1 of each location",
        intervals=[tuple(scores[name]["f1_interval"]) for name in names],
        marks={_FLOOR: [floor.get(name, {}).get("f1") for name in names]},
    )
    rows = [
        [
            name,
            scores[name]["support"],
            scores[name].get("precision"),
            scores[name]["recall"],
            scores[name]["f1"],
            _range(scores[name]["f1_interval"]),
            floor.get(name, {}).get("f1"),
        ]
        for name in names
    ]
    columns = ["location", "proteins", "precision", "recall", "F1", "95 % interval", "floor's F1"]
    return chart + table(columns, rows)


def _by_length(findings: Findings) -> str:
    scores, floor = findings.metrics[Split.TEST]["by_length"], findings.floor[Split.TEST].get("by_length", {})
    keys = [key for key, _ in LENGTH_BINS if key in scores]
    return bars(
        [f"{key.replace('_', ' ')} ({scores[key]['num_proteins']:,})" for key in keys],
        [scores[key]["accuracy"] for key in keys],
        x_label="accuracy on the official test",
        title="Accuracy by number of residues (number of proteins)",
        marks={_FLOOR: [floor.get(key, {}).get("accuracy") for key in keys]},
    )


def _reliability(findings: Findings) -> str:
    series = {}
    for name, scores in (("model", findings.metrics[Split.TEST]), (_FLOOR, findings.floor[Split.TEST])):
        points = scores.get("reliability", [])
        series[name] = (
            [point["confidence"] for point in points],
            [point["accuracy"] for point in points],
        )
    chart = lines(
        series,
        x_label=f"mean probability of the answer, in up to {NUM_CALIBRATION_BINS} bins",
        y_label="share that is right",
        title="Official test: reliability",
        diagonal=True,
    )
    return chart + paragraph("On the dotted line, answers given with 80 % are right 80 times in 100.")


def _membrane(findings: Findings) -> str:
    text = ""
    for split, name in ((Split.TEST, "official test"), (Split.GATE, "gate split")):
        scores = findings.membrane[split]
        assert scores is not None, "a model tells of all splits or of none"
        if "accuracy" in scores:
            floor = scores["baseline"]
            rows = [
                [words, scores.get(key), _interval(scores, key), floor.get(key), _interval(floor, key)]
                for key, words in _MEMBRANE_FIGURES.items()
            ]
            text += table([name, "model", "95 % interval", _FLOOR, "95 % interval"], rows)
            text += paragraph(
                f"{scores['num_proteins']:,} proteins with a known flag, {_percent(scores['share_bound'])} "
                f"bound; {scores['num_unknown']:,} without one are left out. Always naming the more common "
                f"flag is right for {_percent(scores['majority'])}."
            )
        elif "num_not_finite" in scores:
            text += paragraph(f"On the {name}, the model's answers are not all finite numbers.")
        else:
            text += paragraph(f"On the {name}, no protein has a known flag.")
    return text + paragraph("This task has no say in the decision.")


def _mistakes(findings: Findings) -> str:
    columns = {
        "accession": "protein",
        "location": "true location",
        "predicted": "answered",
        "probability": "probability",
        "num_residues": "residues",
        "relative": "nearest in training",
        "identity": "identity",
    }
    rows = [
        ["" if mistake[key] is None else mistake[key] for key in columns]
        for mistake in findings.metrics[Split.TEST]["mistakes"]
    ]
    return table(list(columns.values()), rows) if rows else paragraph("There is none.")


def _relatives(findings: Findings) -> str:
    scores, floor = (by["by_relatives"] for by in (findings.metrics[Split.TEST], findings.floor[Split.TEST]))
    rows = [
        [
            words,
            scores[name]["num_proteins"],
            *(cell for key in _SHARES for cell in (scores[name][key], _interval(scores[name], key))),
            floor[name]["accuracy"],
        ]
        for name, words in _RELATIVES.items()
        if name in scores
    ]
    columns = [
        *("official test", "proteins"),
        *(column for words in _SHARES.values() for column in (words, "95 % interval")),
        f"{_FLOOR}, accuracy",
    ]
    note = (
        f"Near: at least {_percent(MIN_IDENTITY)} of the residues equal to a training protein's, over an "
        f"alignment of at least {_percent(MIN_COVERAGE)} of the shorter of the two (MMseqs2), or seen in "
        "training itself. What is known of a relative helps to guess; far proteins show what is learned."
    )
    if not findings.trained_on_these_records:
        note += " The model was trained on other records than these, so its own relatives may be others."
    return table(columns, rows) + paragraph(note)


def _provenance(findings: Findings) -> str:
    records, model = findings.manifests["records"], findings.manifests["model"]
    described = model.settings | {
        name: value for name, value in findings.description.items() if isinstance(value, (str, int, float))
    }
    rows: list[tuple[str, object]] = [
        ("records, digest", records.digest),
        ("label set", f"{records.facts['label_set']}: {', '.join(findings.exam.locations)}"),
        ("model, digest", model.digest),
        *((f"model, {name.replace('_', ' ')}", value) for name, value in sorted(described.items())),
        *((f"made from {name}", value) for name, value in sorted(model.inputs.items())),
    ]
    if "champion" in findings.manifests:
        rows.append(("champion, digest", findings.manifests["champion"].digest))
    rows += [(f"{name}, version", value) for name, value in sorted(model.versions.items())]
    return table(["", ""], [(name, _plain(value)) for name, value in rows])


def _plain(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _interval(scores: Mapping[str, Any], key: str) -> str:
    interval = scores.get("intervals", {}).get(key)
    return _range(interval) if interval else ""


def _range(interval: Sequence[float]) -> str:
    low, high = interval
    return f"{low:.3f}\u00a0to\u00a0{high:.3f}"
