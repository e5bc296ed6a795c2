"""What deployment needs of a place where models are served; `local.py` and `kserve.py` are such places."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import httpx

from prottune.deployment.settings import DeployConfig

READY_PATH = "/v2/models/prottune/ready"


@dataclass(frozen=True)
class Endpoint:
    """A server that is ready."""

    url: str
    seconds_to_ready: float
    still_running: bool
    """Whether it goes on after the check."""


class Deployment(Protocol):
    """A place where models are served."""

    def endpoint(
        self, folder: Path, model_uri: str, config: DeployConfig, model_version: str
    ) -> AbstractContextManager[Endpoint]:
        """Serve the model in `folder`, which `model_uri` names for machines elsewhere, and wait until it is
        ready."""


def is_answering(client: httpx.Client, url: str) -> bool:
    """Whether the endpoint says that its model is ready."""
    try:
        return client.get(url + READY_PATH).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False
