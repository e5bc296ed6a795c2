"""The page's response: what stands in it, and the policy that lets a browser run exactly that."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from importlib import resources
from pathlib import Path

import pytest
from letters import LettersPredictor
from starlette.testclient import TestClient

from prottune.explanation import STRETCH_RESIDUES
from prottune.serving.guard import Guard
from prottune.serving.page import MAX_PROTEINS, page
from prottune.serving.predictor import LocationPredictor
from prottune.serving.routes import application
from prottune.serving.settings import ServeConfig

CONTENT, HEADERS = bytes(page().body).decode(), page().headers
POLICY = dict(rule.split(" ", 1) for rule in HEADERS["content-security-policy"].split("; "))


def inside(tag: str) -> str:
    """What stands in the one element without attributes of this name."""
    (found,) = re.findall(f"<{tag}>(.*?)</{tag}>", CONTENT, re.DOTALL)
    return str(found)


def hash_source(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def test_the_page_is_html_that_a_browser_may_not_guess_at() -> None:
    assert HEADERS["content-type"] == "text/html; charset=utf-8"
    assert HEADERS["x-content-type-options"] == "nosniff"
    assert HEADERS["referrer-policy"] == "no-referrer"
    assert HEADERS["x-frame-options"] == "DENY"


def test_the_policy_allows_this_script_and_this_style_and_nothing_else() -> None:
    assert POLICY["script-src"] == hash_source(inside("script"))
    assert POLICY["style-src"] == hash_source(inside("style"))
    assert POLICY["default-src"] == "'none'"
    assert POLICY["connect-src"] == "'self'"
    assert {POLICY[rule] for rule in ("base-uri", "form-action", "frame-ancestors")} == {"'none'"}


def test_the_page_names_no_other_place() -> None:
    assert not re.search(r"https?://|//[a-z]+\.|\bsrc=|@import|url\(", CONTENT)
    assert re.findall(r'href="([^"]*)"', CONTENT) == ["data:,"]


@pytest.mark.parametrize(
    "way", ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Storage", "cookie"]
)
def test_the_script_neither_makes_html_of_texts_nor_keeps_anything(way: str) -> None:
    assert way not in inside("script")


def test_markup_carries_no_script_and_no_style_of_its_own() -> None:
    markup = re.sub(r"<(script|style|template)[ >].*?</\1>", "", CONTENT, flags=re.DOTALL)
    assert not re.search(r"\s(on\w+|style)=", markup)
    assert "{{" not in CONTENT


def test_the_script_knows_the_servers_own_numbers() -> None:
    (facts,) = re.findall(r'<script type="application/json" id="facts">(.*?)</script>', CONTENT)
    assert json.loads(facts) == {
        "predict": "v1/models/prottune:predict",
        "explain": "v1/models/prottune:explain",
        "max_proteins": MAX_PROTEINS,
        "max_megabytes": ServeConfig.max_body_megabytes,
        "stretch_residues": STRETCH_RESIDUES,
    }


def test_the_page_has_the_colours_of_the_reports() -> None:
    assert inside("style").startswith(resources.files("prottune.reports").joinpath("colors.css").read_text())


@pytest.mark.parametrize(("is_wanted", "status"), [(True, 200), (False, 404)])
def test_the_endpoint_shows_its_page_unless_told_not_to(is_wanted: bool, status: int) -> None:
    config = ServeConfig(page=is_wanted)
    app = application(LocationPredictor(LettersPredictor(), config, "7"), config)
    response = TestClient(app).get("/")
    assert response.status_code == status
    assert (response.text == CONTENT) is is_wanted


def test_a_browser_gets_the_page_without_a_token_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("open-sesame-0123456789")
    config = ServeConfig(token_file=str(tmp_path / "token"))
    model = LocationPredictor(LettersPredictor(), config, "7")
    client = TestClient(Guard(application(model, config), config))
    response = client.get("/")
    assert (response.status_code, response.text) == (200, CONTENT)
    assert response.headers.get_list("content-security-policy") == [HEADERS["content-security-policy"]]
    assert client.post("/v1/models/prottune:predict").status_code == 401
