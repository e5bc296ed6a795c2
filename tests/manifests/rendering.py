"""The overlays as a cluster would be given them: rendered by kustomize from a copy with made-up keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipelines.manifests import OVERLAYS, kustomize_command
from pipelines.manifests import rendered as rendered_by

__all__ = ["OVERLAYS", "kustomize_command", "rendered"]


def rendered(overlay: str, scratch: Path) -> list[dict[str, Any]]:
    """All objects of an overlay, in the order that kustomize prints."""
    command = kustomize_command()
    assert command, "neither kustomize nor kubectl is here"
    return rendered_by(overlay, command, scratch)
