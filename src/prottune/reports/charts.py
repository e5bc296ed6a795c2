"""Charts for the pages that people read: SVG text in the page's own colours and font.

Charts are drawn with stand-in colours that become CSS variables, so one picture suits light and dark.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from prottune.reports.page import number_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_INK, _MUTED, _GRID, _PAPER = "#010101", "#020202", "#030303", "#040404"
_SERIES = ("#050505", "#060606", "#070707", "#080808")
_CSS = {
    _INK: "var(--ink)",
    _MUTED: "var(--muted)",
    _GRID: "var(--grid)",
    _PAPER: "var(--paper)",
    **{color: f"var(--series-{number})" for number, color in enumerate(_SERIES, start=1)},
}
"""Stand-in colours, none of which a chart uses for itself, and the variables of colors.css they become."""

_WIDTH_INCHES = 6.6
_LARGEST_DOT, _SMALLEST_DOT = 140, 8
"""Areas in square points."""
_RC: Any = {
    "svg.fonttype": "none",  # text stays text: searchable, and in the page's own font
    "svg.hashsalt": "prottune",  # equal charts get equal ids
    "font.size": 9,
    "text.parse_math": False,  # a name may hold a dollar sign
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _GRID,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "grid.color": _GRID,
    "grid.linewidth": 0.6,
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "legend.frameon": False,
    "figure.facecolor": "none",
}


def bars(
    names: Sequence[str],
    values: Sequence[float | None],
    *,
    x_label: str,
    title: str = "",
    intervals: Sequence[tuple[float, float] | None] = (),
    marks: Mapping[str, Sequence[float | None]] | None = None,
) -> str:
    """Draw one horizontal bar a name, first name on top, its value written at the right.

    `intervals` adds a whisker from low to high to each bar; `marks` adds dots to compare with, by name
    of who is compared. A value of None draws nothing.
    """
    with _chart(title, height=0.9 + 0.3 * len(names) + (0.3 if marks else 0)) as (axes, svg):
        places = np.arange(len(names))
        axes.barh(places, [value or 0.0 for value in values], height=0.62, color=_SERIES[0])
        for place, interval in enumerate(intervals):
            if interval is not None:
                axes.plot(interval, (place, place), color=_INK, linewidth=1.2)
        for number, (name, points) in enumerate((marks or {}).items(), start=1):
            known = [(value, place) for place, value in enumerate(points) if value is not None]
            if known:
                axes.plot(*zip(*known, strict=True), "D", color=_SERIES[number], markersize=5, label=name)
        _write_values(axes, values, intervals, marks or {})
        axes.set_yticks(places, _short(names))
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.set_xlabel(x_label)
        if marks:
            _legend(axes)
    return svg()


def histogram(
    values: Sequence[float],
    *,
    x_label: str,
    bins: int = 60,
    marks: Mapping[str, float] | None = None,
    title: str = "",
) -> str:
    """Draw how often values occur, with named vertical marks.

    The last bar also holds the longest 0.5 % when they would squeeze all others together.
    """
    numbers = np.asarray(values, dtype=float)
    cap = float(np.quantile(numbers, 0.995)) if len(numbers) else 1.0
    is_long_tailed = len(numbers) > 0 and float(numbers.max()) > 1.5 * cap
    with _chart(title, height=2.9) as (axes, svg):
        axes.hist(np.minimum(numbers, cap) if is_long_tailed else numbers, bins=bins, color=_SERIES[0])
        for name, place in (marks or {}).items():
            axes.axvline(place, color=_SERIES[1], linewidth=1.2, linestyle="--")
            axes.annotate(
                name, (place, 0.98), xycoords=("data", "axes fraction"), xytext=(3, 0),
                textcoords="offset points", rotation=90, va="top", color=_INK, fontsize=8,
            )  # fmt: skip
        axes.grid(axis="x", visible=False)
        axes.set_xlabel(
            f"{x_label} (the last bar also holds the largest 0.5 %)" if is_long_tailed else x_label
        )
        axes.set_ylabel("count")
    return svg()


def lines(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    x_label: str,
    y_label: str,
    title: str = "",
    diagonal: bool = False,
    sizes: Mapping[str, Sequence[int]] | None = None,
    marks: Mapping[str, tuple[float, float]] | None = None,
) -> str:
    """Draw named curves; `diagonal` adds the line of y = x and shows 0 to 1 on both sides.

    `sizes` gives a curve, by its name, dots whose area tells how many proteins each stands for; `marks` are
    single points with a name.
    """
    with _chart(title, height=3.7 if diagonal else 3.2) as (axes, svg):
        if diagonal:
            axes.plot((0, 1), (0, 1), color=_MUTED, linewidth=1, linestyle=":")
            axes.set_xlim(-0.01, 1.03)
            axes.set_ylim(-0.01, 1.05)
        for number, (name, (x_values, y_values)) in enumerate(series.items()):
            color = _SERIES[number % len(_SERIES)]
            counts = np.asarray((sizes or {}).get(name, ()), dtype=float)
            dots = "o" if len(x_values) <= 30 and not len(counts) else ""
            axes.plot(x_values, y_values, marker=dots, markersize=4, color=color, label=name)
            if len(counts):
                areas = np.maximum(_LARGEST_DOT * counts / counts.max(), _SMALLEST_DOT)
                axes.scatter(x_values, y_values, s=areas, color=color, linewidths=0)
        for number, (name, point) in enumerate((marks or {}).items(), start=len(series)):
            color = _SERIES[number % len(_SERIES)]
            axes.plot(*point, "D", color=color, markersize=6, label=name)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        if len(series) + len(marks or {}) > 1:
            _legend(axes)
    return svg()


def heat_map(
    rows: Sequence[Sequence[int]], names: Sequence[str], *, x_label: str, y_label: str, title: str = ""
) -> str:
    """Draw a square table of counts, each cell as dark as its share of its row."""
    counts = np.asarray(rows, dtype=float)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    with _chart(title, height=1.9 + 0.36 * len(names)) as (axes, svg):
        from matplotlib.patches import Rectangle

        for row, column in np.argwhere(counts > 0):
            share = float(shares[row, column])
            corner = (column - 0.5, row - 0.5)
            axes.add_patch(Rectangle(corner, 1, 1, facecolor=_SERIES[0], alpha=share, linewidth=0))
            color = _PAPER if share > 0.55 else _INK
            text = f"{int(counts[row, column]):,}"
            axes.text(column, row, text, ha="center", va="center", color=color, fontsize=8)
        axes.set_xlim(-0.5, len(names) - 0.5)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_xticks(range(len(names)), _short(names), rotation=40, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(names)), _short(names))
        axes.grid(visible=False)
        axes.tick_params(length=0)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
    return svg()


@contextmanager
def _chart(title: str, height: float) -> Iterator[tuple[Axes, _Drawing]]:
    """Yield axes to draw on, and what turns them into SVG text after the block."""
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with mpl.rc_context(_RC):
        figure = Figure(figsize=(_WIDTH_INCHES, height), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        if title:
            axes.set_title(title, fontsize=10, fontweight="bold")
        drawing = _Drawing(title)
        yield axes, drawing
        written = io.StringIO()
        figure.savefig(written, format="svg", metadata={"Date": None, "Creator": None})
    drawing.text = written.getvalue()


class _Drawing:
    """A finished chart; calling it gives the text to put into a page."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.text = ""

    def __call__(self) -> str:
        svg = self.text[self.text.index("<svg") :]
        svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", svg, flags=re.DOTALL)
        svg = re.sub(r'<g id="[^"]*"', "<g", svg)  # unique in a file, not in a page of several
        svg = re.sub(r' width="[^"]*" height="[^"]*"', "", svg, count=1)  # the page sets the size
        svg = re.sub(r" font-family: [^;\"]*;", "", svg)
        for color, variable in _CSS.items():
            svg = svg.replace(color, variable)
        label = html.escape(self.title or "chart", quote=True)
        svg = svg.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)
        return f'<div class="wide chart">{svg}</div>'


def _write_values(
    axes: Axes,
    values: Sequence[float | None],
    intervals: Sequence[tuple[float, float] | None],
    marks: Mapping[str, Sequence[float | None]],
) -> None:
    """Write the values one below the other, to the right of all that is drawn."""
    ends = [value or 0.0 for points in (values, *marks.values()) for value in points]
    ends += [high for _, high in filter(None, intervals)]
    axes.set_xlim(0, 1.02 * max(ends, default=0) or 1)
    for place, value in enumerate(values):
        axes.annotate(
            "-" if value is None else number_text(value), (1, place), xycoords=("axes fraction", "data"),
            xytext=(6, 0), textcoords="offset points", va="center", fontsize=8,
        )  # fmt: skip


def _short(names: Sequence[str], longest: int = 28) -> list[str]:
    return [name if len(name) <= longest else f"{name[: longest - 3]}..." for name in names]


def _legend(axes: Axes) -> None:
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=4, borderaxespad=0.2, handletextpad=0.4)
