"""The model card: what a model is for, how it scored, what it was made from; written from facts alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Facts = Mapping[str, Any]
"""The content of one of the JSON files that stages write."""

_FIGURES = {"accuracy": "accuracy", "macro_f1": "macro F1", "mcc": "MCC", "ece": "calibration error"}
_GROUPS = {"far": "no relative in training", "near": "a relative in training"}
_NUM_WEAKEST = 3
_NONE = "-"


def model_card(
    description: Facts, settings: Facts, metrics: Facts, decision: Facts, origin: Mapping[str, str]
) -> str:
    """Write the card of one registered version, in Markdown; what is not known is left out.

    `description` is the model's prottune.json, `settings` those of its training, `metrics` and `decision` are
    the evaluation's files, `origin` names and digests of what the model was made from, in the order shown.
    """
    labels, test = description.get("labels", ()), metrics.get("test", {})
    sections = {
        "Intended use": _uses(labels),
        "Scores": [*_scores(metrics), "", *_by_relatives(test), *_per_location(test)],
        "Decision": _decision(decision),
        "Limits": _limits(description, settings, test),
        "Training": _training(description, settings),
        "Where it comes from": _table(
            ["", ""], [[name, f"`{value}`"] for name, value in origin.items() if value]
        ),
    }
    lines = [f"# Model card: prottune version {origin.get('version', _NONE)}", "", _headline(labels, metrics)]
    for title, content in sections.items():
        lines += ["", f"## {title}", "", *content]
    return "\n".join(lines) + "\n"


def _headline(labels: Sequence[str], metrics: Facts) -> str:
    test = metrics.get("test", {})
    words = f"Says in which of {len(labels)} parts of the cell a protein lies, from its sequence alone. "
    if "accuracy" not in test:
        return words + "It has no score on the official test."
    low, high = test.get("intervals", {}).get("accuracy", (None, None))
    between = f" (95 % interval {_percent(low)} to {_percent(high)})" if low is not None else ""
    floor = test.get("baseline", {}).get("accuracy")
    beside = (
        f" The floor, which only counts residues, reaches {_percent(floor)}." if floor is not None else ""
    )
    return (
        f"{words}It names the right one for {_percent(test['accuracy'])} of {test['num_proteins']:,} "
        f"official test proteins{between}.{beside}"
    )


def _uses(labels: Sequence[str]) -> list[str]:
    return [
        "- A first guess, in research, at where proteins lie that are of the kind it was trained on.",
        f"- It answers one of {', '.join(labels)}: of a protein with several locations it names one.",
        "- Not for decisions about patients, and not for the effect of single mutations: it was scored on "
        "neither.",
    ]


def _scores(metrics: Facts) -> list[str]:
    """Figures on test and gate, each beside the floor's on the same proteins."""
    rows = []
    for key, name in _FIGURES.items():
        row = [name]
        for split in ("test", "gate"):
            scores = metrics.get(split, {})
            row += [
                _figure(scores.get(key)),
                _interval(scores.get("intervals", {}).get(key)),
                _figure(scores.get("baseline", {}).get(key)),
            ]
        rows.append(row)
    sizes = {split: metrics.get(split, {}).get("num_proteins", 0) for split in ("test", "gate")}
    columns = ["", f"official test ({sizes['test']:,})", "95 % interval", "floor"]
    return _table([*columns, f"gate split ({sizes['gate']:,})", "95 % interval", "floor"], rows)


def _by_relatives(test: Facts) -> list[str]:
    """Test proteins with a near relative in training, and those without, who are the harder question."""
    beside = test.get("baseline", {}).get("by_relatives", {})
    rows = [
        [
            _GROUPS.get(name, name),
            f"{scores.get('num_proteins', 0):,}",
            _figure(scores.get("accuracy")),
            _interval(scores.get("intervals", {}).get("accuracy")),
            _figure(scores.get("macro_f1")),
            _figure(beside.get(name, {}).get("accuracy")),
        ]
        for name, scores in test.get("by_relatives", {}).items()
    ]
    columns = ["official test", "proteins", "accuracy", "95 % interval", "macro F1", "floor's accuracy"]
    return [*_table(columns, rows), ""] if rows else []


def _per_location(test: Facts) -> list[str]:
    names = ("precision", "recall", "f1")
    rows = [
        [
            location,
            f"{scores.get('support', 0):,}",
            *(_figure(scores.get(name)) for name in names),
            _interval(scores.get("f1_interval")),
        ]
        for location, scores in test.get("per_class", {}).items()
    ]
    return _table(["location", "test proteins", "precision", "recall", "F1", "95 % interval"], rows)


def _decision(decision: Facts) -> list[str]:
    version = decision.get("champion_version")
    beside = f"compared with champion version {version}" if version else "without a champion to compare with"
    word = decision.get("decision", _NONE)
    reasons = [f"- {reason}" for reason in decision.get("reasons", ())]
    return [f"**{word}**, on the gate split alone, {beside}:", "", *reasons]


def _limits(description: Facts, settings: Facts, test: Facts) -> list[str]:
    longest = description.get("max_residues", 0)
    lines = [
        f"Proteins longer than {longest:,} residues are cut (`{description.get('cut')}`)."
        if longest
        else "Proteins are read whole."
    ]
    if weakest := _weakest(test.get("per_class", {})):
        lines.append(f"Found most rarely of all test proteins of their kind: {weakest}.")
    if "confident_above" in description:
        lines.append(
            f"An answer with a probability under {description['confident_above']:.3f} is marked "
            "`confident: false`."
        )
    if known := test.get("num_known", 0):
        lines.append(
            f"{known:,} test proteins were in the model's own training: of these it is no honest test."
        )
    if "seed" in settings:
        lines.append(f"The scores are those of one training, with seed {settings['seed']}.")
    return [f"- {line}" for line in lines]


def _weakest(per_class: Mapping[str, Facts]) -> str:
    recalls = sorted(
        (scores["recall"], location) for location, scores in per_class.items() if "recall" in scores
    )
    return ", ".join(f"{location} ({_percent(recall)})" for recall, location in recalls[:_NUM_WEAKEST])


def _training(description: Facts, settings: Facts) -> list[str]:
    base = f"- Base model `{description.get('base_model', _NONE)}`, head `{description.get('head', _NONE)}`."
    used = ", ".join(f"`{name}` {value}" for name, value in settings.items() if value != "")
    versions = ", ".join(f"{name} {version}" for name, version in description.get("versions", {}).items())
    return [base, f"- Settings: {used or _NONE}.", f"- Made with {versions or _NONE}."]


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    if not rows:
        return []
    lines = [columns, ["---"] * len(columns), *rows]
    return [f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines]


def _figure(value: float | None) -> str:
    return _NONE if value is None else f"{value:.3f}"


def _interval(value: Sequence[float] | None) -> str:
    return _NONE if value is None else f"{value[0]:.3f} to {value[1]:.3f}"


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"
