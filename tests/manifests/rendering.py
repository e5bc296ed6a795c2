"""The overlays as a cluster would be given them: rendered by kustomize from a copy with made-up keys."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import yaml

MANIFESTS = Path(__file__).parents[2] / "manifests"
OVERLAYS = ("local", "gpu", "multi-user")
_OLDEST_KUBECTL = (1, 22)


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


def rendered(overlay: str, scratch: Path) -> list[dict[str, Any]]:
    """All objects of an overlay, in the order that kustomize prints."""
    command = kustomize_command()
    assert command, "neither kustomize nor kubectl is here"
    copy = scratch / "manifests"
    if not copy.exists():
        shutil.copytree(MANIFESTS, copy)
        for example in (copy / "base").glob("*.example.env"):
            shutil.copy(example, example.with_name(example.name.replace(".example", "")))
    said = subprocess.run(
        [*command, str(copy / "overlays" / overlay)], capture_output=True, text=True, check=False
    )
    assert said.returncode == 0, said.stderr
    assert not said.stderr, said.stderr
    return [document for document in yaml.safe_load_all(said.stdout) if document]
