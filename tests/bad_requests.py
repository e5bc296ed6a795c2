"""Requests that nobody should send: mutated right ones, random JSON, random bytes, and odd heads."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

PREDICT, EXPLAIN = "/v1/models/prottune:predict", "/v1/models/prottune:explain"
INFER = "/v2/models/prottune/infer"


@dataclass(frozen=True)
class Request:
    path: str
    body: bytes
    method: str = "POST"
    headers: dict[str, str] = field(default_factory=dict)


def v1(*instances: Any) -> dict[str, Any]:
    return {"instances": list(instances)}


def v2(*rows: Any, **more: Any) -> dict[str, Any]:
    tensor = {"name": "sequence", "shape": [len(rows)], "datatype": "BYTES", "data": list(rows)}
    return {"inputs": [tensor], **more}


RIGHT = [
    (PREDICT, v1("MKTAYIAK")),
    (PREDICT, v1("mkt ayi\nak*", {"accession": "P1", "sequence": ">sp|P12345|X_Y some words\nMKT\nAYI\n"})),
    (PREDICT, v1({"sequence": "MKT", "location": None}, "ACDEFGHIKLMNPQRSTVWY" * 5)),
    (INFER, v2("MKTAYIAK")),
    (INFER, v2("MKT", "acd", id="id-1", parameters={"binary_data_output": False, "priority": 1})),
    (INFER, v2("MKT", outputs=[{"name": "location"}, {"name": "classes", "parameters": {}}])),
]

_SPLINTERS = [
    *(b'"', b"{", b"}", b"[", b"]", b",", b":", b"\\", b"\x00", b"\xff", b"\xc3", b"\xed\xa0\x80", b"\n"),
    *(b"NaN", b"-Infinity", b"1e999", b"null", b"true", b"-0", b"9" * 40, b"9" * 5000, b"[" * 2000),
    *(b'"\\ud800"', b"\\u0000", b'"instances":[],', b'"sequence":"M",', b'"shape":[1],', b"*", b">", b"M1"),
    *(b"\xef\xbb\xbf", b"/*", b"'", b"0x1", b"\\x41", "\U0001f9ec".encode(), "\u00df".encode(), b"\x1c"),
]
_KEYS = ["instances", "sequence", "accession", "location", "inputs", "outputs", "parameters", "id", "name"]
_KEYS += ["shape", "datatype", "data", "binary_data_size", "binary_data_output", "binary_data", "x", ""]
_TEXT = st.text(max_size=12) | st.sampled_from(
    ["MKT", "MK1", "", " ", ">P1\nMK\n>P2\nMK", "BYTES", "sequence"]
)
_NUMBERS = st.integers(-3, 3) | st.sampled_from([10**30, -(10**400), 0.5, 1e300, float("nan"), float("inf")])
_JSON = st.recursive(
    st.none() | st.booleans() | _NUMBERS | _TEXT,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_KEYS) | _TEXT, inner, max_size=3)
    ),
    max_leaves=6,
)


# Made once: a strategy that is made for every draw takes longer than the request.
_RIGHT = st.sampled_from([(path, json.dumps(body)) for path, body in RIGHT])
_TIMES = st.integers(1, 3)
_ANYWHERE = st.integers(0, 9999)
_CUT = st.sampled_from([0, 0, 1, 2, 5, 20])
_SPLINTER = st.sampled_from([b"", *_SPLINTERS])
_FAULT = st.sampled_from(["replace", "replace", "take out", "add"])
_KEY = st.sampled_from(_KEYS)
_YES_OR_NO = st.booleans()
_BYTES = st.binary(max_size=60)
_ROWS = st.lists(st.binary(max_size=8), max_size=3)
_SIZE = st.just("right") | st.integers(-2, 40) | _JSON
_LENGTH = st.just("right") | st.integers(-5, 400).map(str) | st.text("0123456789 -x", max_size=9)
_PATH = st.sampled_from([PREDICT, INFER, EXPLAIN])
_DOCUMENT = _JSON | st.dictionaries(st.sampled_from(["instances", "inputs", "id"]), _JSON, max_size=3)


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every part of a JSON value but the whole."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, inner in inside for place in ((*path, key), *_places(inner, (*path, key)))]


@st.composite
def _splintered(draw: st.DrawFn) -> Request:
    """A right body with some bytes cut out or put in."""
    path, text = draw(_RIGHT)
    body = text.encode()
    for _ in range(draw(_TIMES)):
        start = draw(_ANYWHERE) % (len(body) + 1)
        body = body[:start] + draw(_SPLINTER) + body[start + draw(_CUT) :]
    return Request(path, body)


@st.composite
def _misfilled(draw: st.DrawFn) -> Request:
    """A right body in which one part is replaced or taken out, or has a part too many."""
    path, text = draw(_RIGHT)
    document = json.loads(text)
    places = _places(document)
    *way, last = places[draw(_ANYWHERE) % len(places)]
    part = document
    for key in way:
        part = part[key]
    match draw(_FAULT):
        case "replace":
            part[last] = draw(_JSON)
        case "take out":
            del part[last]
        case "add" if isinstance(part, list):
            part.append(draw(_JSON))
        case "add":
            part[draw(_KEY)] = draw(_JSON)
    return Request(path, json.dumps(document).encode())


@st.composite
def _made_up(draw: st.DrawFn) -> Request:
    """Any JSON, often with the keys of a request."""
    text = json.dumps(draw(_DOCUMENT), ensure_ascii=draw(_YES_OR_NO))
    return Request(draw(_PATH), text.encode("utf-8", "surrogatepass"))


@st.composite
def _noise(draw: st.DrawFn) -> Request:
    """Bytes that mean nothing."""
    return Request(draw(_PATH), draw(_BYTES))


@st.composite
def _binary(draw: st.DrawFn) -> Request:
    """V2 with the tensor behind the JSON; some length is a lie."""
    rows = draw(_ROWS)
    raw = b"".join(len(row).to_bytes(4, "little") + row for row in rows)
    document = v2(*rows)
    size = draw(_SIZE)
    document["inputs"][0] |= {"parameters": {"binary_data_size": len(raw) if size == "right" else size}}
    del document["inputs"][0]["data"]
    head = json.dumps(document).encode()
    length = draw(_LENGTH)
    headers = {"Inference-Header-Content-Length": str(len(head)) if length == "right" else length}
    return Request(INFER, head + (raw if draw(_YES_OR_NO) else draw(_BYTES)), headers=headers)


_VALUES = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=30)
_NAMES = ["Content-Type", "Content-Encoding", "Accept", "Inference-Header-Content-Length", "ce-id", "Cookie"]
_NAMES += ["ce-specversion", "ce-source", "ce-type", "Authorization", "X-Request-Id", "Origin", "Range", "TE"]
_ODD_PATHS = ["/", "/v1", "/v2/", "//v2", "/v2/..", "/v1/models/%00", "/v2/models/prottune/versions/1/infer"]
_ODD_PATHS += [
    "/v2/repository/models/prottune/unload",
    "/docs",
    "/v1/models/x:predict",
    "/%ff%fe",
    "/v1/models/",
]
_ODD_PATHS += [
    "/v1/models/prottune:explode",
    "/v2/models/%2e%2e/ready",
    "/metrics/..;/",
    "/" + "a" * 2000,
    "/?" + "q" * 99,
]


_METHOD = st.sampled_from(["POST", "POST", "POST", "PUT", "GET", "DELETE", "PATCH", "OPTIONS", "TRACE"])
_HEADS = st.dictionaries(
    st.sampled_from(_NAMES),
    (_VALUES | st.sampled_from(["gzip", "-1", "text/plain"])).map(str.strip),
    max_size=3,
)
_ODD_PATH = st.sampled_from(["", "", *_ODD_PATHS])


@st.composite
def _odd_head(draw: st.DrawFn) -> Request:
    """A right or an odd body under a head that is odd."""
    path, text = draw(_RIGHT)
    body = text.encode() if draw(_YES_OR_NO) else draw(_BYTES)
    return Request(draw(_ODD_PATH) or path, body, draw(_METHOD), draw(_HEADS))


BODIES = _splintered() | _misfilled() | _made_up() | _noise() | _binary()
HEADS = _odd_head()
