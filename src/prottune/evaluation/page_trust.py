"""The page's part about probabilities: what they are worth, which answers to keep, what looks strange."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prottune.evaluation.findings import Findings
from prottune.evaluation.metrics import NUM_CALIBRATION_BINS
from prottune.evaluation.wording import FLOOR, percent
from prottune.records import Split
from prottune.reports.charts import lines
from prottune.reports.page import paragraph, table

_STRANGERS = {"shuffled": "same residues, shuffled", "random": "random residues, same length"}


def reliability_section(findings: Findings) -> str:
    """The reliability diagram before and after temperature, beside the floor's, and calibration errors."""
    test, floor = findings.metrics[Split.TEST], findings.floor[Split.TEST]
    before, after = test["calibration"]["before"], test["calibration"]["after"]
    curves = {"model": after, "before temperature": before, FLOOR: floor}
    chart = lines(
        {name: _confidence_and_accuracy(scores["reliability"]) for name, scores in curves.items()},
        x_label=f"mean probability of the answer, in up to {NUM_CALIBRATION_BINS} bins",
        y_label="share that is right",
        title="Reliability, official test",
        diagonal=True,
        sizes={
            name: [point["num_proteins"] for point in scores["reliability"]]
            for name, scores in curves.items()
        },
    )
    words = (
        "On the dotted line, answers given with 80 % are right 80 times in 100; below it the model is surer "
        "than it may be. A dot's area tells how many proteins its bin holds. Training found the temperature "
        f"{test['calibration']['temperature']:.2f} on the validation split; the model's probabilities have "
        "it in them."
    )
    rows = [[name, scores["ece"]] for name, scores in curves.items()]
    return chart + table(["", "calibration error"], rows) + paragraph(words)


def _confidence_and_accuracy(points: Sequence[Mapping[str, Any]]) -> tuple[list[float], list[float]]:
    return [point["confidence"] for point in points], [point["accuracy"] for point in points]


def rejection_section(findings: Findings) -> str:
    """How much more often the model is right when it gives only its surest answers."""
    test = findings.metrics[Split.TEST]
    points, confident = test["rejection"], test["confident"]
    marks: dict[str, tuple[float, float]] = {}
    if "accuracy" in confident:
        marks = {"answers called confident": (confident["share"], confident["accuracy"])}
    chart = lines(
        {"model": ([point["share"] for point in points], [point["accuracy"] for point in points])},
        x_label="share of the proteins that get an answer, the surest first",
        y_label="share of these that is right",
        title="Only the surest answers, official test",
        marks=marks,
    )
    if "accuracy" in confident:
        words = (
            f"The model calls {confident['num_proteins']:,} answers confident "
            f"({percent(confident['share'])}): {percent(confident['accuracy'])} of them are right"
        )
        others = confident.get("accuracy_of_others")
        words += "." if others is None else f", and {percent(others)} of the others."
    else:
        words = "The model calls no answer confident."
    return chart + paragraph(words) + _answers_kept(points)


def _answers_kept(points: Sequence[Mapping[str, Any]]) -> str:
    """A few points of the curve in figures."""
    wanted = (0.2, 0.4, 0.6, 0.8, 1.0)
    kept = [min(points, key=lambda point: abs(point["share"] - share)) for share in wanted]
    rows = [
        [percent(point["share"]), point["num_proteins"], point["accuracy"], point["probability"]]
        for number, point in enumerate(kept)
        if point not in kept[:number]
    ]
    return table(["answers given", "proteins", "accuracy", "least probability"], rows)


def unlike_training_section(findings: Findings) -> str:
    """How many test proteins look foreign to the model, and how well it tells strangers from proteins."""
    flagged = findings.metrics[Split.TEST]["unlike_training"]
    words = (
        f"The model flags {flagged['num_proteins']:,} of the official test proteins "
        f"({percent(flagged['share'])}) as unlike what it was trained on."
    )
    if "accuracy" in flagged and "accuracy_of_others" in flagged:
        words += (
            f" It is right about {percent(flagged['accuracy'])} of these, and about "
            f"{percent(flagged['accuracy_of_others'])} of the others."
        )
    return paragraph(words) + _strangers(flagged.get("strangers"))


def _strangers(found: Mapping[str, Any] | None) -> str:
    """How well the model tells proteins from what only looks like them."""
    if found is None:
        return paragraph("The model does not say how unlike a protein is.")
    if "num_not_finite" in found:
        return paragraph("What the model says of shuffled and random sequences is not all finite numbers.")
    rows: list[list[object]] = [
        [words, found[name]["auroc"], percent(found[name]["share_flagged"])]
        for name, words in _STRANGERS.items()
    ]
    rows.append(["as they are", None, percent(found["share_flagged"])])
    note = (
        "Does it see what is no protein at all? The area under the ROC curve is the chance that such a "
        "sequence looks more unlike training than a test protein does: 0.5 is what a coin reaches."
    )
    heading = f"{found['num_proteins']:,} test proteins"
    return table([heading, "area under the ROC curve", "flagged"], rows) + paragraph(note)
