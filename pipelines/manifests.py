"""What `manifests/` gives a cluster: read as it is written, and rendered as kubectl would apply it."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from pipelines.checks.finding import NotCheckedError
from prottune.errors import ConfigError

Document = dict[str, Any]

FOLDER = Path(__file__).resolve().parents[1] / "manifests"
OVERLAYS = ("local", "gpu", "multi-user", "example")
_OLDEST_KUBECTL = (1, 22)
_RENDER_SECONDS = 60


@cache
def base() -> tuple[Document, tuple[Document, ...]]:
    """The base's kustomization, and the objects that it lists.

    Raises: NotCheckedError if this is no checkout of prottune.
    """
    import yaml

    folder = FOLDER / "base"
    try:
        kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text(encoding="utf-8"))
        texts = [(folder / name).read_text(encoding="utf-8") for name in kustomization["resources"]]
    except OSError as error:
        raise NotCheckedError(f"{error.filename}: not there, so this is no checkout") from error
    return kustomization, tuple(each for text in texts for each in yaml.safe_load_all(text) if each)


def objects(kind: str) -> list[Document]:
    """The base's objects of one kind."""
    return [each for each in base()[1] if each["kind"] == kind]


def generated(kind: str) -> dict[str, dict[str, str]]:
    """Names of what the base generates (`configMap` or `secret`), each with its settings, where they are
    written down; those of a secret are not."""
    return {
        entry["name"]: dict(line.split("=", 1) for line in entry.get("literals", []))
        for entry in base()[0][f"{kind}Generator"]
    }


def images_in(value: object) -> Iterator[str]:
    """Every image that an object names, wherever in it: also where no scanner knows that a pod is meant."""
    if isinstance(value, dict):
        for name, inner in value.items():
            if name == "image" and isinstance(inner, str):
                yield inner
            else:
                yield from images_in(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from images_in(inner)


def roles_of_runs() -> list[Document]:
    """The Roles of the pipeline's steps: the first holds prottune's own calls, the others what Kubeflow
    Pipelines calls in the steps' name."""
    return objects("Role")


def account_of_runs() -> str:
    """The service account of the pipeline's steps: the one that has the Roles."""
    roles = {each["metadata"]["name"] for each in roles_of_runs()}
    bindings = [each for each in objects("RoleBinding") if each["roleRef"]["name"] in roles]
    (account,) = {subject["name"] for each in bindings for subject in each["subjects"]}
    return str(account)


def pipeline_root() -> str:
    """The s3:// prefix below which Kubeflow Pipelines keeps the artifacts of runs."""
    (launcher,) = (each for each in objects("ConfigMap") if "defaultPipelineRoot" in each["data"])
    return str(launcher["data"]["defaultPipelineRoot"])


def kustomize_command() -> list[str] | None:
    """The program that renders, or None: kubectl from 1.22 on brings one that knows `patches`."""
    if shutil.which("kustomize"):
        return ["kustomize", "build"]
    if shutil.which("kubectl"):
        said = subprocess.run(["kubectl", "version", "--client"], capture_output=True, text=True, check=False)
        found = re.search(r"v(\d+)\.(\d+)", said.stdout + said.stderr)
        if found and tuple(map(int, found.groups())) >= _OLDEST_KUBECTL:
            return ["kubectl", "kustomize"]
    return None


def rendered(overlay: str, command: list[str], scratch: Path) -> list[Document]:
    """All objects of an overlay, in the order that kustomize prints; made-up keys stand for the real ones.

    Raises: ConfigError with kustomize's words if it fails or warns.
    """
    import yaml

    said = subprocess.run(
        [*command, str(scratch_copy(scratch) / "overlays" / overlay)],
        capture_output=True,
        text=True,
        check=False,
        timeout=_RENDER_SECONDS,
    )
    if said.returncode or said.stderr:
        raise ConfigError(f"manifests/overlays/{overlay}: {' '.join(said.stderr.split())[:500]}")
    return [document for document in yaml.load_all(said.stdout, yaml.CSafeLoader) if document]


def scratch_copy(scratch: Path) -> Path:
    """A copy of `manifests/` in a scratch folder, in which made-up keys stand for the real ones."""
    copy = scratch / "manifests"
    if not copy.exists():
        shutil.copytree(FOLDER, copy, ignore=shutil.ignore_patterns("*.env"))
        for example in (FOLDER / "base").glob("*.example.env"):
            shutil.copy(example, copy / "base" / example.name.replace(".example", ""))
    return copy
