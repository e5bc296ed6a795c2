"""The evaluation page in a real browser: its figures, its colours, on paper, and that it fetches nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chromium import PROGRAM, Browser, browser, is_installed

from tests.evaluation.test_stage import LOCATIONS, Bench, Oracle

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

ROWS = """[...document.querySelectorAll("section")].flatMap(section =>
  [...section.querySelectorAll("tr")].map(row =>
    [section.querySelector("h2").textContent, ...[...row.children].map(cell => cell.textContent)]))"""
TEXTS = """name => [...document.querySelectorAll("section")]
  .find(section => section.querySelector("h2").textContent == name)
  .querySelector("svg").querySelectorAll("text")"""
CONTRAST = """(() => {
  const light = color => { const [r, g, b] = color.match(/[0-9.]+/g).map(Number); return (r + g + b) / 765 };
  const style = getComputedStyle(document.body);
  const section = getComputedStyle(document.querySelector("section"));
  const text = getComputedStyle(document.querySelector("svg text"));
  return [style.color, section.backgroundColor, text.fill].map(light)
})()"""


@pytest.fixture(scope="module")
def chrome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A browser; where there is none, these tests are not run here."""
    if not is_installed():
        refuse = pytest.fail if PROGRAM in os.environ.get("PROTTUNE_REQUIRED_TIERS", "") else pytest.skip
        refuse(f"not run here: {PROGRAM}: absent (apt-get install {PROGRAM})")
    with browser(tmp_path_factory.mktemp("browser") / "profile") as opened:
        yield opened


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, kept_results: Path) -> Path:
    """The report of a candidate that is held: its champion is wrong about one gate protein only."""
    bench = Bench(tmp_path_factory.mktemp("bench"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PROTTUNE_CACHE", str(kept_results))
        bench.run(
            bench.add_champion(Oracle(bench.proteins, wrong={"GATE0"}), bench.train),
            "7",
            explained_mistakes=3,
        )
    return bench.report


@pytest.fixture
def page(chrome: Browser, report: Path) -> Browser:
    """The report, open on a screen in light colours."""
    chrome.emulate(scheme="light")
    chrome.resize(1000, 900)
    chrome.open(report / "report.html")
    return chrome


@pytest.fixture
def metrics(report: Path) -> Any:
    """What the page should show."""
    return json.loads((report / "metrics.json").read_text())


def figures(page: Browser, section: str, words: str) -> list[str]:
    """The cells of one row of one section's table, without its first."""
    (row,) = [row for row in page.ask(ROWS) if row[:2] == [section, words]]
    return [cell.replace("\u00a0", " ") for cell in row[2:]]


def picture_words(page: Browser, section: str) -> list[str]:
    """The words in a section's picture, top to bottom as they were drawn."""
    found: list[str] = page.ask(f"[...({TEXTS})({json.dumps(section)})].map(text => text.textContent)")
    return found


def interval(low: float, high: float) -> str:
    """How the page writes an interval."""
    return f"{low:.3f} to {high:.3f}"


def test_scores_on_the_page_are_those_of_metrics_json(page: Browser, metrics: Any) -> None:
    for split, section in (("test", "Scores on the official test"), ("gate", "Scores on the gate split")):
        scores = metrics[split]
        for key, words in (("accuracy", "accuracy"), ("macro_f1", "macro F1"), ("mcc", "MCC")):
            shown = figures(page, section, words)
            assert shown[0] == f"{scores[key]:.3f}"
            assert shown[1] == interval(*scores["intervals"][key])
            assert shown[2] == f"{scores['baseline'][key]:.3f}"
    headline = page.ask("document.querySelector('.summary').textContent")
    assert f"{100 * metrics['accuracy']:.1f}\u00a0% of 90 official test proteins" in headline


def test_parts_and_locations_on_the_page_are_those_of_metrics_json(page: Browser, metrics: Any) -> None:
    test = metrics["test"]
    for name, scores in test["per_class"].items():
        assert figures(page, "Each location", name)[:4] == [
            str(scores["support"]), *(f"{scores[key]:.3f}" for key in ("precision", "recall", "f1")),
        ]  # fmt: skip
    parts = (
        ("Near and far from the training proteins", "far", test["by_relatives"]["far"]),
        ("Short and long proteins", "129 to 256", test["by_length"]["129_to_256"]),
        ("Whole and cut, bound and soluble", "read whole", test["by_cut"]["whole"]),
        ("Whole and cut, bound and soluble", "membrane flag unknown", test["by_membrane"]["unknown"]),
    )
    for section, words, scores in parts:
        shown = figures(page, section, words)
        assert shown[:2] == [str(scores["num_proteins"]), f"{scores['accuracy']:.3f}"]
        assert shown[2] == interval(*scores["intervals"]["accuracy"])


def test_the_confusion_matrix_shows_every_count(page: Browser, metrics: Any) -> None:
    words = picture_words(page, "What is taken for what")
    counts = [str(count) for row in metrics["test"]["confusion"] for count in row if count]
    assert [word for word in words if word.isdigit()] == counts
    assert set(LOCATIONS) <= set(words)


def test_the_pictures_of_probabilities_name_their_curves(page: Browser, metrics: Any) -> None:
    section = "Do the probabilities mean what they say?"
    assert {"model", "before temperature", "floor"} <= set(picture_words(page, section))
    assert figures(page, section, "model") == [f"{metrics['test']['ece']:.3f}"]
    last = metrics["test"]["rejection"][-1]
    assert figures(page, "Only the surest answers", "100.0\u00a0%") == [
        str(last["num_proteins"]), f"{last['accuracy']:.3f}", f"{last['probability']:.3f}",
    ]  # fmt: skip


def test_mistakes_and_reasons_stand_there_by_name(page: Browser, report: Path, metrics: Any) -> None:
    rows = [row[1] for row in page.ask(ROWS) if row[0] == "The surest mistakes"][1:]
    assert rows == [mistake["accession"] for mistake in metrics["test"]["mistakes"]]
    decision = json.loads((report / "decision.json").read_text())
    assert page.ask("[...document.querySelectorAll('li')].map(one => one.textContent)") == decision["reasons"]
    tiles = page.ask("[...document.querySelectorAll('.tile')].map(tile => tile.textContent)")
    assert any(tile.startswith("decisionHold") for tile in tiles)
    difference = decision["difference_to_champion"]
    assert any(f"model less champion{difference['accuracy']:+.3f}" in tile for tile in tiles)


def test_the_share_of_strangers_that_are_seen_is_that_of_metrics_json(page: Browser, metrics: Any) -> None:
    found = metrics["test"]["unlike_training"]["strangers"]["shuffled"]
    shown = figures(page, "Unlike the training proteins", "same residues, shuffled")
    assert shown == [f"{found['auroc']:.3f}", f"{100 * found['share_flagged']:.1f} %"]


def test_residues_that_misled_the_model_unfold(page: Browser, metrics: Any) -> None:
    mistakes = metrics["test"]["mistakes"][:3]
    headings = page.ask("[...document.querySelectorAll('details > summary')].map(one => one.textContent)")
    assert headings == [
        f"{one['accession']}: {one['predicted']} ({one['probability']:.3f}), in truth {one['location']}"
        for one in mistakes
    ]
    is_seen = "document.querySelector('details svg').checkVisibility()"
    assert not page.ask(is_seen)
    page.ask("document.querySelector('details').open = true")
    assert page.ask(is_seen)
    drawn = "document.querySelector('details svg').querySelectorAll"
    assert page.ask(f"{drawn}('rect').length") == 2  # the first residue and the last have a score
    words = page.ask(f"[...{drawn}('text')].map(one => one.textContent)")
    assert sum(len(word) == 1 and word.isalpha() for word in words) == mistakes[0]["num_residues"]
    page.resize(400, 900)
    assert page.ask("document.documentElement.scrollWidth <= innerWidth")


def test_every_link_leads_to_a_section(page: Browser) -> None:
    links = page.ask("[...document.querySelectorAll('nav a')].map(link => link.hash)")
    assert len(links) == page.ask("document.querySelectorAll('section').length")
    assert page.ask(f"{json.dumps(links)}.every(hash => document.querySelector(hash))")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_stand_out_from_their_ground(page: Browser, scheme: str) -> None:
    page.emulate(scheme=scheme)
    ink, paper, chart_ink = page.ask(CONTRAST)
    assert (ink < paper) == (chart_ink < paper) == (scheme == "light")
    assert abs(ink - paper) > 0.5
    assert abs(chart_ink - paper) > 0.5
    assert page.picture().startswith(b"\x89PNG")


def test_paper_is_light_and_loses_nothing_at_its_edge(page: Browser) -> None:
    page.emulate(scheme="dark", media="print")
    page.resize(688, 1017)  # A4 at 96 dots an inch, without the margins of 14 mm
    ink, paper, chart_ink = page.ask(CONTRAST)
    assert max(ink, chart_ink) < 0.5 < paper
    assert page.ask("getComputedStyle(document.documentElement).colorScheme") == "light"
    assert page.ask("document.documentElement.scrollWidth <= innerWidth")
    assert page.printed().startswith(b"%PDF")


@pytest.mark.parametrize("width", [400, 1000])
def test_the_page_itself_never_scrolls_sideways(page: Browser, width: int) -> None:
    page.resize(width, 900)
    assert page.ask("document.documentElement.scrollWidth <= innerWidth")


def test_the_page_fetches_nothing_and_nothing_complains(page: Browser, report: Path) -> None:
    page.emulate(scheme="dark")
    page.picture()
    assert page.fetched == [(report / "report.html").as_uri()]
    assert page.complaints == []


def test_the_browser_does_tell_of_complaints_and_requests(chrome: Browser, tmp_path: Path) -> None:
    bad = "<script>console.error('no'); missing()</script><img src='absent.png'>"
    (tmp_path / "bad.html").write_text(bad)
    chrome.open(tmp_path / "bad.html")
    assert any("absent.png" in address for address in chrome.fetched)
    assert len(chrome.complaints) >= 3
