"""A benchmark's result: one row of `benchmarks/results.json` and of the table in `docs/benchmarks.md`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from benchmarks.timing import Samples

_BEGIN, _END = "<!-- made by make bench: begin -->", "<!-- made by make bench: end -->"
_COLUMNS = ("benchmark", "ours", "peer", "limit", "ratio", "goal", "met", "spread", "where")


@dataclass(frozen=True)
class Options:
    """What the person who runs the benchmarks chose."""

    quick: bool = False
    """Fewer repetitions and smaller sizes."""
    source: Path | None = None
    """FASTA of real proteins; without it proteins are random, with DeepLoc's distribution of lengths."""


class NotRun(Exception):  # noqa: N818 - not an error: the reason stands in the table
    """A benchmark cannot run here, and why."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One claim, what was measured for it, and whether it holds."""

    name: str
    what: str
    unit: str
    ours: float | None = None
    peer: float | None = None
    peer_name: str
    limit: float | None = None
    """What this machine could do at best, in the same unit."""
    ratio: float | None = None
    goal: float
    met: bool | None = None
    """None for a row that was not run."""
    machine: str = ""
    date: str = ""

    ratio_of: str = "ours / peer"
    at_most: bool = False
    """The ratio is to be at most the goal, not at least."""
    limit_name: str = ""
    note: str = ""
    """Why the row was not run, or what to know about it."""
    scale: str = ""
    """Sizes of this run."""
    clock: str = ""
    """Which seconds count."""
    load: str = ""
    """Of the machine, before and after."""
    mode: str = ""
    """full or quick."""
    ways: dict[str, dict[str, float]] = field(default_factory=dict)
    """Each way that was timed -> median, least, spread, repetitions."""
    compared: tuple[str, ...] = ()
    """The ways that this row compares."""
    facts: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str]:
        """What tells one row from another."""
        return self.name, self.what

    def measured(
        self,
        *,
        ours: float,
        peer: float | None,
        ratio: float,
        samples: Mapping[str, Samples],
        compared: Sequence[str],
        **more: Any,
    ) -> Row:
        """This row with its figures, judged against its goal; `compared` names samples."""
        met = ratio <= self.goal if self.at_most else ratio >= self.goal
        ways = {name: found.as_json() for name, found in samples.items()}
        more |= {"ways": ways, "compared": tuple(compared)}
        return replace(self, ours=ours, peer=peer, ratio=ratio, met=met, **more)

    def not_run(self, why: str) -> Row:
        return replace(self, note=why)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def as_row(content: Mapping[str, Any]) -> Row:
    """Read a row from JSON or a plain dict; keys that are no column are kept as facts."""
    known = {column.name for column in fields(Row)}
    more = {key: value for key, value in content.items() if key not in known}
    return Row(
        **{key: value for key, value in content.items() if key in known - {"facts", "compared"}},
        facts={**content.get("facts", {}), **more},
        compared=tuple(content.get("compared", ())),
    )


def merged(old: Iterable[Row], new: Sequence[Row]) -> list[Row]:
    """New rows in place of old ones; a row that could not run here does not hide one measured elsewhere."""
    found = {row.key: row for row in new}
    for row in old:
        fresh = found.get(row.key)
        if fresh is None or (fresh.met is None and row.met is not None and "failed" not in fresh.note):
            found[row.key] = row
    return list(found.values())


def read_rows(path: Path) -> list[Row]:
    return [as_row(row) for row in json.loads(path.read_text(encoding="utf-8"))] if path.is_file() else []


def write_rows(rows: Iterable[Row], path: Path) -> None:
    content = [row.as_json() for row in rows]
    path.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def write_table(rows: Sequence[Row], page: Path) -> None:
    """Put the table between the two marks of a page; the words around it stay."""
    text = page.read_text(encoding="utf-8")
    before, begin, rest = text.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    assert end, f"{page}: expected the lines {_BEGIN!r} and {_END!r}"
    page.write_text(f"{before}{begin}\n{table(rows)}\n{end}{after}", encoding="utf-8")


def table(rows: Sequence[Row]) -> str:
    """All rows as Markdown, and below it on what and with what they were measured."""
    places = list(dict.fromkeys(_place(row) for row in rows if row.met is not None))
    lines = [f"| {' | '.join(_COLUMNS)} |", "|---" * len(_COLUMNS) + "|"]
    lines += [f"| {' | '.join(_cells(row, places))} |" for row in rows]
    lines += ["", *(f"{number}. {place}" for number, place in enumerate(places, start=1))]
    return "\n".join(lines).rstrip()


def _cells(row: Row, places: Sequence[str]) -> list[str]:
    goal = f"{'at most' if row.at_most else 'at least'} {figure(row.goal)} ({row.ratio_of})"
    name = f"**{row.name}** {row.what}"
    if row.met is None:
        return [name, "", row.peer_name, row.limit_name, "", goal, row.note or "not run yet", "", ""]
    return [
        f"{name}; {row.scale}" if row.scale else name,
        f"{figure(row.ours)} {row.unit}",
        f"{row.peer_name} {figure(row.peer)}" if row.peer is not None else row.peer_name,
        f"{row.limit_name} {figure(row.limit)}" if row.limit is not None else "",
        f"**{figure(row.ratio)}**",
        goal,
        ("yes" if row.met else "**no**") + (f"; {row.note}" if row.note else ""),
        ", ".join(_spread(name, row.ways[name]) for name in row.compared),
        str(places.index(_place(row)) + 1),
    ]


def _spread(name: str, way: Mapping[str, float]) -> str:
    return f"{name} {way['spread']:.0%} of {way['repetitions']:g} runs"


def _place(row: Row) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in row.versions.items())
    return f"{row.machine}; {versions}; {row.mode} mode, {row.clock or 'no clock'}, {row.date}"


def figure(number: float | None) -> str:
    """Three digits that count: 12,300, 0.987."""
    if number is None:
        return ""
    rounded = float(f"{number:.3g}")
    return f"{rounded:,.0f}" if abs(rounded) >= 100 else f"{rounded:.3g}"
