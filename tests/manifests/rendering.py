"""The overlays as a cluster would be given them: rendered from a copy with made-up keys."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from small_kustomize import built

from pipelines.manifests import OVERLAYS, kustomize_command, scratch_copy
from pipelines.manifests import rendered as rendered_by

__all__ = ["OVERLAYS", "needed_kustomize", "rendered"]


def rendered(overlay: str, scratch: Path) -> list[dict[str, Any]]:
    """All objects of an overlay: by kustomize where it is at hand, else by the small one."""
    if command := kustomize_command():
        return rendered_by(overlay, command, scratch)
    return built(scratch_copy(scratch) / "overlays" / overlay)


def needed_kustomize() -> list[str]:
    """The command of the real kustomize; without one the test that asks is not run here."""
    command = kustomize_command()
    if command is None:
        refuse = pytest.fail if "kustomize" in os.environ.get("PROTTUNE_REQUIRED_TIERS", "") else pytest.skip
        refuse("not run here: kustomize: neither kustomize nor a kubectl from 1.22 on is here")
    return command or []
