"""The schemas of KServe's and Kubeflow Trainer's custom resources, strict: an unknown field is refused.

They are test data that is handed out beside the repository (`../shared/crds`, or CUSTOM_RESOURCES), never
part of it.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml

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
        self._validator = jsonschema_rs.validator_for(strict(version["schema"]["openAPIV3Schema"]))

    def errors(self, content: dict[str, Any]) -> list[str]:
        """What is wrong, one line each: where, and what was expected."""
        found = [
            f"{'.'.join(map(str, error.instance_path)) or 'object'}: {error.message}"
            for error in self._validator.iter_errors(content)
        ]
        if (content.get("apiVersion"), content.get("kind")) != (self.version, self.kind):
            found.append(f"apiVersion and kind: expected {self.version} {self.kind}")
        return sorted(found)

    def check(self, content: dict[str, Any], refusal: type[Exception]) -> None:
        """Refuse as the API server does: 400 for a field it does not know, 422 for a wrong value."""
        if lines := self.errors(content):
            unknown = any("unexpected" in line for line in lines)
            reason = "BadRequest" if unknown else "Invalid"
            raise refusal(400 if unknown else 422, reason, "; ".join(lines)[:1000])


def schema_of(resource: str) -> Schema:
    """The strict schema of a custom resource; the test is skipped where the files are not."""
    return _read(folder_of_schemas() / FILES[resource])


def folder_of_schemas() -> Path:
    """Where the definitions of custom resources lie; the test is skipped where they do not."""
    named = os.environ.get("CUSTOM_RESOURCES")
    folder = Path(named) if named else Path(__file__).resolve().parents[2] / "shared/crds"
    if not folder.is_dir():
        pytest.skip(f"not run here: no schemas of custom resources in {folder}; name it: CUSTOM_RESOURCES")
    return folder


@cache
def _read(path: Path) -> Schema:
    return Schema(yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader))


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
