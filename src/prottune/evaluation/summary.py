"""An evaluation in a few sentences: what the page begins with, and what the pipeline shows in Markdown."""

from __future__ import annotations

from prottune.evaluation.findings import Findings
from prottune.evaluation.wording import COLUMNS, compared, percent
from prottune.records import Split
from prottune.reports.page import number_text

VERDICTS = {"promote": "Promote", "hold": "Hold"}


def headline(findings: Findings) -> str:
    """How good the model is beside the floor, and what becomes of it, in two or three sentences."""
    test, verdict = findings.metrics[Split.TEST], findings.decision.decision
    ending = "It may be promoted." if verdict == "promote" else "It is held: see the reasons below."
    if "accuracy" not in test:
        return f"The model's answers on the official test are not all finite numbers. {ending}"
    low, high = test["intervals"]["accuracy"]
    floor = test["baseline"].get("accuracy", 0.0)
    return (
        f"The model names the right location for {percent(test['accuracy'])} of {test['num_proteins']:,} "
        f"official test proteins (95\u00a0% interval {percent(low)} to {percent(high)}). The floor, which "
        f"only counts residues, reaches {percent(floor)}. {ending}"
    )


def difference_in_words(findings: Findings) -> str:
    """How much more often the candidate is right than the champion, with its interval; empty without one."""
    found = findings.decision.difference
    return f"{found.accuracy:+.3f} ({found.low:+.3f} to {found.high:+.3f})" if found else ""


def summary_markdown(findings: Findings) -> str:
    """Decision, reasons and scores, short enough for a pipeline's page."""
    parts = [f"# {VERDICTS[findings.decision.decision]}", headline(findings)]
    parts.append("\n".join(f"- {reason}" for reason in findings.decision.reasons))
    for split, name in ((Split.TEST, "Official test"), (Split.GATE, "Gate split, which decides")):
        scores = findings.metrics[split]
        rows = compared(scores, findings.floor[split])
        parts += [f"## {name}: {scores['num_proteins']:,} proteins", _markdown_table(rows)]
    if difference := difference_in_words(findings):
        parts.append(f"Accuracy on the gate split, model less champion, with 95 % interval: {difference}.")
    return "\n\n".join(parts) + "\n"


def _markdown_table(rows: list[list[object]]) -> str:
    lines = [
        COLUMNS,
        ["---", *("---:" for _ in COLUMNS[1:])],
        *([_cell(value) for value in row] for row in rows),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: object) -> str:
    if value is None:
        return ""
    return number_text(value) if isinstance(value, (int, float)) else str(value)
