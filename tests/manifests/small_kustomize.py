"""kustomize as far as manifests/ uses it, for machines that have none; what it does not know it refuses.

Where kustomize is at hand, a test holds this to it, object for object.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml
from small_cluster import merged

Document = dict[str, Any]
_CLUSTER_WIDE = ("Namespace",)


def built(folder: Path) -> list[Document]:
    """All objects of a kustomization."""
    content = yaml.safe_load((folder / "kustomization.yaml").read_text())
    if strange := set(content) - {"apiVersion", "kind", "generatorOptions", "resources", *_STEPS}:
        raise AssertionError(f"{folder}: {sorted(strange)} is not known here")
    documents: list[Document] = []
    for name in content.get("resources", []):
        if (folder / name).is_dir():
            documents += built(folder / name)
        else:
            documents += [each for each in yaml.safe_load_all((folder / name).read_text()) if each]
    for step, do in _STEPS.items():
        if step in content:
            documents = do(documents, content[step], folder)
    return documents


def _config_maps(documents: list[Document], entries: Any, folder: Path) -> list[Document]:
    for entry in entries:
        data = dict(line.split("=", 1) for line in entry["literals"])
        metadata = {"name": entry["name"]}
        documents.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})
    return documents


def _secrets(documents: list[Document], entries: Any, folder: Path) -> list[Document]:
    for entry in entries:
        texts = [(folder / name).read_text() for name in entry["envs"]]
        lines = [line for text in texts for line in text.splitlines() if not line.startswith("#")]
        data = {
            key: base64.b64encode(value.encode()).decode()
            for key, value in (line.split("=", 1) for line in lines)
        }
        metadata = {"name": entry["name"]} | entry.get("options", {})
        secret = {"apiVersion": "v1", "kind": "Secret", "type": "Opaque"}
        documents.append(secret | {"metadata": metadata, "data": data})
    return documents


def _patches(documents: list[Document], entries: Any, folder: Path) -> list[Document]:
    for entry in entries:
        patch, target = yaml.safe_load(entry["patch"].strip()), entry.get("target")  # kustomize strips it
        if target:
            (index,) = [at for at, each in enumerate(documents) if _is_meant(each, target)]
            for change in patch:
                _apply(documents[index], change)
            continue
        (index,) = [at for at, each in enumerate(documents) if _key(each) == _key(patch)]
        if patch.pop("$patch", "") == "delete":
            del documents[index]
        else:
            documents[index] = merged(documents[index], patch)
    return documents


def _is_meant(document: Document, target: Document) -> bool:
    group = document["apiVersion"].rpartition("/")[0]
    found = {"group": group, "kind": document["kind"], "name": document["metadata"]["name"]}
    return target.items() <= found.items()


def _key(document: Document) -> tuple[str, str, str]:
    return document["apiVersion"], document["kind"], document["metadata"]["name"]


def _apply(document: Document, change: Document) -> None:
    """One change of a JSON patch (RFC 6902): add or replace."""
    *path, last = change["path"].strip("/").split("/")
    place: Any = document
    for name in path:
        place = place[int(name) if isinstance(place, list) else name]
    assert change["op"] == "add" or last in place, f"{change['path']}: nothing to replace"
    place[last] = change["value"]


def _namespace(documents: list[Document], name: str, folder: Path) -> list[Document]:
    accounts = {each["metadata"]["name"] for each in documents if each["kind"] == "ServiceAccount"}
    for document in documents:
        if document["kind"] in _CLUSTER_WIDE:
            document["metadata"]["name"] = name
        else:
            document["metadata"]["namespace"] = name
        for subject in document.get("subjects", []):
            if subject["kind"] == "ServiceAccount" and subject["name"] in accounts:
                subject["namespace"] = name
    return documents


def _labels(documents: list[Document], entries: Any, folder: Path) -> list[Document]:
    for entry in entries:
        assert set(entry) == {"pairs"}
        for document in documents:
            document["metadata"]["labels"] = document["metadata"].get("labels", {}) | entry["pairs"]
    return documents


def _images(documents: list[Document], entries: Any, folder: Path) -> list[Document]:
    named = {entry["name"]: entry for entry in entries}

    def walk(value: Any) -> None:
        if isinstance(value, list):
            for inner in value:
                walk(inner)
        elif isinstance(value, dict):
            for container in value.get("containers") or []:
                name, _, tag = container["image"].partition(":")
                if name in named:
                    tag = named[name].get("newTag", tag)
                    container["image"] = named[name].get("newName", name) + (f":{tag}" if tag else "")
            for inner in value.values():
                walk(inner)

    documents = deepcopy(documents)
    walk(documents)
    return documents


_STEPS: dict[str, Callable[[list[Document], Any, Path], list[Document]]] = {
    "configMapGenerator": _config_maps,
    "secretGenerator": _secrets,
    "patches": _patches,
    "namespace": _namespace,
    "labels": _labels,
    "images": _images,
}
"""Field of a kustomization -> what it does, in the order in which kustomize does it."""
