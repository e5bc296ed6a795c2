"""The HTTP side of the small cluster: paths, verbs, watches, logs, and what goes wrong with the n-th call."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlsplit

if TYPE_CHECKING:
    from small_cluster import SmallCluster

VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_SILENCE_SECONDS = 2.0
"""How long a call that is not answered keeps its connection."""


class Refused(Exception):  # noqa: N818 - an HTTP answer, not a bug
    """An answer that is no success, as the API server words it."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code, self.reason = code, reason


@dataclass(frozen=True)
class Call:
    """One request: what a Role would have to allow for it."""

    verb: str
    resource: str
    """With its group and subresource: `pods/log`, `leases.coordination.k8s.io`."""
    namespace: str
    name: str
    strict: bool = False
    """Whether a field that nobody knows is refused (fieldValidation=Strict); otherwise it is dropped."""

    @property
    def writes(self) -> bool:
        reviews = self.resource.startswith(("selfsubjectaccessreviews", "localsubjectaccessreviews"))
        return self.verb in ("create", "update", "patch", "delete") and not reviews


def call_of(method: str, path: str, query: Mapping[str, str]) -> Call:
    """What a request asks for: /api/v1/... or /apis/GROUP/VERSION/..., with or without a namespace."""
    parts = [unquote(part) for part in path.strip("/").split("/")]
    group, rest = ("", parts[2:]) if parts[0] == "api" else (parts[1], parts[3:])
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 2:
        namespace, rest = rest[1], rest[2:]
    plural, name, sub = (*rest, "", "")[:3]
    resource = ".".join(part for part in (plural, group) if part) + (f"/{sub}" if sub else "")
    verb = VERBS.get(method) or ("watch" if is_watch(query) else "get" if name else "list")
    return Call(verb, resource, namespace, name, strict=query.get("fieldValidation") == "Strict")


def is_watch(query: Mapping[str, str]) -> bool:
    return query.get("watch", "").lower() == "true"


def is_of_objects(path: str) -> bool:
    """Whether a path names a kind of objects: /api/v1/pods, /apis/GROUP/VERSION/..."""
    first, *rest = path.strip("/").split("/")
    return (first == "api" and len(rest) >= 2) or (first == "apis" and len(rest) >= 3)


def handler_of(cluster: SmallCluster) -> type[BaseHTTPRequestHandler]:
    """A request handler that answers from one cluster."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def handle_any(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else {}
            address = urlsplit(self.path)
            query = dict(parse_qsl(address.query))
            if self.command == "GET" and address.path in cluster.pages:
                if cluster.down:
                    self.close_connection = True
                else:
                    self.reply(200, cluster.pages[address.path])
                return
            if address.path.startswith("/openapi/v3/"):  # what is not published is no error there
                self.reply(200, "")
                return
            if not is_of_objects(address.path):
                self.reply(
                    404, status_of(404, "NotFound", "the server could not find the requested resource")
                )
                return
            call = call_of(self.command, address.path, query)
            with cluster.lock:
                cluster.calls.append(call)
                fault = "cut" if cluster.down else cluster.faults.get(len(cluster.calls))
            if fault == "timeout":
                cluster.closing.wait(_SILENCE_SECONDS)
            if fault in ("timeout", "cut"):
                self.close_connection = True
                return
            try:
                refuse_if_told(cluster, call, fault)
                if is_watch(query):
                    self.stream_events(call, query)
                    return
                with cluster.lock:
                    status, answer = self.answer_to(call, body, query)
            except Refused as refused:
                status, answer = refused.code, status_of(refused.code, refused.reason, str(refused))
            if fault == "lost":
                self.close_connection = True
                return
            self.reply(status, answer)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any

        def answer_to(self, call: Call, body: Any, query: dict[str, str]) -> tuple[int, Any]:
            if call.resource.startswith("selfsubjectaccessreviews."):
                return 201, cluster.review(body)
            if call.resource.startswith("localsubjectaccessreviews."):
                return 201, cluster.review(body, cluster.denied_to.get(body["spec"]["user"], set()))
            status_only = call.resource.endswith("/status")
            if call.resource == "pods/log":
                return 200, log_of(cluster, call, query)
            if status_only:
                call = replace(call, resource=call.resource.removesuffix("/status"))
            if call.verb in ("create", "update", "patch", "delete"):
                only = {"status_only": status_only} if call.verb in ("update", "patch") else {}
                done = 201 if call.verb == "create" else 200
                return done, getattr(cluster, call.verb)(call, body, **only)
            if call.verb == "get":
                found = cluster.find(call)
                only_metadata = "as=PartialObjectMetadata" in self.headers.get("Accept", "")
                return 200, {"metadata": found["metadata"]} if only_metadata else found
            return 200, cluster.list(call, query.get("labelSelector", ""), query.get("fieldSelector", ""))

        def reply(self, status: int, answer: Any) -> None:
            body = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "text/plain" if isinstance(answer, str) else "application/json")
            self.send_header("Content-Length", str(len(body)))
            if status == 429:
                self.send_header("Retry-After", str(cluster.retry_after))
            self.end_headers()
            self.wfile.write(body)

        def stream_events(self, call: Call, query: dict[str, str]) -> None:
            """Send what happened after a resourceVersion, as it happens, until `timeoutSeconds` are over."""
            seen = int(query.get("resourceVersion") or 0)
            deadline = time.monotonic() + float(query.get("timeoutSeconds", 30))
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.close_connection = True
            while not cluster.closing.is_set() and time.monotonic() < deadline:
                with cluster.lock:
                    if seen < cluster.oldest:
                        gone = status_of(410, "Expired", f"too old resource version: {seen}")
                        self.send_event("ERROR", gone)
                        break
                    news = [entry for entry in cluster.history if entry[0] > seen]
                    if not news:
                        cluster.changed.wait(min(0.1, max(0.0, deadline - time.monotonic())))
                for number, change, content, key in news:
                    seen = number
                    if key[0] == call.resource and call.namespace in ("", key[1]):
                        self.send_event(change, content)
            self.wfile.write(b"0\r\n\r\n")

        def send_event(self, change: str, content: Any) -> None:
            line = json.dumps({"type": change, "object": content}).encode() + b"\n"
            self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))

        def log_message(self, *_: object) -> None:
            pass

    return Handler


def refuse_if_told(cluster: SmallCluster, call: Call, fault: str | int | None) -> None:
    if isinstance(fault, int):
        raise Refused(fault, "Injected", f"call {len(cluster.calls)} fails on purpose")
    reviews_oneself = call.resource.startswith("selfsubjectaccessreviews.")  # everybody may
    rules = None if reviews_oneself else cluster.rules.get("")
    if (call.verb, call.resource) in cluster.denied or not allows(
        rules, call.verb, call.resource, "" if call.verb == "create" else call.name
    ):
        message = f'{call.resource} is forbidden: User "tester" cannot {call.verb} it'
        raise Refused(403, "Forbidden", message)


def allows(rules: Sequence[Mapping[str, Any]] | None, verb: str, resource: str, name: str) -> bool:
    """Whether rules of Roles allow a call; no rules at all bind nobody. A rule that names objects says
    nothing of a call without a name: of making one, of a list.

    Source: https://kubernetes.io/docs/reference/access-authn-authz/rbac/#referring-to-resources
    """
    return rules is None or any(
        verb in rule["verbs"]
        and resource
        in (known_as(group, plural) for group in rule["apiGroups"] for plural in rule["resources"])
        and (not rule.get("resourceNames") or name in rule["resourceNames"])
        for rule in rules
    )


def known_as(group: str, resource: str) -> str:
    """What a rule names, as a call does: `pods/log`, `leases.coordination.k8s.io`."""
    plural, slash, part = resource.partition("/")
    return ".".join(filter(None, (plural, group))) + slash + part


def log_of(cluster: SmallCluster, call: Call, query: dict[str, str]) -> str:
    container = query.get("container", "")
    if query.get("previous", "").lower() == "true":
        container += " (previous)"
    pod = cluster.find(call)["metadata"]["name"]
    if (pod, container) not in cluster.logs:
        raise Refused(400, "BadRequest", f'container "{container}" in pod "{pod}" is waiting to start')
    lines = cluster.logs[pod, container].splitlines(keepends=True)
    if query.get("timestamps") == "true":
        return timed(lines, query.get("sinceTime", ""))
    return "".join(lines[-int(query.get("tailLines", len(lines)) or 1) :])


def timed(lines: list[str], since: str) -> str:
    """Log lines with their times, three in a second and two of these at once, from a whole second on."""
    times = [f"2026-01-01T00:{n // 180:02d}:{n // 3 % 60:02d}.{n % 3 // 2:09d}Z" for n in range(len(lines))]
    second = since.partition(".")[0]
    return "".join(f"{time} {line}" for time, line in zip(times, lines, strict=True) if time >= second)


def status_of(code: int, reason: str, message: str) -> dict[str, Any]:
    kind = {"kind": "Status", "apiVersion": "v1", "status": "Failure"}
    return kind | {"code": code, "reason": reason, "message": message}
