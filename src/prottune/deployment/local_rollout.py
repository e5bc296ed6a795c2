"""A model that is replaced while it is asked: the new one comes up, is checked, takes over, the old one ends.

    with rolling(model, config, "1") as rollout:
        ... clients ask rollout.url ...
        rollout.replace(better_model, "2")

On this machine: both servers are children of this program, behind a switch (`switch.py`).
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Coroutine, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from prottune.deployment.contract import check_endpoint
from prottune.deployment.local import LocalDeployment
from prottune.deployment.settings import DeployConfig, DeployReport
from prottune.deployment.switch import Switch

DRAIN_SECONDS = 30.0
"""What a replaced server gets to answer the requests that it has."""

_Result = TypeVar("_Result")

_log = logging.getLogger(__name__)


@contextmanager
def rolling(model: Path, config: DeployConfig, model_version: str, port: int = 0) -> Iterator[Rollout]:
    """Serve a model at an address of this machine that can be given other models; nothing is left at the end.

    Raises: as `Rollout.replace` does.
    """
    with _event_loop() as loop:
        rollout = Rollout(config, loop, port)
        try:
            rollout.replace(model, model_version)
            yield rollout
        finally:
            rollout.close()


class Rollout:
    """One address, and the server that is behind it now; made by `rolling`."""

    def __init__(self, config: DeployConfig, loop: asyncio.AbstractEventLoop, port: int) -> None:
        self.url = ""
        self._config, self._loop, self._port = config, loop, port
        self._switch: Switch | None = None
        self._server = ExitStack()

    def replace(self, model: Path, model_version: str, config: DeployConfig | None = None) -> DeployReport:
        """Serve this model instead, once it has shown that it answers as it should; no request is lost.

        `config` says how it is checked; without one, as the first model was.

        Raises: DeploymentError if the new server does not come up or fails its contract test, ArtifactError
            if the folder is no model. The server that was there before then goes on as if nothing had been.
        """
        from prottune.model.golden import read_golden  # here: it imports the model's packages

        golden, config = read_golden(model), config or self._config
        with ExitStack() as new:
            endpoint = new.enter_context(LocalDeployment().endpoint(model, "", config, model_version))
            difference = check_endpoint(endpoint.url, golden, config, model_version)
            self._turn_to(endpoint.url)
            before, self._server = self._server, new.pop_all()
        before.close()
        return DeployReport(
            url=self.url,
            model_version=model_version,
            num_golden=len(golden),
            largest_difference=difference,
            seconds_to_ready=endpoint.seconds_to_ready,
            still_running=True,
        )

    def close(self) -> None:
        """Take no more connections, and end the server."""
        if self._switch is not None:
            self._run(self._switch.close())
        self._server.close()

    def _turn_to(self, url: str) -> None:
        if self._switch is None:
            self._switch = Switch(url)
            self.url = self._run(self._switch.start(self._port))
            return
        if unanswered := self._run(self._switch.turn_to(url, DRAIN_SECONDS)):
            _log.warning("%d requests were not answered within %g s", unanswered, DRAIN_SECONDS)

    def _run(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


@contextmanager
def _event_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop in a thread of its own; at the end what still runs in it is cancelled."""
    with asyncio.Runner() as runner:
        loop, ended = runner.get_loop(), asyncio.Event()
        thread = threading.Thread(target=runner.run, args=(ended.wait(),), name="switch", daemon=True)
        thread.start()
        try:
            yield loop
        finally:
            loop.call_soon_threadsafe(ended.set)
            thread.join()
