"""The whole application in this process, over ASGI; a server of its own is met in tests/deployment."""

from __future__ import annotations

import asyncio
import json
import re
import resource
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from letters import LettersPredictor
from starlette.applications import Starlette

from prottune.errors import ConfigError
from prottune.serving.answers import NoNumber
from prottune.serving.batcher import Overloaded, TooLate, TooMuch
from prottune.serving.predictor import LocationPredictor
from prottune.serving.routes import application
from prottune.serving.server import _allow_connections, serve
from prottune.serving.settings import ServeConfig

CONFIG = ServeConfig(max_sequences=4, max_residues=100, page=False)
PREDICT, INFER = "/v1/models/prottune:predict", "/v2/models/prottune/infer"


@pytest.fixture
def model() -> LocationPredictor:
    model = LocationPredictor(LettersPredictor(), CONFIG, "7")
    model.load()
    return model


@pytest.fixture
def app(model: LocationPredictor) -> Starlette:
    return application(model, CONFIG)


def ask(app: Starlette, method: str, path: str, **body: Any) -> httpx.Response:
    async def one_request() -> httpx.Response:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.request(method, path, **body)

    return asyncio.run(one_request())


def tensor(rows: list[Any], **changes: Any) -> dict[str, Any]:
    return {
        "inputs": [{"name": "sequence", "shape": [len(rows)], "datatype": "BYTES", "data": rows} | changes]
    }


def test_the_list_of_routes_is_closed(app: Starlette) -> None:
    assert sorted(route.path_format for route in app.routes) == [  # type: ignore[attr-defined]
        "/metrics",
        "/v1/models",
        "/v1/models/{model_name}",
        "/v1/models/{model_name}:explain",
        "/v1/models/{model_name}:predict",
        "/v2",
        "/v2/health/live",
        "/v2/health/ready",
        "/v2/models",
        "/v2/models/{model_name}",
        "/v2/models/{model_name}/infer",
        "/v2/models/{model_name}/ready",
    ]


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/openapi.json", "/", "/v2/", "/v1/models/"])
def test_there_are_no_pages(app: Starlette, path: str) -> None:
    assert ask(app, "GET", path).status_code == 404


@pytest.mark.parametrize("verb", ["load", "unload"])
def test_nobody_can_load_or_unload_the_model(app: Starlette, verb: str) -> None:
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
def test_both_protocols_answer_whatever_type_is_claimed(app: Starlette, headers: dict[str, str]) -> None:
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


def test_v2_takes_and_gives_binary_tensors(app: Starlette) -> None:
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
    (PREDICT, b"", "body: not JSON at character 1"),
    (PREDICT, b"{", "body: not JSON at character 2"),
    (PREDICT, b"null", "body: expected an object"),
    (PREDICT, b'{"instances": ["MK1"]}', r"instances\[0\]: '1' at residue 3"),
    (PREDICT, b'{"instances": ["M", null]}', r"instances\[1\]"),
    (PREDICT, b'{"instances": [NaN]}', r"instances\[0\]: NaN is no JSON"),
    (PREDICT, b'{"instances": ["M"], "instances": ["K"]}', "'instances' is given more than once"),
    (PREDICT, b'{"instances": ["\\ud800"]}', r"instances\[0\]: '\\ud800' at character 1"),
    (PREDICT, b'{"\\ud800": 1, "\\ud800": 2}', r"the key '\\ud800' is given more than once"),
    (PREDICT, json.dumps({"instances": ["M"] * 5}).encode(), "expected 1 to 4 sequences, got 5"),
    (PREDICT, json.dumps({"instances": ["M" * 101]}).encode(), "101 residues, expected at most 100"),
    (INFER, b"", "body: not JSON at character 1"),
    (INFER, b"{", "body: not JSON at character 2"),
    (INFER, b"5", "body: expected an object .*, got a number"),
    (INFER, b"[]", "body: expected an object .*, got a list"),
    (INFER, b'"text"', "body: expected an object .*, got text"),
    (INFER, b"{}", "inputs: expected a list, got nothing"),
    (INFER, b'{"inputs": []}', "inputs: expected one called 'sequence'"),
    (INFER, b'{"inputs": [5]}', r"inputs\[0\]: expected an object, got a number"),
    (
        INFER,
        b'{"inputs": [{"name": "sequence", "datatype": "BYTES"}]}',
        r"inputs\[0\]\.shape: expected a list",
    ),
    (INFER, json.dumps(tensor(["M"], name=7)).encode(), r"inputs\[0\]\.name: expected text, got a number"),
    (INFER, json.dumps(tensor(["M"], shape=["1"])).encode(), r"inputs\[0\]\.shape\[0\]: .* got text"),
    (INFER, json.dumps(tensor(["M"], shape=[True])).encode(), r"inputs\[0\]\.shape\[0\]: .* true or false"),
    (INFER, json.dumps(tensor(["M"], shape=[10**30])).encode(), r"inputs\[0\]\.shape"),
    (INFER, json.dumps(tensor(["M"], datatype="FP32")).encode(), r"inputs\[0\]\.datatype"),
    (INFER, json.dumps(tensor(["M"], datatype="bytes")).encode(), r"inputs\[0\]\.datatype: expected 'BYTES'"),
    (
        INFER,
        json.dumps(tensor(["M"], data=None)).encode(),
        r"inputs\[0\]\.data: expected a list, got nothing",
    ),
    (INFER, json.dumps(tensor([{"a": 1}])).encode(), r"inputs\[0\]\.data\[0\]: expected text"),
    (INFER, json.dumps(tensor([float("nan")])).encode(), r"inputs\[0\]\.data\[0\]: NaN is no JSON"),
    (INFER, json.dumps(tensor(["M-"])).encode(), r"inputs\[0\]\.data\[0\]: '-' at residue 2"),
    (INFER, json.dumps(tensor(["\ud800"])).encode(), r"inputs\[0\]\.data\[0\]: '\\ud800'"),
    (INFER, json.dumps(tensor(["M"], parameters={"binary_data_size": 5})).encode(), "data: expected nothing"),
    (INFER, json.dumps(tensor(["M"], parameters={"shared_memory_region": "x"})).encode(), "got 'shared_mem"),
    (
        INFER,
        json.dumps(tensor(["M"], parameters=[])).encode(),
        r"inputs\[0\]\.parameters: expected an object",
    ),
    (INFER, json.dumps(tensor(["M"]) | {"id": 5}).encode(), "id: .* got a number"),
    (INFER, json.dumps(tensor(["M"]) | {"id": "\ud800"}).encode(), r"id: .* '\\ud800' at character 1"),
    (
        INFER,
        json.dumps(tensor(["M"]) | {"parameters": {"a": [1]}}).encode(),
        "parameters, 'a': expected text",
    ),
    (INFER, json.dumps(tensor(["M"]) | {"parameters": {"binary_data_output": 1}}).encode(), "true or false"),
    (INFER, json.dumps(tensor(["M"]) | {"outputs": 5}).encode(), "outputs: expected a list, got a number"),
    (
        INFER,
        json.dumps(tensor(["M"]) | {"outputs": [{"name": "mood"}]}).encode(),
        "outputs.0..name: .*'mood'",
    ),
    (INFER, json.dumps(tensor(["M"]) | {"outputs": [{"name": "classes"}] * 2}).encode(), "each once"),
    (
        INFER,
        json.dumps(
            tensor(["M"]) | {"outputs": [{"name": "classes", "parameters": {"classification": 3}}]}
        ).encode(),
        r"outputs\[0\]\.parameters: expected only 'binary_data', got 'classification'",
    ),
]


@pytest.mark.parametrize(("path", "body", "words"), BAD_BODIES)
def test_bad_input_is_refused_with_words(app: Starlette, path: str, body: bytes, words: str) -> None:
    reply = ask(app, "POST", path, content=body)
    assert reply.status_code == 400, reply.text
    assert list(reply.json()) == ["error"]
    assert re.search(words, reply.json()["error"]), reply.json()["error"]


@pytest.mark.parametrize("field", ["name", "datatype", "data", "parameters", "id", "outputs"])
def test_a_refusal_quotes_little_of_what_was_sent(app: Starlette, field: str) -> None:
    long = "m1" * 2000
    spoilt = {"data": [long], "parameters": {long: []}, "outputs": [{"name": long}]}.get(field, long)
    body = tensor(["M"]) | ({field: spoilt} if field in ("id", "outputs") else {})
    body["inputs"][0] |= {field: spoilt}
    reply = ask(app, "POST", INFER, json=body)
    assert (reply.status_code, len(reply.json()["error"]) < 200) == (400, True), reply.text


def test_only_the_outputs_that_are_asked_for_come_and_in_that_order(app: Starlette) -> None:
    asked = [{"name": "classes"}, {"name": "location", "parameters": {"binary_data": False}}]
    reply = ask(app, "POST", INFER, json=tensor(["KKK"]) | {"outputs": asked, "id": "a"}).json()
    assert (reply["id"], [output["name"] for output in reply["outputs"]]) == ("a", ["classes", "location"])


@pytest.mark.parametrize(
    ("raw", "size", "words"),
    [
        (b"\x03\0\0\0KKK", 8, "binary_data_size: expected 0 to 7, the bytes that are there, got 8"),
        (b"\x03\0\0\0KKK", -1, "binary_data_size: expected 0 to 7"),
        (b"\x03\0\0\0KKK", True, "binary_data_size: expected 0 to 7"),
        (b"\x03\0\0\0KKK", 6, "binary data: element 0 of 3 bytes begins at byte 0 of 6"),
        (b"\x03\0\0\0KKK", 0, "body: 7 bytes behind the JSON belong to no input's binary_data_size"),
        (b"\x03\0\0\0KKK\0\0", 9, "binary data: element 1 of 4 bytes begins at byte 7 of 9"),
        (b"\xff\xff\xff\xffKKK", 7, "binary data: element 0 of 4294967295 bytes"),
    ],
)
def test_bytes_that_are_not_as_long_as_they_say_are_refused(
    app: Starlette, raw: bytes, size: Any, words: str
) -> None:
    entry = tensor([], shape=[1], parameters={"binary_data_size": size})
    del entry["inputs"][0]["data"]
    head = json.dumps(entry).encode()
    headers = {"Inference-Header-Content-Length": str(len(head))}
    reply = ask(app, "POST", INFER, content=head + raw, headers=headers)
    assert (reply.status_code, words in reply.json()["error"]) == (400, True), reply.text


@pytest.mark.parametrize("length", ["x", "-5", "0", "7", "999999"])
def test_a_lying_binary_header_is_refused(app: Starlette, length: str) -> None:
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


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(instances=JSON, tensors=st.lists(TENSOR | JSON, max_size=2), outputs=JSON, number=JSON)
def test_no_json_makes_the_server_fail(
    app: Starlette, instances: Any, tensors: Any, outputs: Any, number: Any
) -> None:
    v1 = ask(app, "POST", PREDICT, content=json.dumps({"instances": instances}))
    body = {"inputs": tensors, "outputs": outputs, "id": number, "parameters": number}
    v2 = ask(app, "POST", INFER, content=json.dumps(body))
    v2_alone = ask(app, "POST", INFER, content=json.dumps({"inputs": tensors}))
    assert {v1.status_code, v2.status_code, v2_alone.status_code} <= {200, 400}


def test_a_probe_may_ask_with_head(app: Starlette) -> None:
    reply = ask(app, "HEAD", "/v2/health/ready")
    assert reply.status_code == 200
    assert reply.headers["content-type"] == "application/json"


def test_an_unknown_model_and_a_wrong_method_are_named(app: Starlette) -> None:
    unknown = ask(app, "POST", "/v1/models/nobody:predict", json={"instances": ["M"]})
    assert (unknown.status_code, unknown.json()["error"]) == (404, "Model with name nobody does not exist.")
    assert ask(app, "GET", "/v2/models/nobody/ready").status_code == 404
    wrong = ask(app, "GET", "/nowhere\u00e9")
    assert (wrong.status_code, wrong.json()["error"]) == (404, r"GET '/nowhere\xe9': there is no such route")
    allowed = {("GET", INFER): {"POST"}, ("GET", PREDICT): {"POST"}, ("POST", "/v2"): {"GET", "HEAD"}}
    for (method, path), methods in allowed.items():
        reply = ask(app, method, path)
        assert (reply.status_code, set(reply.headers["allow"].split(", "))) == (405, methods)
        assert reply.json() == {"error": f"{method} '{path}': the route takes another method"}


def test_a_model_that_is_not_ready_says_so_on_every_probe(app: Starlette, model: LocationPredictor) -> None:
    model.stop()
    for path in ("/v1/models/prottune", "/v2/models/prottune/ready", "/v2/health/ready"):
        assert ask(app, "GET", path).status_code == 503
    assert ask(app, "POST", PREDICT, json={"instances": ["M"]}).status_code == 503
    assert ask(app, "GET", "/v2/health/live").json() == {"live": True}


def test_metadata_names_inputs_outputs_and_version(app: Starlette) -> None:
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
    reply = ask(application(model, CONFIG), "POST", PREDICT, json={"instances": ["MKTMKT"]})
    assert reply.status_code == 500
    assert reply.json() == {"error": "RuntimeError inside the server; its log says more"}


@pytest.mark.parametrize("verb", ["predict", "explain"])
@pytest.mark.parametrize(
    ("error", "said"),
    [
        (Overloaded("3 wait", 2), (429, "2", {"error": "3 wait; try again in 2 s"})),
        (TooLate("not answered within 60 s"), (503, "1", {"error": "not answered within 60 s"})),
    ],
)
def test_a_request_that_cannot_be_answered_now_hears_when_to_come_again(
    model: LocationPredictor, verb: str, error: Exception, said: tuple[int, str, dict[str, str]]
) -> None:
    async def fail(*_: Any) -> Any:
        raise error

    setattr(model, verb, fail)
    reply = ask(application(model, CONFIG), "POST", f"/v1/models/prottune:{verb}", json={"instances": ["M"]})
    assert (reply.status_code, reply.headers["retry-after"], reply.json()) == said


@pytest.mark.parametrize("verb", ["predict", "explain"])
@pytest.mark.parametrize(
    ("error", "status"), [(TooMuch("60 s are not enough"), 413), (NoNumber("sequence 0: no number"), 500)]
)
def test_a_request_that_can_never_be_answered_does_not_hear_that_it_may_come_again(
    model: LocationPredictor, verb: str, error: Exception, status: int
) -> None:
    async def fail(*_: Any) -> Any:
        raise error

    setattr(model, verb, fail)
    reply = ask(application(model, CONFIG), "POST", f"/v1/models/prottune:{verb}", json={"instances": ["M"]})
    assert (reply.status_code, reply.json()) == (status, {"error": str(error)})
    assert "retry-after" not in reply.headers


def test_explanations_get_the_body_and_send_no_header_of_the_caller_back(model: LocationPredictor) -> None:
    async def explain(body: bytes, headers: dict[str, str]) -> Any:
        return {"explanations": json.loads(body)["instances"], "model_version": "7"}

    model.explain = explain  # type: ignore[method-assign]
    secret = {"authorization": "Bearer secret", "ce-id": "1"}
    reply = ask(
        application(model, CONFIG),
        "POST",
        "/v1/models/prottune:explain",
        json={"instances": ["M"]},
        headers=secret,
    )
    assert (reply.status_code, reply.json()["explanations"]) == (200, ["M"])
    assert set(reply.headers) == {"content-type", "content-length"}


def test_what_is_switched_off_is_no_route(model: LocationPredictor) -> None:
    off = application(model, ServeConfig(page=False, explain=False))
    assert ask(off, "POST", "/v1/models/prottune:explain", json={"instances": ["M"]}).status_code in (
        404,
        405,
    )
    assert [ask(off, "GET", path).status_code for path in ("/", "/openapi.json")] == [404, 404]
    on = application(model, ServeConfig(docs=True))
    assert ask(on, "GET", "/").headers["content-type"] == "text/html; charset=utf-8"
    assert ask(on, "GET", "/openapi.json").json()["info"]["title"] == "prottune"


def test_metrics_are_served(app: Starlette) -> None:
    ask(app, "POST", PREDICT, json={"instances": ["KKK"]})
    assert "request_predict_seconds" in ask(app, "GET", "/metrics").text


@pytest.fixture
def few_files() -> Iterator[tuple[int, int]]:
    """A limit on open files that is lower than a server's; yields it, and the highest."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, before[1]))
    yield 200, before[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize("is_endless", [False, True], ids=["as here", "as on macOS"])
def test_as_many_files_are_allowed_as_the_connections_need(
    few_files: tuple[int, int], is_endless: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    allowed, most = few_files
    set_limit = resource.setrlimit
    if is_endless:
        said = (allowed, resource.RLIM_INFINITY)
        monkeypatch.setattr(resource, "getrlimit", lambda _: said)
        monkeypatch.setattr(resource, "setrlimit", lambda kind, limits: set_limit(kind, (limits[0], most)))
    _allow_connections(ServeConfig(max_connections=300))
    monkeypatch.undo()
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (428, most)


@pytest.mark.usefixtures("few_files")
def test_more_connections_than_the_system_has_files_for_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (200, 500))
    with pytest.raises(ConfigError, match="expected 628 open files, the system allows 500; choose fewer"):
        _allow_connections(ServeConfig(max_connections=500))
    monkeypatch.undo()
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 200


def test_a_port_in_use_is_refused_before_the_model_is_loaded(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1:{port}: Address already in use"):
            serve(tmp_path / "no model", ServeConfig(port=port))
