"""The whole application in this process, over ASGI; a server of its own is met in tests/deployment."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from letters import LettersPredictor

from prottune.errors import ConfigError
from prottune.serving.predictor import LocationPredictor
from prottune.serving.routes import application
from prottune.serving.server import serve
from prottune.serving.settings import ServeConfig

pytestmark = pytest.mark.filterwarnings("ignore:ORJSONResponse is deprecated")

PREDICT, INFER = "/v1/models/prottune:predict", "/v2/models/prottune/infer"


@pytest.fixture
def model() -> LocationPredictor:
    model = LocationPredictor(LettersPredictor(), ServeConfig(max_sequences=4, max_residues=100), "7")
    model.load()
    return model


@pytest.fixture
def app(model: LocationPredictor) -> FastAPI:
    return application(model)


def ask(app: FastAPI, method: str, path: str, **body: Any) -> httpx.Response:
    async def one_request() -> httpx.Response:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.request(method, path, **body)

    return asyncio.run(one_request())


def tensor(data: list[Any], **changes: Any) -> dict[str, Any]:
    return {
        "inputs": [{"name": "sequence", "shape": [len(data)], "datatype": "BYTES", "data": data} | changes]
    }


def test_the_list_of_routes_is_closed(app: FastAPI) -> None:
    assert sorted(route.path for route in app.routes) == [  # type: ignore[attr-defined]
        "/metrics",
        "/v1/models",
        "/v1/models/{model_name}",
        "/v1/models/{model_name}:predict",
        "/v2",
        "/v2/health/live",
        "/v2/health/ready",
        "/v2/models",
        "/v2/models/{model_name}",
        "/v2/models/{model_name}/infer",
        "/v2/models/{model_name}/ready",
    ]


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/openapi.json", "/"])
def test_there_are_no_pages(app: FastAPI, path: str) -> None:
    assert ask(app, "GET", path).status_code == 404


@pytest.mark.parametrize("verb", ["load", "unload"])
def test_nobody_can_load_or_unload_the_model(app: FastAPI, verb: str) -> None:
    assert ask(app, "POST", f"/v2/repository/models/prottune/{verb}").status_code == 404
    assert ask(app, "GET", "/v2/models/prottune/ready").json() == {"name": "prottune", "ready": True}


@pytest.mark.parametrize(
    "headers",
    [
        {"content-type": "application/json"},
        {"content-type": "application/json; charset=utf-8"},
        {"content-type": "application/x-www-form-urlencoded"},
        {"content-type": "text/plain"},
        {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "a", "ce-type": "b"},
        {},
    ],
    ids=["json", "charset", "curl -d", "text", "cloud event", "none"],
)
def test_both_protocols_answer_whatever_type_is_claimed(app: FastAPI, headers: dict[str, str]) -> None:
    v1 = ask(app, "POST", PREDICT, content=json.dumps({"instances": ["kkk"]}), headers=headers)
    assert (v1.status_code, v1.json()["predictions"][0]["location"]) == (200, "Nucleus")
    assert v1.json()["model_version"] == "7"
    v2 = ask(app, "POST", INFER, content=json.dumps(tensor(["LLL", "S S"])), headers=headers)
    assert v2.status_code == 200
    outputs = {output["name"]: output["data"] for output in v2.json()["outputs"]}
    assert outputs["location"] == ["Cell.membrane", "Lysosome/Vacuole"]
    np.testing.assert_allclose(
        outputs["probabilities"], [1 / 6, 4 / 6, 1 / 6, 1 / 5, 1 / 5, 3 / 5], rtol=1e-6
    )


def test_v2_takes_and_gives_binary_tensors(app: FastAPI) -> None:
    raw = b"".join(len(text).to_bytes(4, "little") + text for text in (b"KKK", b"LL"))
    entry = {
        "name": "sequence",
        "shape": [2],
        "datatype": "BYTES",
        "parameters": {"binary_data_size": len(raw)},
    }
    head = json.dumps({"inputs": [entry], "parameters": {"binary_data_output": True}}).encode()
    reply = ask(
        app,
        "POST",
        INFER,
        content=head + raw,
        headers={
            "Inference-Header-Content-Length": str(len(head)),
            "Content-Type": "application/octet-stream",
        },
    )
    assert reply.status_code == 200
    length = int(reply.headers["inference-header-content-length"])
    outputs = json.loads(reply.content[:length])["outputs"]
    sizes = [output["parameters"]["binary_data_size"] for output in outputs]
    start = length + sizes[0]
    assert [output["name"] for output in outputs][:2] == ["location", "probability"]
    np.testing.assert_allclose(np.frombuffer(reply.content[start : start + 8], "<f4"), [4 / 6, 3 / 5])


BAD_BODIES = [
    (PREDICT, b"", "format"),
    (PREDICT, b"{", "JSON|format"),
    (PREDICT, b"null", "body: expected an object"),
    (PREDICT, b'{"instances": ["MK1"]}', r"instances\[0\]: '1' at residue 3"),
    (PREDICT, b'{"instances": ["M", null]}', r"instances\[1\]"),
    (PREDICT, b'{"instances": [NaN]}', "JSON|format"),
    (PREDICT, json.dumps({"instances": ["M"] * 5}).encode(), "expected 1 to 4 sequences, got 5"),
    (PREDICT, json.dumps({"instances": ["M" * 101]}).encode(), "101 residues, expected at most 100"),
    (INFER, b"", "body: "),
    (INFER, b"{", "body: not JSON at character 1"),
    (INFER, b"5", "body: "),
    (INFER, b"[]", "body: "),
    (INFER, b'"text"', "body: |header is missing"),
    (INFER, b"{}", "inputs: Field required"),
    (INFER, b'{"inputs": []}', "inputs: expected one called 'sequence'"),
    (INFER, b'{"inputs": [{"name": "sequence"}]}', r"inputs\[0\]\.shape: Field required"),
    (INFER, json.dumps(tensor(["M"], shape=["x"])).encode(), r"inputs\[0\]\.shape\[0\]: "),
    (INFER, json.dumps(tensor(["M"], shape=[10**30])).encode(), r"inputs\[0\]\.shape"),
    (INFER, json.dumps(tensor(["M"], datatype="FP32")).encode(), r"inputs\[0\]\.datatype"),
    (INFER, json.dumps(tensor(["M"], datatype="FP16")).encode(), "FP16"),
    (INFER, json.dumps(tensor([{"a": 1}])).encode(), r"inputs\[0\]\.data\[0\]: expected text"),
    (INFER, json.dumps(tensor([float("nan")])).encode(), r"inputs\[0\]\.data\[0\]: expected text"),
    (INFER, json.dumps(tensor(["M-"])).encode(), r"inputs\[0\]\.data\[0\]: '-' at residue 2"),
    (INFER, json.dumps(tensor(["\ud800"])).encode(), r"inputs\[0\]\.data\[0\]: '\\ud800'"),
    (INFER, json.dumps(tensor(["M"]) | {"outputs": [{"name": "mood"}]}).encode(), "mood"),
]


@pytest.mark.parametrize(("path", "body", "words"), BAD_BODIES)
def test_bad_input_is_refused_with_words(app: FastAPI, path: str, body: bytes, words: str) -> None:
    reply = ask(app, "POST", path, content=body)
    assert reply.status_code == 400, reply.text
    assert list(reply.json()) == ["error"]
    assert re.search(words, reply.json()["error"]), reply.json()["error"]


@pytest.mark.parametrize("length", ["x", "-5", "0", "7", "999999"])
def test_a_lying_binary_header_is_refused(app: FastAPI, length: str) -> None:
    headers = {"Inference-Header-Content-Length": length, "Content-Type": "application/octet-stream"}
    reply = ask(app, "POST", INFER, content=json.dumps(tensor(["M"])) + "\x01\x02", headers=headers)
    assert reply.status_code == 400
    assert list(reply.json()) == ["error"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12) | st.just("MKT"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["sequence", "accession", "instances", "x"]), inner, max_size=3)
    ),
    max_leaves=8,
)
TENSOR = st.fixed_dictionaries(
    {},
    optional={
        "name": st.just("sequence") | JSON,
        "shape": st.lists(st.integers(-2, 3), max_size=2) | JSON,
        "datatype": st.sampled_from(["BYTES", "bytes", "FP16", "INT64", "?"]) | JSON,
        "data": st.lists(JSON, max_size=3) | JSON,
        "parameters": JSON,
    },
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(instances=JSON, tensors=st.lists(TENSOR | JSON, max_size=2), outputs=JSON, number=JSON)
def test_no_json_makes_the_server_fail(
    app: FastAPI, instances: Any, tensors: Any, outputs: Any, number: Any
) -> None:
    v1 = ask(app, "POST", PREDICT, content=json.dumps({"instances": instances}))
    body = {"inputs": tensors, "outputs": outputs, "id": number, "parameters": number}
    v2 = ask(app, "POST", INFER, content=json.dumps(body))
    v2_alone = ask(app, "POST", INFER, content=json.dumps({"inputs": tensors}))
    assert {v1.status_code, v2.status_code, v2_alone.status_code} <= {200, 400}


def test_an_unknown_model_and_a_wrong_method_are_named(app: FastAPI) -> None:
    assert ask(app, "POST", "/v1/models/nobody:predict", json={"instances": ["M"]}).status_code == 404
    assert ask(app, "GET", "/v2/models/nobody/ready").status_code == 404
    assert ask(app, "GET", INFER).status_code == 405


def test_a_model_that_is_not_ready_says_so_on_every_probe(app: FastAPI, model: LocationPredictor) -> None:
    model.stop()
    for path in ("/v1/models/prottune", "/v2/models/prottune/ready", "/v2/health/ready"):
        assert ask(app, "GET", path).status_code == 503
    assert ask(app, "POST", PREDICT, json={"instances": ["M"]}).status_code == 503
    assert ask(app, "GET", "/v2/health/live").json() == {"live": True}


def test_metadata_names_inputs_outputs_and_version(app: FastAPI) -> None:
    metadata = ask(app, "GET", "/v2/models/prottune").json()
    assert (metadata["name"], metadata["platform"], metadata["versions"]) == ("prottune", "prottune", ["7"])
    assert [entry["name"] for entry in metadata["inputs"]] == ["sequence"]
    assert [entry["name"] for entry in metadata["outputs"]] == [
        "location",
        "probability",
        "probabilities",
        "classes",
    ]


def test_a_bug_behind_the_endpoint_is_a_plain_500_without_the_sequence() -> None:
    class Broken(LettersPredictor):
        def predict(self, sequences: Any) -> Any:
            raise RuntimeError(f"cannot read {sequences}")

    model = LocationPredictor(Broken(), ServeConfig(), "7")
    model.load()
    reply = ask(application(model), "POST", PREDICT, json={"instances": ["MKTMKT"]})
    assert reply.status_code == 500
    assert reply.json() == {"error": "RuntimeError inside the server; its log says more"}


def test_metrics_are_served(app: FastAPI) -> None:
    ask(app, "POST", PREDICT, json={"instances": ["KKK"]})
    assert "request_predict_seconds" in ask(app, "GET", "/metrics").text


def test_a_port_in_use_is_refused_before_the_model_is_loaded(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1:{port}: Address already in use"):
            serve(tmp_path / "no model", ServeConfig(port=port))
