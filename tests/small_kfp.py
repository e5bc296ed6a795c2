"""A small Kubeflow Pipelines API server in memory, which a test can look into, script and make refuse."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from typing import Any
from urllib.parse import parse_qs, urlsplit

API = "/apis/v2beta1/"
PROXY = "/services/ml-pipeline:http/proxy/"
"""How a Kubernetes API server leads to it, below a namespace."""
Entry = dict[str, Any]


@dataclass
class Backend:
    """Pipelines, versions, experiments, runs and recurring runs, and every call that was made."""

    pipelines: list[Entry] = field(default_factory=list)
    versions: list[Entry] = field(default_factory=list)
    experiments: list[Entry] = field(default_factory=list)
    runs: list[Entry] = field(default_factory=list)
    recurringRuns: list[Entry] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    """Method and path of each call, in order."""
    tokens: set[str] = field(default_factory=set)
    proxied: set[str] = field(default_factory=set)
    """Namespaces that it was asked through, by way of a Kubernetes API server."""
    refuse: dict[str, int] = field(default_factory=dict)
    """Start of `METHOD path` -> the status with which such calls are refused."""
    states: list[Entry] = field(default_factory=list)
    """What a run says of itself, one entry a question; the last one stays."""
    page_size: int = 100
    tag: str = "2.17.0"
    """The version that the server tells of itself."""
    multi_user: bool = False
    """Whether it keeps every namespace's own apart. A standalone one has none, whatever is named."""
    port: int = 0
    numbers: Iterator[int] = field(default_factory=lambda: count(1))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def writes(self) -> list[str]:
        """The calls that change something."""
        return [call for call in self.calls if not call.startswith("GET")]


class RefusalError(Exception):
    """A status and the words that go with it."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status = status


def answer(backend: Backend, method: str, path: str, query: dict[str, str], body: Any) -> Any:
    """One call of the REST API."""
    routes: dict[tuple[str, str], Callable[[], Any]] = {
        ("GET", "healthz"): lambda: {"multi_user": backend.multi_user},
        ("GET", "/apis/v1beta1/healthz"): lambda: {"multi_user": backend.multi_user, "tag_name": backend.tag},
        ("GET", "pipelines"): lambda: _page(
            backend, "pipelines", _matching(_of_namespace(backend, backend.pipelines, query), query), query
        ),
        ("POST", "pipelines"): lambda: _create_pipeline(backend, body),
        ("POST", "pipelines/upload_version"): lambda: _upload(backend, query, body),
        ("GET", "experiments"): lambda: _page(
            backend,
            "experiments",
            _matching(_of_namespace(backend, backend.experiments, query), query),
            query,
        ),
        ("POST", "experiments"): lambda: _add(backend.experiments, backend, "experiment_id", body),
        ("POST", "runs"): lambda: _add(backend.runs, backend, "run_id", body),
        ("GET", "recurringruns"): lambda: _page(
            backend, "recurringRuns", _schedules_of_namespace(backend, query), query
        ),
        ("POST", "recurringruns"): lambda: _add(backend.recurringRuns, backend, "recurring_run_id", body),
    }
    if (method, path) in routes:
        return routes[method, path]()
    kind, _, rest = path.partition("/")
    if method == "GET" and kind == "pipelines" and rest.endswith("/versions"):
        of_it = [each for each in backend.versions if each["pipeline_id"] == rest.split("/")[0]]
        return _page(backend, "pipeline_versions", of_it, query)
    if method == "GET" and kind == "runs":
        run = next(each for each in backend.runs if each["run_id"] == rest)
        said = backend.states.pop(0) if len(backend.states) > 1 else backend.states[0]
        return run | said
    if kind == "recurringruns":
        number, _, act = rest.partition(":")
        entry = next((each for each in backend.recurringRuns if each["recurring_run_id"] == number), None)
        if entry is None:
            raise RefusalError(404, "no such recurring run")
        if method == "DELETE":
            backend.recurringRuns.remove(entry)
        else:
            entry["mode"] = act.upper()
        return {}
    raise RefusalError(404, f"{method} {path}: no such route")


def _add(entries: list[Entry], backend: Backend, key: str, body: Any) -> Entry:
    entry = {key: str(next(backend.numbers)), **body}
    entries.append(entry)
    return entry


def _create_pipeline(backend: Backend, body: Entry) -> Entry:
    """One of a name in a namespace; a second one is refused as the real server does."""
    place = _place(backend, body)
    if any(
        (each["display_name"], _place(backend, each)) == (body["display_name"], place)
        for each in backend.pipelines
    ):
        raise RefusalError(409, f"Already exist error: the name {body['display_name']} already exists")
    return _add(backend.pipelines, backend, "pipeline_id", body)


def _place(backend: Backend, words: Mapping[str, Any]) -> str:
    """The namespace that the server understands; no namespace at all means what is shared by all."""
    return str(words.get("namespace") or "") if backend.multi_user else ""


def _of_namespace(backend: Backend, entries: list[Entry], query: dict[str, str]) -> list[Entry]:
    return [each for each in entries if _place(backend, each) == _place(backend, query)]


def _schedules_of_namespace(backend: Backend, query: dict[str, str]) -> list[Entry]:
    """A recurring run belongs where its experiment does."""
    there = {each["experiment_id"] for each in _of_namespace(backend, backend.experiments, query)}
    return [
        each for each in backend.recurringRuns if not backend.multi_user or each["experiment_id"] in there
    ]


def _upload(backend: Backend, query: dict[str, str], body: Any) -> Entry:
    made = {"display_name": query["name"], "pipeline_id": query["pipelineid"], "package": body}
    found = _add(backend.versions, backend, "pipeline_version_id", made)
    return {name: value for name, value in found.items() if name != "package"}


def _matching(entries: list[Entry], query: dict[str, str]) -> list[Entry]:
    wanted = json.loads(query.get("filter") or "{}").get("predicates", [])
    return [
        each
        for each in entries
        if all(str(each.get(p["key"])) == p.get("stringValue", p.get("string_value")) for p in wanted)
    ]


def _page(backend: Backend, field_name: str, entries: list[Entry], query: dict[str, str]) -> Any:
    first = int(query.get("page_token") or 0)
    last = first + backend.page_size
    shown = [
        {name: value for name, value in each.items() if name != "package"} for each in entries[first:last]
    ]
    return {field_name: shown, "next_page_token": str(last) if last < len(entries) else ""}


def handler_of(backend: Backend) -> type[BaseHTTPRequestHandler]:
    """A request handler that answers from one backend."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_call(self) -> None:
            address = urlsplit(self.path)
            place, is_proxied, rest = address.path.partition(PROXY)
            if is_proxied:
                backend.proxied.add(place)
            path = (rest if is_proxied else address.path).removeprefix(API)
            query = {name: values[0] for name, values in parse_qs(address.query).items()}
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            body = json.loads(raw) if raw.startswith(b"{") else raw
            call = f"{self.command} {path}"
            backend.calls.append(call)
            backend.tokens.add(self.headers.get("Authorization", ""))
            refused = next((status for start, status in backend.refuse.items() if call.startswith(start)), 0)
            try:
                status, said = 200, answer(backend, self.command, path, query, body) if not refused else None
            except RefusalError as refusal:
                status, said = refusal.status, {"error_message": str(refusal)}
            if refused:
                status, said = refused, {"error_message": "refused by the test"}
            content = json.dumps(said).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_DELETE = handle_call

        def log_message(self, *_: Any) -> None:
            pass

    return Handler


@contextmanager
def running(backend: Backend) -> Iterator[Backend]:
    """Serve a backend on a free port of this machine."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(backend))
    backend.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield backend
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
