"""What a labelled proteome looks like at a glance: a page, and the same in a few lines of Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prottune.reports.charts import bars
from prottune.reports.page import number_text, paragraph, table, tiles, write_page

PAGE_FILE = "report.html"
SUMMARY_FILE = "summary.md"

_FLAGS = {
    "num_confident": ("confident", "answers as sure as those of which most were right in validation"),
    "num_unlike_training": ("unlike training", "the model recognises little of them; read them with care"),
    "num_truncated": ("cut", "longer than the model reads; part of the protein was left out"),
}


def write_pages(folder: Path, figures: Mapping[str, Any], *, source: str, model_digest: str) -> None:
    """Write `report.html` and `summary.md` about a finished table.

    `figures` are its totals: proteins, residues, flags, and `locations`, how many proteins each got.
    """
    num_proteins, locations = figures["num_proteins"], figures["locations"]
    lead = f"{num_proteins:,} proteins of {source}, labelled by the model {model_digest[:12]}."
    flags = [
        (name, f"{figures[key] / num_proteins:.1%}", f"{figures[key]:,} proteins: {note}")
        for key, (name, note) in _FLAGS.items()
    ]
    rows = [[name, count, f"{count / num_proteins:.1%}"] for name, count in locations.items()]
    left = _left_out(figures)
    chart = bars(list(locations), [float(count) for count in locations.values()], x_label="proteins")
    sections = [
        ("Where the proteins live", chart + table(("location", "proteins", "share"), rows)),
        ("What was read", paragraph(left)),
    ]
    write_page(folder / PAGE_FILE, "Predicted locations", lead, sections, lead=tiles(flags))
    lines = [
        "# Predicted locations",
        lead,
        "\n".join(f"- {name}: {share} ({note})" for name, share, note in flags),
        _markdown(rows),
        left,
    ]
    (folder / SUMMARY_FILE).write_text("\n\n".join(lines) + "\n", encoding="utf-8")


def _left_out(figures: Mapping[str, Any]) -> str:
    unlike = ", as the machines differed: another run may score a little otherwise"
    unlike = unlike if len(figures["precisions"]) > 1 else ""
    return (
        f"{figures['num_residues']:,} residues in {figures['num_shards']:,} shards; "
        f"{figures['num_skipped']:,} proteins were left out for a character that is no residue, "
        f"{figures['num_stops_removed']:,} final stops (*) were removed. "
        f"Computed in {' and '.join(figures['precisions'])}{unlike}."
    )


def _markdown(rows: list[list[Any]]) -> str:
    cells = [["location", "proteins", "share"], ["---", "---:", "---:"]]
    cells += [[name, number_text(count), share] for name, count, share in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)
