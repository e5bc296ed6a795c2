"""A cluster whose custom resources a real API server keeps; pods, leases and events are the small cluster's.

The small cluster stays the address that is asked: what it is told to refuse or to cut happens here as well,
and its controllers see and change custom resources as they see pods.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self

import pytest
from api_server import ApiServer, absent
from crd_schemas import FILES, schema_of
from small_cluster import Object, SmallCluster, serving
from small_cluster_http import Call, Refused

from pipelines import manifests

_KEPT = ("name", "labels", "annotations", "ownerReferences", "finalizers")
_JSON = {"Accept": "application/json", "Content-Type": "application/json"}


_REAL = pytest.param("real", marks=pytest.mark.integration)
KINDS = ("small",) if absent() else ("small", _REAL)
"""Parameters of a fixture that gives what `cluster_of` makes; test_custom_resources.py tells if there is no
real server."""

ONLY_SMALL = pytest.mark.parametrize("running", ["small"], indirect=True)
"""For a test that lets every fault meet every call: it takes minutes, and the faults are the small cluster's.
`running` is the fixture."""


@contextmanager
def cluster_of(request: pytest.FixtureRequest) -> Iterator[SmallCluster]:
    """A small cluster, or a half real one, as the parameter of a fixture says. Who calls has the Role of a
    run's account and no other rights."""
    (role,) = (each for each in manifests.objects("Role") if each["metadata"]["name"] == "prottune-run")
    rules = {"": role["rules"]}
    if request.param == "small":
        with serving(SmallCluster(rules=rules)) as cluster:
            yield cluster
        return
    with HalfRealCluster(request.getfixturevalue("api_server")) as cluster, serving(cluster):
        cluster.rules = rules
        yield cluster


class HalfRealCluster(SmallCluster):
    """One namespace, `lab`, of a real server beside everything of a small one."""

    def __init__(self, server: ApiServer) -> None:
        super().__init__()
        self._client = server.client()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()
        self._client.close()

    def clear(self) -> None:
        super().clear()
        for resource in FILES:
            for name in self.named(resource):
                self.change(resource, name, lambda found: found["metadata"].pop("finalizers", None))
                if name in self.named(resource):
                    self.remove(resource, name)

    def snapshot(self) -> Any:
        real = [(resource, self.get(resource, name)) for resource in FILES for name in self.named(resource)]
        return super().snapshot(), real

    def restore(self, taken: Any) -> None:
        """Objects of the real server are made anew, so their uid and generation are others."""
        of_small, real = taken
        super().restore(of_small)
        for resource, content in real:
            kept = {name: content["metadata"][name] for name in _KEPT if name in content["metadata"]}
            self.put(resource, content | {"metadata": kept})

    # What a test or a controller may see and do.

    def get(self, resource: str, name: str, namespace: str = "lab") -> Object:
        if resource not in FILES:
            return super().get(resource, name, namespace)
        try:
            return self._ask("GET", _path(resource, namespace, name))
        except Refused as refused:
            if refused.code == 404:
                raise KeyError(resource, namespace, name) from refused
            raise

    def named(self, resource: str, namespace: str = "lab") -> list[str]:
        if resource not in FILES:
            return super().named(resource, namespace)
        found = self._ask("GET", _path(resource, namespace))["items"]
        return sorted(item["metadata"]["name"] for item in found)

    def put(self, resource: str, content: Object, namespace: str = "lab") -> Object:
        if resource not in FILES:
            return super().put(resource, content, namespace)
        schema = schema_of(resource)
        whole = {"apiVersion": schema.version, "kind": schema.kind} | content
        made = self._ask("POST", _path(resource, namespace), whole)
        return self._with_status(resource, namespace, made, content)

    def change(self, resource: str, name: str, edit: Callable[[Object], Any], namespace: str = "lab") -> None:
        if resource not in FILES:
            super().change(resource, name, edit, namespace)
            return
        content = self.get(resource, name, namespace)
        edit(content)
        written = self._ask("PUT", _path(resource, namespace, name), content)
        self._with_status(resource, namespace, written, content)

    def _with_status(self, resource: str, namespace: str, written: Object, content: Object) -> Object:
        """Write the status, which has a path of its own."""
        if written.get("status") == content.get("status"):
            return written
        path = _path(resource, namespace, f"{written['metadata']['name']}/status")
        return self._ask("PUT", path, written | {"status": content["status"]})

    def remove(self, resource: str, name: str, namespace: str = "lab") -> None:
        if resource not in FILES:
            super().remove(resource, name, namespace)
        else:
            self._ask("DELETE", _path(resource, namespace, name))

    # What a request may do; called by the handler with the lock held.

    def create(self, call: Call, sent: Object) -> Object:
        return self._written("POST", call, sent) if call.resource in FILES else super().create(call, sent)

    def update(self, call: Call, sent: Object, *, status_only: bool = False) -> Object:
        if call.resource not in FILES:
            return super().update(call, sent, status_only=status_only)
        return self._written("PUT", call, sent, part="/status" if status_only else "")

    def delete(self, call: Call, options: Object) -> Object:
        if call.resource not in FILES:
            return super().delete(call, options)
        written = self._ask("DELETE", _path(call.resource, call.namespace, call.name), options)
        self.after_write(call, written)
        return written

    def list(self, call: Call, labels: str, fields: str) -> Object:
        if call.resource not in FILES:
            return super().list(call, labels, fields)
        query = {"labelSelector": labels, "fieldSelector": fields}
        return self._ask("GET", _path(call.resource, call.namespace), query=query)

    def _written(self, method: str, call: Call, sent: Object, part: str = "") -> Object:
        before = sent["metadata"].get("resourceVersion")
        self.admit(call, sent)
        query = {"fieldValidation": "Strict"} if call.strict else {}
        path = _path(call.resource, call.namespace, call.name + part)
        written = self._ask(method, path, sent, query)
        if written["metadata"]["resourceVersion"] != before:
            self.after_write(call, written)
        return written

    def _ask(
        self, method: str, path: str, body: Object | None = None, query: Mapping[str, str] | None = None
    ) -> Object:
        reply = self._client.request(method, path, json=body, params=query or {}, headers=_JSON)
        answer: Object = reply.json()
        if reply.is_error:
            raise Refused(reply.status_code, answer.get("reason", ""), answer.get("message", ""))
        return answer


def _path(resource: str, namespace: str, name: str = "") -> str:
    plural, _, _ = resource.partition(".")
    return f"/apis/{schema_of(resource).version}/namespaces/{namespace}/{plural}/{name}".rstrip("/")
