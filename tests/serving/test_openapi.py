from __future__ import annotations

import re
from typing import Any

import jsonschema_rs
import pytest
from letters import LettersPredictor

from prottune.serving.openapi import openapi
from prottune.serving.predictor import LocationPredictor
from prottune.serving.questions import questions_of_v1
from prottune.serving.routes import application
from prottune.serving.sdk import InvalidInput
from prottune.serving.settings import ServeConfig

CONFIG = ServeConfig(max_sequences=3, docs=True)
MODEL = LocationPredictor(LettersPredictor(), CONFIG, "7")


def operations(described: dict[str, Any]) -> set[tuple[str, str]]:
    return {(method.upper(), path) for path, methods in described["paths"].items() for method in methods}


@pytest.mark.parametrize(
    "config", [CONFIG, ServeConfig(docs=True, page=False, explain=False)], ids=["all", "without page"]
)
def test_every_route_is_described_and_no_other(config: ServeConfig) -> None:
    routes = {
        (method, route.path.replace("{model_name}", "prottune"))  # type: ignore[attr-defined]
        for route in application(MODEL, config).routes
        for method in route.methods - {"HEAD"}  # type: ignore[attr-defined] # which goes with every GET
    }
    assert operations(openapi(MODEL, config)) == routes


def test_all_references_lead_somewhere() -> None:
    described = openapi(MODEL, CONFIG)
    references = set(re.findall(r"'#/([^']+)'", str(described)))
    assert len(references) > 3
    for reference in references:
        part: Any = described
        for step in reference.split("/"):
            part = part[step]


def test_a_token_is_asked_for_everywhere_but_by_probes_and_metrics() -> None:
    described = openapi(MODEL, ServeConfig(token_file="token", docs=True))
    free = {
        path for path, methods in described["paths"].items() if methods.get("get", {}).get("security") == []
    }
    assert free == {
        "/",
        "/metrics",
        "/v1/models/prottune",
        "/v2/health/live",
        "/v2/health/ready",
        "/v2/models/prottune/ready",
    }
    assert described["security"] == [{"token": []}]
    assert "401" in described["paths"]["/v1/models/prottune:predict"]["post"]["responses"]


@pytest.mark.parametrize(
    ("instances", "is_right"),
    [
        (["MKT"], True),
        ([" m k\n t * "], True),
        ([">sp|P12345|X_Y words\nMKT\nAY\n"], True),
        ([{"accession": None, "sequence": "M", "location": "x", "note": 5}], True),
        ([], False),
        (["M"] * 4, False),
        (["M1"], False),
        (["M*K"], False),
        ([">P1 MKT"], False),
        ([">P1\nM\n>P2\nM"], False),
        ([{"accession": "P1"}], False),
        ([{"sequence": "M", "accession": 5}], False),
        ([{"sequence": "M", "accession": "a\tb"}], False),
    ],
)
def test_what_the_description_allows_is_what_is_read(instances: list[Any], is_right: bool) -> None:
    described = openapi(MODEL, CONFIG)
    request = described["paths"]["/v1/models/prottune:predict"]["post"]["requestBody"]
    schema = request["content"]["application/json"]["schema"] | {"components": described["components"]}
    body = {"instances": instances}
    assert jsonschema_rs.Draft202012Validator(schema).is_valid(body) is is_right
    if is_right:
        assert len(questions_of_v1(body, CONFIG)) == len(instances)
    else:
        with pytest.raises(InvalidInput):
            questions_of_v1(body, CONFIG)
