"""Pages stand alone, keep strange names harmless, and come out the same each time."""

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from prottune.reports.charts import bars, heat_map, histogram, lines
from prottune.reports.page import folded, numbered, paragraph, table, tiles, write_page

NAMES = ["Lysosome/Vacuole", "<b>$x_1$ & y", "a name that is very much longer than any chart has room for"]

CHARTS = {
    "bars": lambda: bars(NAMES, [3, 20, 1000], x_label="proteins <n>", title="T & <t>"),
    "bars with company": lambda: bars(
        NAMES, [0.5, None, 0.25], x_label="F1", intervals=[(0.4, 0.6), None, (0.2, 0.3)],
        marks={"floor": [0.1, None, None], "champion": [None, None, None]},
    ),
    "histogram": lambda: histogram([60.0, 70, 70, 13_000], x_label="residues", bins=5, marks={"cut": 65}),
    "lines": lambda: lines({"a<b": ([0, 1], [0.2, 0.9]), "c": ([0.5], [0.5])}, x_label="x", y_label="y",
                           diagonal=True),
    "heat map": lambda: heat_map([[5, 0, 0], [1, 3, 0], [0, 0, 0]], NAMES, x_label="x", y_label="y"),
}  # fmt: skip


def words(svg: str) -> list[str]:
    return [text.text or "" for text in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


@pytest.mark.parametrize("name", CHARTS)
def test_a_chart_is_well_formed_and_the_same_each_time(name: str) -> None:
    svg = CHARTS[name]()
    assert svg == CHARTS[name]()
    assert "<svg" in svg
    words(svg)


@pytest.mark.parametrize("name", CHARTS)
def test_a_chart_has_no_colour_of_its_own_but_the_page_s(name: str) -> None:
    svg = CHARTS[name]()
    assert re.findall(r"#[0-9a-f]{6}\b", svg) == []
    assert "var(--ink)" in svg


def test_bars_write_names_and_values_as_given() -> None:
    found = words(CHARTS["bars"]())
    assert {"Lysosome/Vacuole", "<b>$x_1$ & y", "3", "20", "1,000", "T & <t>", "proteins <n>"} <= set(found)
    assert "a name that is very much ..." in found


def test_a_missing_value_is_written_as_a_dash() -> None:
    found = words(CHARTS["bars with company"]())
    assert {"0.500", "-", "0.250", "floor"} <= set(found)
    assert "champion" not in found


def test_a_histogram_says_that_it_gathers_the_long_tail() -> None:
    values = [100.0] * 1000 + [90_000.0]
    assert "residues (the last bar also holds the largest 0.5 %)" in words(
        histogram(values, x_label="residues")
    )
    assert "residues" in words(histogram([1.0, 2.0], x_label="residues"))


def test_a_histogram_of_nothing_is_empty() -> None:
    assert "count" in words(histogram([], x_label="residues"))


def test_a_heat_map_writes_counts_and_leaves_zeros_blank() -> None:
    found = words(CHARTS["heat map"]())
    assert {"5", "1", "3"} <= set(found)
    assert "0" not in found


def test_a_table_escapes_words_and_sets_numbers_right() -> None:
    html = table(["a<b", "n"], [["x&y", 1234], [None, 0.12345], [True, 0]])
    assert '<th>a&lt;b</th><th class="number">n</th>' in html
    assert '<td>x&amp;y</td><td class="number">1,234</td>' in html
    assert '<td></td><td class="number">0.123</td>' in html
    assert "<td>True</td>" in html


def test_a_table_without_rows_has_its_headings() -> None:
    assert "<th>a</th>" in table(["a"], [])


def test_tiles_are_text() -> None:
    assert "<strong>1 &lt; 2</strong>" in tiles([("name", "1 < 2", "note")])


def test_a_numbered_list_is_text() -> None:
    assert numbered(["1 < 2", "so"]) == "<ol><li>1 &lt; 2</li><li>so</li></ol>"


def test_dots_are_as_large_as_what_they_stand_for_and_marks_have_names() -> None:
    svg = lines(
        {"model": ([0.1, 0.9], [0.1, 0.9]), "floor": ([0.2], [0.2])}, x_label="x", y_label="y",
        sizes={"model": [1, 400]}, marks={"confident": (0.5, 0.5)},
    )  # fmt: skip
    assert {"model", "floor", "confident"} <= set(words(svg))
    assert len(set(re.findall(r"<path d=\"([^\"]*C[^\"]*)\"", svg))) >= 2


def test_what_is_folded_has_its_words_as_text_and_its_content_as_html() -> None:
    assert folded("1 < 2", "<p>why</p>") == "<details><summary>1 &lt; 2</summary><p>why</p></details>"


def test_a_paragraph_is_text_and_not_html() -> None:
    assert paragraph("<script>1 & 2</script>") == "<p>&lt;script&gt;1 &amp; 2&lt;/script&gt;</p>"


def test_a_page_stands_alone_and_escapes_what_is_text(tmp_path: Path) -> None:
    sections = [("Head <1>", CHARTS["bars"]()), ("Table", table(["a"], [[1]]))]
    write_page(tmp_path / "page.html", "Title <t>", "Summary & more", sections)
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<h1>Title &lt;t&gt;</h1>" in page
    assert "Summary &amp; more" in page
    assert "<h2>Head &lt;1&gt;</h2>" in page
    assert page.count("<svg") == 1
    assert 'href="#section-2">Table</a>' in page
    assert '<section id="section-2">' in page
    outside = [
        link for link in re.findall(r"""(?:src|href)=["']([^"']*)""", page) if not link.startswith("#")
    ]
    assert outside == ["data:,"]
    assert "<script" not in page
    assert "@import" not in page
    assert "prefers-color-scheme: dark" in page


def test_equal_content_makes_equal_pages(tmp_path: Path) -> None:
    for name in ("one.html", "two.html"):
        write_page(tmp_path / name, "t", "s", [("h", chart()) for chart in CHARTS.values()])
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "two.html").read_bytes()
