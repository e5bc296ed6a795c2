"""Which kinds of objects an API server serves, and which fields it keeps of them.

An API server drops fields that a custom resource's schema does not know, mostly without a word. So what
prottune writes is held to the schema that is really served, before anything is written.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from prottune.cluster.connection import Cluster, MissingError
from prottune.cluster.objects import Object, Resource


def is_served(cluster: Cluster, resource: Resource) -> bool:
    """Whether the API server knows a kind of objects, in the version that prottune writes."""
    try:
        listed = cluster.read(f"/apis/{resource.group}/{resource.version}")
    except MissingError:
        return False
    return any(entry["name"] == resource.plural for entry in listed["resources"])


def schema_of(cluster: Cluster, resource: Resource) -> Object:
    """The schema of a kind as the API server publishes it (OpenAPI v3); empty if it publishes none.

    Everybody who is let in may read it; the definition of a custom resource only who may see all namespaces.
    """
    try:
        document = cluster.read(f"/openapi/v3/apis/{resource.group}/{resource.version}")
    except MissingError:
        return {}
    if not document:  # what it does not publish it answers with 200 and nothing
        return {}
    schemas: dict[str, Object] = document.get("components", {}).get("schemas", {})
    for schema in schemas.values():
        kinds = schema.get("x-kubernetes-group-version-kind", [])
        if any(entry.get("kind") == resource.kind for entry in kinds):
            return schema
    return {}


def fields_of(schema: Object, path: str) -> set[str]:
    """Names of the fields that a schema knows below a path, as `spec`."""
    for name in path.split("."):
        schema = schema.get("properties", {}).get(name, {})
    return set(schema.get("properties", {}))


def unknown_fields(schema: Object, content: Object, part: str = "spec") -> list[str]:
    """Paths below one part of an object that a schema does not know, sorted: they would be dropped."""
    return sorted(set(_unknown(schema.get("properties", {}).get(part, {}), content[part], part)))


def _unknown(schema: Object, content: Any, path: str) -> Iterator[str]:
    if "$ref" in schema or schema.get("x-kubernetes-preserve-unknown-fields"):
        return
    if isinstance(content, list):
        for entry in content:
            yield from _unknown(schema.get("items", {}), entry, path)
    if not isinstance(content, dict):
        return
    known, others = schema.get("properties", {}), schema.get("additionalProperties")
    for name, value in content.items():
        if name in known:
            yield from _unknown(known[name], value, f"{path}.{name}")
        elif not others:
            yield f"{path}.{name}"
        elif isinstance(others, dict):
            yield from _unknown(others, value, f"{path}.{name}")
