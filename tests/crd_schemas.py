"""The schemas of KServe's and Kubeflow Trainer's custom resources, strict: an unknown field is refused.

They are test data that is handed out beside the repository (`../shared/crds`, or CUSTOM_RESOURCES), never
part of it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml

Object = dict[str, Any]
FILES = {
    "inferenceservices.serving.kserve.io": "serving.kserve.io_inferenceservices.yaml",
    "servingruntimes.serving.kserve.io": "serving.kserve.io_servingruntimes.yaml",
    "trainjobs.trainer.kubeflow.org": "trainer.kubeflow.org_trainjobs.yaml",
    "trainingruntimes.trainer.kubeflow.org": "trainer.kubeflow.org_trainingruntimes.yaml",
}


class Schema:
    """What the objects of one custom resource must look like."""

    def __init__(self, definition: dict[str, Any]) -> None:
        (version,) = [entry for entry in definition["spec"]["versions"] if entry["storage"]]
        self.version = f"{definition['spec']['group']}/{version['name']}"
        self.kind = definition["spec"]["names"]["kind"]
        self.has_status = "status" in (version.get("subresources") or {})
        """Whether status is written by a path of its own, and by no other."""
        self._schema = version["schema"]["openAPIV3Schema"]
        self._validator = jsonschema_rs.validator_for(strict(self._schema))

    def errors(self, content: dict[str, Any]) -> list[str]:
        """What is wrong, one line each: where, and what was expected."""
        found = [
            f"{'.'.join(map(str, error.instance_path)) or 'object'}: {error.message}"
            for error in self._validator.iter_errors(content)
        ]
        if (content.get("apiVersion"), content.get("kind")) != (self.version, self.kind):
            found.append(f"apiVersion and kind: expected {self.version} {self.kind}")
        return sorted(found)

    def admitted(
        self, sent: Object, before: Object | None, refusal: type[Exception], *, strictly: bool
    ) -> Object:
        """What the API server keeps of an object that is sent: without unknown fields, with defaults.

        Refuses 400 for an unknown field if that is asked for (`strictly`); 422 for another kind, for a wrong
        value, for two entries of a list with one key, and for what must stay as it was before.
        """
        content = deepcopy(sent)
        fields = self._schema["properties"] | {"metadata": {"x-kubernetes-preserve-unknown-fields": True}}
        dropped = _prune(self._schema | {"properties": fields}, content, "")
        if dropped and strictly:
            told = ", ".join(f'unknown field "{path[1:]}"' for path in sorted(dropped))
            what = f'{self.kind} in version "{self.version.partition("/")[2]}"'
            message = f"{what} cannot be handled as a {self.kind}: strict decoding error: {told}"
            raise refusal(400, "BadRequest", message)
        _fill_in(self._schema, content)
        wrong = self.errors(content) + list(_wrong(self._schema, content, before, ""))
        if wrong:
            raise refusal(422, "Invalid", f"{self.kind} is invalid: {', '.join(wrong)}"[:1000])
        return content


def _prune(schema: Object, content: Any, path: str) -> list[str]:
    """Take out what a schema does not know; returns where that was."""
    dropped = []
    if isinstance(content, list):
        for index, entry in enumerate(content):
            dropped += _prune(schema.get("items", {}), entry, f"{path}[{index}]")
    if isinstance(content, dict):
        known, others = schema.get("properties", {}), schema.get("additionalProperties")
        for name in list(content):
            if name in known or isinstance(others, dict):
                dropped += _prune(known.get(name, others), content[name], f"{path}.{name}")
            elif not others and not schema.get("x-kubernetes-preserve-unknown-fields"):
                del content[name]
                dropped.append(f"{path}.{name}")
    return dropped


def _fill_in(schema: Object, content: Any) -> None:
    """Put defaults where nothing is said."""
    if isinstance(content, list):
        for entry in content:
            _fill_in(schema.get("items", {}), entry)
    if isinstance(content, dict):
        known, others = schema.get("properties", {}), schema.get("additionalProperties")
        for name, inner in known.items():
            if name not in content and "default" in inner:
                content[name] = deepcopy(inner["default"])
        for name, value in content.items():
            if isinstance(inner := known.get(name, others), dict):
                _fill_in(inner, value)


def _wrong(schema: Object, content: Any, before: Any, path: str) -> Iterator[str]:
    """Values that no type tells to be wrong: a key twice in a list, a change of what may not be changed.

    Of the rules in CEL only that one is known here.
    """
    rules = [rule["rule"] for rule in schema.get("x-kubernetes-validations", [])]
    if before is not None and content != before and "self == oldSelf" in rules:
        yield f"{path}: Invalid value: field is immutable"
    if isinstance(content, list):
        names = schema.get("x-kubernetes-list-map-keys")
        keys = [tuple(entry.get(name) for name in names) for entry in content] if names else []
        if len(set(keys)) < len(keys):
            yield f"{path}: Duplicate value"
        for index, entry in enumerate(content):
            yield from _wrong(schema.get("items", {}), entry, None, f"{path}[{index}]")
    if isinstance(content, dict):
        old = before if isinstance(before, dict) else {}
        for name, inner in schema.get("properties", {}).items():
            if name in content:
                yield from _wrong(inner, content[name], old.get(name), f"{path}.{name}")


def schema_of(resource: str) -> Schema:
    """The strict schema of a custom resource; the test is skipped where the files are not."""
    return _schema(folder_of_schemas() / FILES[resource])


def definition_of(resource: str) -> dict[str, Any]:
    """The definition of a custom resource, as it is applied to a cluster."""
    return _read(folder_of_schemas() / FILES[resource])


def folder_of_schemas() -> Path:
    """Where the definitions of custom resources lie; the test is skipped where they do not."""
    named = os.environ.get("CUSTOM_RESOURCES")
    folder = Path(named) if named else Path(__file__).resolve().parents[2] / "shared/crds"
    if not folder.is_dir():
        pytest.skip(f"not run here: no schemas of custom resources in {folder}; name it: CUSTOM_RESOURCES")
    return folder


@cache
def _schema(path: Path) -> Schema:
    return Schema(_read(path))


@cache
def _read(path: Path) -> Any:
    return yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)


def strict(node: Any) -> Any:
    """The same schema with unknown fields refused, where Kubernetes itself would not keep them."""
    if isinstance(node, list):
        return [strict(entry) for entry in node]
    if not isinstance(node, dict):
        return node
    result = {name: strict(value) for name, value in node.items() if name != "properties"}
    if "properties" in node:
        result["properties"] = {name: strict(value) for name, value in node["properties"].items()}
        if not node.get("x-kubernetes-preserve-unknown-fields"):
            result["additionalProperties"] = False
    return result
