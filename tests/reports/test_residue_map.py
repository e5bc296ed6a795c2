"""The picture of a protein: a bar a residue, up or down, and a line of words for what was not read."""

import re
from xml.etree import ElementTree

from prottune.reports.residue_map import ROW_RESIDUES, residue_map

SVG = "{http://www.w3.org/2000/svg}"


def drawn(sequence: str, scores: list[float | None]) -> ElementTree.Element:
    return ElementTree.fromstring(residue_map(sequence, scores, title="<Why> & 'how'"))


def test_a_bar_stands_up_or_hangs_by_its_sign_and_is_as_high_as_its_share() -> None:
    up, down = drawn("MKT", [2.0, -1.0, 0.0]).iter(f"{SVG}rect")
    assert (float(up.attrib["y"]), float(up.attrib["height"])) == (0, 20)
    assert (float(down.attrib["y"]), float(down.attrib["height"])) == (20, 10)
    assert up.attrib["style"] != down.attrib["style"]
    assert [bar.findtext(f"{SVG}title") for bar in (up, down)] == ["M1: +2.000", "K2: -1.000"]


def test_every_residue_of_a_row_has_its_letter_and_rows_their_number() -> None:
    sequence = "ACDEFGHIKL" * 13
    words = [text.text for text in drawn(sequence, [0.1] * 130).iter(f"{SVG}text")]
    assert [word for word in words if word and word.isdigit()] == ["1", "61", "121"]
    assert "".join(word for word in words if word and word.isalpha()) == sequence


def test_rows_that_were_not_read_are_one_line_of_words() -> None:
    num_residues = 10 * ROW_RESIDUES
    scores: list[float | None] = [1.0, *[None] * (num_residues - 2), 1.0]
    words = [text.text or "" for text in drawn("M" * num_residues, scores).iter(f"{SVG}text")]
    assert "residues 61 to 540 were not read" in words
    assert words.count("M") == 2 * ROW_RESIDUES
    nothing = [text.text for text in drawn("M" * 61, [1.0] * 60 + [None]).iter(f"{SVG}text")]
    assert nothing[-1] == "residues 61 to 61 were not read"


def test_a_protein_without_any_score_has_no_bar() -> None:
    assert not list(drawn("XXX", [0.0, 0.0, 0.0]).iter(f"{SVG}rect"))


def test_it_has_the_colours_of_the_page() -> None:
    svg = residue_map("MK", [1.0, -1.0], title="t")
    assert set(re.findall(r"var\(--([a-z0-9-]+)\)", svg)) == {"muted", "grid", "ink", "series-1", "series-2"}
    assert "#" not in svg
