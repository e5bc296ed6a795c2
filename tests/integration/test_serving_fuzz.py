"""Ten thousand bad requests and a fuzzer of OpenAPI against one real endpoint: nothing breaks, all is named.

FUZZ_SEED and FUZZ_REFUSED change the run; each test prints its seed and what it counted (-s).
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bad_requests import BODIES, EXPLAIN, HEADS, INFER, PREDICT, RIGHT, Request, v1, v2
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.strategies import SearchStrategy
from served import Served, served
from tiny_model import LABELS, write_tiny_model

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

SEED = int(os.environ.get("FUZZ_SEED", "31"))
NUM_REFUSED = int(os.environ.get("FUZZ_REFUSED", "10000"))
NUM_REFUSED_HEADS = NUM_REFUSED // 10
BATCH = 500
GOOD = Request(PREDICT, json.dumps(v1("MKTAYIAKQR", {"accession": "P1", "sequence": "mkt"})).encode())


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = write_tiny_model(tmp_path_factory.mktemp("model") / "tiny")
    with served(folder, "--precision", "fp32", "--model-version", "7", "--docs") as running:
        yield running


class Line:
    """One kept-alive connection; a reset is an error of the test, and every answer is checked."""

    def __init__(self, endpoint: Served) -> None:
        self._connection = http.client.HTTPConnection(endpoint.host_and_port, timeout=60)
        self.statuses: Counter[int] = Counter()
        self.num_connections = 0

    def __enter__(self) -> Line:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def ask(self, request: Request) -> tuple[int, dict[str, str], bytes]:
        self.num_connections += self._connection.sock is None
        self._connection.request(request.method, request.path, request.body, request.headers)
        reply = self._connection.getresponse()
        content = reply.read()
        self.statuses[reply.status] += 1
        headers = {name.lower(): value for name, value in reply.getheaders()}
        assert reply.status == 200 or 400 <= reply.status < 500, (request, reply.status, content)
        if reply.status >= 400 and content:
            error = json.loads(content)
            assert list(error) == ["error"], (request, content)
            assert re.match(r"[^\n]{1,120}?(: | does not exist)", error["error"]), (request, error)
            assert len(error["error"]) < 700, (request, error)
        return reply.status, headers, content

    @property
    def num_refused(self) -> int:
        return sum(number for status, number in self.statuses.items() if 400 <= status < 500)


def check_good(line: Line, right: list[dict[str, Any]]) -> None:
    """The same good request has the same answer as before all the bad ones."""
    status, _, content = line.ask(GOOD)
    assert (status, json.loads(content)["predictions"]) == (200, right)


def fuzz(line: Line, requests: SearchStrategy[Request], num_refused: int, check: Any) -> None:
    """Send batches until so many were refused; after each, a good request must be answered rightly."""
    _, _, content = line.ask(GOOD)
    right = json.loads(content)["predictions"]
    assert [(entry["accession"], entry["num_residues"]) for entry in right] == [(None, 10), ("P1", 3)]
    number = 0
    while line.num_refused < num_refused:

        @seed(SEED + number)
        @settings(
            max_examples=BATCH,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(request=requests)
        def one_batch(request: Request) -> None:
            status, headers, reply = line.ask(request)
            check(request, status, headers, reply)

        one_batch()
        check_good(line, right)
        number += 1


def num_residues(text: str) -> int:
    """Counted another way than the server counts."""
    text = text.strip().removeprefix("\ufeff")
    text = text.partition("\n")[2] if text.startswith(">") else text
    return len(re.findall("[A-Za-z]", text))


def check_body(request: Request, status: int, headers: dict[str, str], reply: bytes) -> None:
    """Bodies never end a connection; what is answered was asked, protein by protein."""
    assert "connection" not in headers, (request, headers)
    if status != 200 or "inference-header-content-length" in headers:
        return
    answer = json.loads(reply)
    if request.path == PREDICT:
        asked = json.loads(request.body)["instances"]
        texts = [entry if isinstance(entry, str) else entry["sequence"] for entry in asked]
        assert [entry["num_residues"] for entry in answer["predictions"]] == [num_residues(t) for t in texts]
    if request.path == INFER and not request.headers:
        rows = json.loads(request.body)["inputs"][0]["data"]
        sizes = {output["name"]: output["shape"][0] for output in answer["outputs"]}
        assert sizes.pop("classes", len(LABELS)) == len(LABELS)
        assert set(sizes.values()) <= {len(rows)}


def check_head(request: Request, status: int, headers: dict[str, str], reply: bytes) -> None:
    """Some heads are worth a connection; then the answer says so."""


def report(what: str, line: Line, seconds: float) -> None:
    counts = ", ".join(f"{status}: {number:,}" for status, number in sorted(line.statuses.items()))
    print(
        f"\nseed {SEED}, {what}: {sum(line.statuses.values()):,} requests in {seconds:.0f} s over "
        f"{line.num_connections} connections, refused {line.num_refused:,} ({counts})"
    )


def test_bad_bodies_are_refused_by_name_over_one_connection(endpoint: Served) -> None:
    began = time.monotonic()
    with Line(endpoint) as line:
        fuzz(line, BODIES, NUM_REFUSED - NUM_REFUSED_HEADS, check_body)
        report("bodies", line, time.monotonic() - began)
    assert set(line.statuses) == {200, 400}
    assert line.num_connections == 1


def test_odd_heads_are_refused_and_answered(endpoint: Served) -> None:
    began = time.monotonic()
    with Line(endpoint) as line:
        fuzz(line, HEADS, NUM_REFUSED_HEADS, check_head)
        report("heads", line, time.monotonic() - began)
    assert {200, 400, 404, 405, 415} <= set(line.statuses)


TABLE = {
    "empty body": (PREDICT, b"", 400, "body: not JSON at character 1"),
    "open brace": (PREDICT, b"{", 400, "body: not JSON at character 2"),
    "null": (PREDICT, b"null", 400, "body: expected an object"),
    "list": (PREDICT, b"[]", 400, "body: expected an object"),
    "number": (INFER, b"5", 400, "body: expected an object"),
    "empty object": (PREDICT, b"{}", 400, "body: expected an object like"),
    "instances null": (PREDICT, b'{"instances": null}', 400, "instances: expected a list, got null"),
    "instances empty": (PREDICT, b'{"instances": []}', 400, "instances: expected 1 to 256 sequences, got 0"),
    "integer": (PREDICT, b'{"instances": [5]}', 400, "instances[0]: expected a sequence"),
    "NaN": (PREDICT, b'{"instances": ["M", NaN]}', 400, "instances[1]: NaN is no JSON"),
    "Infinity": (INFER, json.dumps(v2(float("inf"))).encode(), 400, "inputs[0].data[0]: Infinity is no JSON"),
    "duplicate keys": (
        PREDICT,
        b'{"instances": ["M"], "instances": ["K"]}',
        400,
        "'instances' is given more",
    ),
    "deep nesting": (PREDICT, b"[" * 100_000, 400, "nested too deep"),
    "bad UTF-8": (PREDICT, b'{"instances": ["M\xff"]}', 400, "body: byte 0xff at position 18 is not UTF-8"),
    "lone surrogate": (
        PREDICT,
        b'{"instances": ["M\\ud800"]}',
        400,
        r"instances[0]: '\ud800' at character 2",
    ),
    "NUL": (PREDICT, b'{"instances": ["M\\u0000"]}', 400, r"instances[0]: '\x00' at character 2"),
    "5,000 digits": (PREDICT, b'{"instances": [' + b"7" * 5000 + b"]}", 400, "an integer of 5000 digits"),
    "emoji": (PREDICT, '{"instances": ["M\U0001f9ec"]}'.encode(), 400, r"'\U0001f9ec' at character 2"),
    "two records": (PREDICT, json.dumps(v1(">a\nM\n>b\nK")).encode(), 400, "2 FASTA records, expected one"),
    "gzip claim": (PREDICT, GOOD.body, 415, "content-encoding: expected identity"),
    "ce-* headers": (PREDICT, GOOD.body, 200, ""),
    "wrong content type": (PREDICT, GOOD.body, 200, ""),
    "lying length": (INFER, json.dumps(v2("M")).encode(), 400, "header inference-header-content-length"),
    "good": (PREDICT, GOOD.body, 200, ""),
}
_HEADERS = {
    "gzip claim": {"Content-Encoding": "gzip"},
    "ce-* headers": {"ce-specversion": "9", "ce-id": "", "ce-source": "\xff", "ce-type": "?"},
    "wrong content type": {"Content-Type": "image/png"},
    "lying length": {"Inference-Header-Content-Length": "99999"},
}


def test_the_table_of_malformed_requests(endpoint: Served) -> None:
    with Line(endpoint) as line:
        for name, (path, body, expected, words) in TABLE.items():
            status, _, content = line.ask(Request(path, body, headers=_HEADERS.get(name, {})))
            said = "" if status == 200 else json.loads(content)["error"]
            assert (status, words in said) == (expected, True), (name, status, said)
    print(f"\ntable: {len(TABLE)} requests, {line.num_refused} refused")


def test_what_is_right_is_answered(endpoint: Served) -> None:
    """The bodies that the fuzz spoils are good ones."""
    with Line(endpoint) as line:
        assert [line.ask(Request(path, json.dumps(body).encode()))[0] for path, body in RIGHT] == [200] * len(
            RIGHT
        )
        assert line.ask(Request(EXPLAIN, json.dumps(v1("MKTAYIAK")).encode()))[0] == 200


def test_schemathesis_finds_every_operation_as_described(endpoint: Served, tmp_path: Path) -> None:
    with contextlib.closing(http.client.HTTPConnection(endpoint.host_and_port, timeout=60)) as connection:
        connection.request("GET", "/openapi.json")
        described = json.loads(connection.getresponse().read())
    num_operations = sum(len(operations) for operations in described["paths"].values())
    (tmp_path / "openapi.json").write_text(json.dumps(described))  # read from its route, that one is left out
    command = [sys.executable, "-m", "schemathesis.cli", "run", "openapi.json", f"--url={endpoint.url}"]
    command += ["--checks=all", "--phases=coverage,fuzzing", "--max-examples=30", f"--seed={SEED}"]
    command += ["--generation-database=none", "--continue-on-failure", "--no-color"]
    command += ["--report=json", f"--report-json-path={tmp_path / 'report.json'}"]
    here = {"PYTHONPATH": str(Path(__file__).parents[1]), "SCHEMATHESIS_HOOKS": "schemathesis_hooks"}
    run = subprocess.run(
        command, env=os.environ | here, cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False
    )
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]
    said = json.loads((tmp_path / "report.json").read_text())
    operations, cases = said["operations"], said["test_cases"]
    print(f"\nseed {SEED}, schemathesis {said['schemathesis_version']}: {operations}, {cases}")
    assert (operations["tested"], said["failures"]) == (num_operations, [])
    assert {phase: said["phases"][phase]["status"] for phase in ("coverage", "fuzzing")} == {
        "coverage": "success",
        "fuzzing": "success",
    }
    assert said["complete"]
    assert cases["generated"] > 400
