"""A picture of a protein, residue by residue: what speaks for an answer stands up, what is against it hangs.

The picture is SVG in the colours of `colors.css`, for a page that `reports.write_page` makes.
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence

ROW_RESIDUES = 60
_CELL, _BAR, _LABEL = 11, 9, 52
"""Width of a residue's place, of its bar, and of the number before a row."""
_REACH = 20
"""Height of the largest bar, up or down."""
_ROW_HEIGHT, _LETTER_LINE, _GAP_HEIGHT = 64, 55, 24
_COLORS = {True: "var(--series-1)", False: "var(--series-2)"}


def residue_map(sequence: str, scores: Sequence[float | None], *, title: str) -> str:
    """Draw one bar a residue above its letter, blue and up if its score is positive, orange and down if not.

    All bars of the picture have one scale. None is a residue that was not read: whole rows of them are one
    line of words.
    """
    assert len(sequence) == len(scores), "one score a residue"
    largest = max((abs(score) for score in scores if score is not None), default=0.0) or 1.0
    height, drawn = 0, []
    for places, is_read in _rows(scores):
        if is_read:
            drawn.append(_row(sequence, scores, places, largest, height))
            height += _ROW_HEIGHT
        else:
            words = f"residues {places.start + 1:,} to {places.stop:,} were not read"
            drawn.append(f'<text x="{_LABEL}" y="{height + 16}" {_style("muted", 11)}>{words}</text>')
            height += _GAP_HEIGHT
    width = _LABEL + _CELL * ROW_RESIDUES
    label = html.escape(title, quote=True)
    return (
        f'<div class="wide chart"><svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{label}" '
        f'viewBox="0 0 {width} {height}">{"".join(drawn)}</svg></div>'
    )


def _rows(scores: Sequence[float | None]) -> Iterator[tuple[range, bool]]:
    """Places of the residues of each row, from 0, and whether any of them was read."""
    unread = range(0)
    for first in range(0, len(scores), ROW_RESIDUES):
        places = range(first, min(first + ROW_RESIDUES, len(scores)))
        if all(scores[place] is None for place in places):
            unread = range(unread.start if unread else first, places.stop)
            continue
        if unread:
            yield unread, False
            unread = range(0)
        yield places, True
    if unread:
        yield unread, False


def _row(sequence: str, scores: Sequence[float | None], places: range, largest: float, top: int) -> str:
    middle, line = top + _REACH, top + _LETTER_LINE
    number = f"{places.start + 1:,}"
    drawn = [
        f'<text x="{_LABEL - 6}" y="{line}" text-anchor="end" {_style("muted", 10)}>{number}</text>'
        f'<path d="M{_LABEL} {middle}h{_CELL * len(places)}" style="stroke: var(--grid)"/>'
    ]
    for left, place in zip(range(_LABEL, _LABEL + _CELL * len(places), _CELL), places, strict=True):
        letter, score = sequence[place], scores[place]
        drawn.append(
            f'<text x="{left + _CELL / 2:g}" y="{line}" text-anchor="middle" '
            f"{_style('muted' if score is None else 'ink', 10)}>{letter}</text>"
        )
        if score:
            drawn.append(_bar(f"{letter}{place + 1}: {score:+.3f}", left, middle, score / largest))
    return "".join(drawn)


def _bar(words: str, left: int, middle: int, share: float) -> str:
    """A bar that rises above the middle, or hangs below it; words appear when it is pointed at."""
    height = abs(share) * _REACH
    top = middle - height if share > 0 else middle
    return (
        f'<rect x="{left + (_CELL - _BAR) // 2}" y="{top:.1f}" width="{_BAR}" height="{height:.1f}" '
        f'style="fill: {_COLORS[share > 0]}"><title>{words}</title></rect>'
    )


def _style(color: str, size: int) -> str:
    return f'style="fill: var(--{color}); font-size: {size}px"'
