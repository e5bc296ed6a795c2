"""One HTML file that a person reads: tables, tiles and paragraphs, in the page that all reports share."""

from __future__ import annotations

import html
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

_NUMBER = ' class="number"'


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Write a table; numbers stand right, whole ones with thousands separated, others with three decimals.

    What the first row holds decides where the headings stand.
    """
    is_number = [_is_number(value) for value in rows[0]] if rows else [False] * len(columns)
    head = "".join(
        f"<th{_NUMBER if number else ''}>{html.escape(column)}</th>"
        for column, number in zip(columns, is_number, strict=True)
    )
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def tiles(figures: Sequence[tuple[str, str, str]]) -> str:
    """Write a row of headline figures: what it is, the figure in large letters, a word about it."""
    boxes = (
        f'<div class="tile"><span>{html.escape(name)}</span><strong>{html.escape(figure)}</strong>'
        f"<span>{html.escape(note)}</span></div>"
        for name, figure, note in figures
    )
    return f'<div class="tiles">{"".join(boxes)}</div>'


def paragraph(text: str) -> str:
    """Write plain text as a paragraph, whatever characters it holds."""
    return f"<p>{html.escape(text)}</p>"


def folded(words: str, content: str) -> str:
    """Fold content away behind some words; it shows when these are clicked. It comes from this module's
    functions and the charts.
    """
    return f"<details><summary>{html.escape(words)}</summary>{content}</details>"


def numbered(sentences: Sequence[str]) -> str:
    """Write sentences as a numbered list."""
    return f"<ol>{''.join(f'<li>{html.escape(sentence)}</li>' for sentence in sentences)}</ol>"


def write_page(
    path: Path, title: str, summary: str, sections: Sequence[tuple[str, str]], *, lead: str = ""
) -> None:
    """Write a self-contained page: title, a summary in plain words, then sections of heading and HTML.

    Titles, summary and headings are escaped; the HTML of a section, and of what leads them, comes from this
    module's functions and the charts.
    """
    source, colors = (
        resources.files("prottune.reports").joinpath(name).read_text(encoding="utf-8")
        for name in ("page.html", "colors.css")
    )
    template = Environment(autoescape=True, undefined=StrictUndefined).from_string(source)
    content = [(heading, Markup(body)) for heading, body in sections]  # noqa: S704  # made by this module
    page = template.render(
        title=title,
        summary=summary,
        lead=Markup(lead),  # noqa: S704
        sections=content,
        colors=Markup(colors.rstrip()),  # noqa: S704
    )
    path.write_text(page, encoding="utf-8")


def number_text(value: float) -> str:
    """Write a whole number with thousands separated, any other with three decimals."""
    return f"{value:,}" if isinstance(value, int) else f"{value:.3f}"


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _cell(value: object) -> str:
    if isinstance(value, (int, float)) and _is_number(value):
        return f"<td{_NUMBER}>{number_text(value)}</td>"
    return f"<td>{html.escape('' if value is None else str(value))}</td>"
