"""A small Kubernetes API server in memory: objects behind HTTP that a test can look into, script, make fail.

It keeps what decides whether a client is right: resourceVersion and its conflicts, generation, uid and
preconditions, finalizers, merge patches, the status subresource, watches that expire, pod logs, access
reviews, and the schemas of custom resources with unknown fields refused. There is no controller: a test
plays it in `after_write`.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

from crd_schemas import Schema
from small_cluster_http import Call, Refused, allows, handler_of

Object = dict[str, Any]
Edit = Callable[[Object], None]
Key = tuple[str, str, str]
"""Resource (plural, with its group: `leases.coordination.k8s.io`, or `pods`), namespace, name."""


_FIXED = ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds")
"""Metadata that nobody can change by sending something else."""


@dataclass
class SmallCluster:
    """What the API server knows; all of it may be read and set by a test while it serves."""

    objects: dict[Key, Object] = field(default_factory=dict)
    logs: dict[tuple[str, str], str] = field(default_factory=dict)
    """Pod, container -> its log; a container named `NAME (previous)` is the one before the last restart."""
    schemas: Mapping[str, Schema] = field(default_factory=dict)
    """Resource -> what its objects must look like; a resource without one takes anything."""
    admit: Callable[[Call, Object], None] = lambda call, sent: None
    """A mutating webhook: may change what is about to be written, or raise `Refused`."""
    after_write: Callable[[Call, Object], None] = lambda call, written: None
    """A controller: sees each write that changed something, after it, and may write status, pods, events."""
    denied: set[tuple[str, str]] = field(default_factory=set)
    """(verb, resource) that the caller may not."""
    denied_to: dict[str, set[tuple[str, str]]] = field(default_factory=dict)
    """User -> the same for others, which the caller may ask about."""
    rules: dict[str, list[Object]] = field(default_factory=dict)
    """User (empty: the caller) -> the rules of all Roles that they have, and nothing else is allowed; who is
    not here may do whatever is not denied."""
    pages: dict[str, Any] = field(default_factory=dict)
    """Path -> what the server says there, where that is no object: `/version`, `/apis/GROUP/VERSION`."""
    faults: dict[int, str | int] = field(default_factory=dict)
    """Number of a call, the first being 1 -> what goes wrong with it: an HTTP status; `timeout` (no answer),
    `cut` (the connection ends before anything happened) or `lost` (it ends after the call took effect)."""
    down: bool = False
    """Every call is cut."""
    retry_after: int = 1
    """Seconds that an answer 429 asks for."""
    calls: list[Call] = field(default_factory=list)
    port: int = 0
    lock: threading.RLock = field(default_factory=threading.RLock)
    closing: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.changed = threading.Condition(self.lock)
        self.history: list[tuple[int, str, Object, Key]] = []
        self.oldest = 0
        self._numbers: Counter[str] = Counter()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def writes(self) -> list[Call]:
        return [call for call in self.calls if call.writes]

    def kubeconfig(self, path: Path, namespace: str = "lab") -> Path:
        """A file that kubectl and the Python client find this server by."""
        context = {"cluster": "small", "user": "tester", "namespace": namespace}
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "small",
            "clusters": [{"name": "small", "cluster": {"server": self.url}}],
            "users": [{"name": "tester", "user": {"token": "test"}}],
            "contexts": [{"name": "small", "context": context}],
        }
        path.write_text(json.dumps(content))
        return path

    def get(self, resource: str, name: str, namespace: str = "lab") -> Object:
        """A copy of an object, for a test to look at."""
        with self.lock:
            return deepcopy(self.objects[resource, namespace, name])

    def named(self, resource: str, namespace: str = "lab") -> list[str]:
        with self.lock:
            return sorted(key[2] for key in self.objects if key[:2] == (resource, namespace))

    def put(self, resource: str, content: Object, namespace: str = "lab") -> Object:
        """Write an object as a controller would: no conflict, no schema, status included."""
        with self.lock:
            key = (resource, namespace, content["metadata"]["name"])
            return self._store(key, deepcopy(content), keep_status=False)

    def change(
        self, resource: str, name: str, edit: Callable[[Object], None], namespace: str = "lab"
    ) -> None:
        """Edit an object in place as a controller would."""
        with self.lock:
            content = self.get(resource, name, namespace)
            edit(content)
            self._store((resource, namespace, name), content, keep_status=False)

    def remove(self, resource: str, name: str, namespace: str = "lab") -> None:
        with self.lock:
            key = (resource, namespace, name)
            self._record("DELETED", key, self.objects.pop(key))

    def clear(self) -> None:
        """Forget all objects, calls, and what was to go wrong; address, schemas and controller stay."""
        fresh = SmallCluster()
        for name in ("objects", "logs", "faults", "calls", "denied", "admit", "down"):
            setattr(self, name, getattr(fresh, name))

    def snapshot(self) -> Any:
        """All objects, for `restore`."""
        return deepcopy(self.objects)

    def restore(self, taken: Any) -> None:
        """Leave the objects of a snapshot and nothing else."""
        self.clear()
        self.objects = deepcopy(taken)

    def expire(self) -> None:
        """Forget the past: a watch from an older resourceVersion is answered 410."""
        with self.lock:
            self.history.clear()
            self.oldest = self._numbers["version"]

    # What a request may do; called by the handler with the lock held.

    def create(self, call: Call, sent: Object) -> Object:
        metadata = sent.setdefault("metadata", {})
        if "generateName" in metadata and not metadata.get("name"):
            self._numbers["name"] += 1
            metadata["name"] = f"{metadata['generateName']}{self._numbers['name']:05d}"
        if not metadata.get("name"):
            raise Refused(422, "Invalid", "metadata.name: Required value: name or generateName is required")
        if metadata.get("namespace", call.namespace) != call.namespace:
            message = "the namespace of the provided object does not match the namespace sent on the request"
            raise Refused(400, "BadRequest", message)
        key = (call.resource, call.namespace, metadata["name"])
        if self._has_status(call.resource):
            sent.pop("status", None)
        return self._write(call, key, sent)

    def _has_status(self, resource: str) -> bool:
        """Whether status has a path of its own; so it is with what nothing is known of."""
        return resource not in self.schemas or self.schemas[resource].has_status

    def update(self, call: Call, sent: Object, *, status_only: bool = False) -> Object:
        if status_only and not self._has_status(call.resource):
            raise Refused(404, "NotFound", "the server could not find the requested resource")
        found, sent_metadata = self.find(call), sent.get("metadata", {})
        version = sent_metadata.get("resourceVersion")
        if version is None and call.resource in self.schemas:
            message = "metadata.resourceVersion: Invalid value: must be specified for an update"
            raise Refused(422, "Invalid", message)
        if version not in (None, found["metadata"]["resourceVersion"]):
            message = "the object has been modified; please apply your changes to the latest version"
            raise Refused(409, "Conflict", f'Operation cannot be fulfilled on "{call.name}": {message}')
        if status_only:
            sent = found | {"status": sent.get("status", {})}
        return self._write(
            call, (call.resource, call.namespace, call.name), sent, keep_status=not status_only
        )

    def patch(self, call: Call, sent: Object, *, status_only: bool = False) -> Object:
        return self.update(call, merged(self.find(call), sent), status_only=status_only)

    def delete(self, call: Call, options: Object) -> Object:
        found, conditions = self.find(call), options.get("preconditions", {})
        for name, wanted in conditions.items():
            if found["metadata"][name] != wanted:
                message = f"Precondition failed: {name} is {found['metadata'][name]}, not {wanted}"
                raise Refused(409, "Conflict", message)
        if found["metadata"].get("finalizers"):
            if "deletionTimestamp" not in found["metadata"]:
                found["metadata"] |= {"deletionTimestamp": now(), "deletionGracePeriodSeconds": 0}
            return self._store((call.resource, call.namespace, call.name), found)
        self.remove(call.resource, call.name, call.namespace)
        self.after_write(call, found)
        return {"kind": "Status", "apiVersion": "v1", "status": "Success"}

    def find(self, call: Call) -> Object:
        resource = call.resource.split("/")[0]
        try:
            return self.get(resource, call.name, call.namespace)
        except KeyError:
            raise Refused(404, "NotFound", f'{resource} "{call.name}" not found') from None

    def list(self, call: Call, labels: str, fields: str) -> Object:
        items = [
            deepcopy(content)
            for (resource, namespace, _), content in sorted(self.objects.items())
            if resource == call.resource and call.namespace in ("", namespace)
            if selects(labels, content["metadata"].get("labels", {}).get)
            if selects(fields, lambda path, content=content: at(content, path))
        ]
        return {
            "kind": "List",
            "metadata": {"resourceVersion": str(self._numbers["version"])},
            "items": items,
        }

    def review(self, sent: Object, denied: set[tuple[str, str]] | None = None) -> Object:
        """Answer an access review; without `denied`, of the caller."""
        denied = self.denied if denied is None else denied
        asked = sent["spec"]["resourceAttributes"]
        resource = ".".join(part for part in (asked["resource"], asked.get("group", "")) if part)
        resource += f"/{asked['subresource']}" if asked.get("subresource") else ""
        rules = self.rules.get(sent["spec"].get("user", ""))
        allowed = allows(rules, asked["verb"], resource, asked.get("name", ""))
        return sent | {"status": {"allowed": allowed and (asked["verb"], resource) not in denied}}

    def _write(self, call: Call, key: Key, sent: Object, *, keep_status: bool = True) -> Object:
        sent = deepcopy(sent)
        self.admit(call, sent)
        before = self.objects.get(key)
        if key[0] in self.schemas:
            sent = self.schemas[key[0]].admitted(sent, before, Refused, strictly=call.strict)
        if before is not None and call.verb == "create":
            raise Refused(409, "AlreadyExists", f'{call.resource} "{key[2]}" already exists')
        written = self._store(key, sent, keep_status=keep_status)
        if self.objects.get(key) != before:
            self.after_write(call, written)
        return written

    def _store(self, key: Key, content: Object, *, keep_status: bool = True) -> Object:
        """Keep an object under a new resourceVersion; one that is as it was keeps the old."""
        before = self.objects.get(key)
        old = before["metadata"] if before else {}
        fixed = {name: old[name] for name in _FIXED if name in old}
        first = {"namespace": key[1], "uid": f"uid-{self._numbers['uid']}", "creationTimestamp": now()}
        self._numbers["uid"] += before is None
        metadata = first | content["metadata"] | fixed
        if before and keep_status and "status" in before:
            content["status"] = before["status"]
        is_same = before is not None and self._wish(key, before) == self._wish(key, content)
        is_same = is_same and ("deletionTimestamp" in old) == ("deletionTimestamp" in metadata)
        metadata["generation"] = old["generation"] if is_same else old.get("generation", 0) + 1
        metadata["resourceVersion"] = old.get("resourceVersion", "0")
        content["metadata"] = {name: value for name, value in metadata.items() if value not in ({}, [])}
        if content == before:
            return deepcopy(content)
        if metadata.get("deletionTimestamp") and not metadata.get("finalizers"):
            self._record("DELETED", key, self.objects.pop(key))
            return deepcopy(content)
        self.objects[key] = content
        self._record("MODIFIED" if before else "ADDED", key, content)
        return deepcopy(content)

    def _wish(self, key: Key, content: Object) -> Object:
        """What the generation counts the changes of."""
        others = ("apiVersion", "kind", "metadata", *(["status"] if self._has_status(key[0]) else []))
        return {name: value for name, value in content.items() if name not in others}

    def _record(self, change: str, key: Key, content: Object) -> None:
        self._numbers["version"] += 1
        content["metadata"]["resourceVersion"] = str(self._numbers["version"])
        self.history.append((self._numbers["version"], change, deepcopy(content), key))
        self.changed.notify_all()


def merged(target: Any, patch: Any) -> Any:
    """JSON merge patch (RFC 7386)."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), value)
    return result


def selects(selector: str, value_of: Callable[[str], Any]) -> bool:
    """Whether `a=b,c!=d` holds, over labels or fields."""
    for term in filter(None, selector.split(",")):
        name, _, wanted = term.replace("!=", "=").replace("==", "=").partition("=")
        if (value_of(name) == wanted) == ("!=" in term):
            return False
    return True


def at(content: Any, path: str) -> Any:
    for name in path.split("."):
        content = content.get(name, {}) if isinstance(content, dict) else {}
    return content


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@contextmanager
def serving(cluster: SmallCluster) -> Iterator[SmallCluster]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(cluster))
    server.daemon_threads = True
    cluster.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield cluster
    finally:
        cluster.closing.set()
        with cluster.lock:
            cluster.changed.notify_all()
        server.shutdown()
        server.server_close()
        thread.join()
