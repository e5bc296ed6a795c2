"""One program at one address: the guarded routes behind uvicorn, on a socket that is bound already.

KServe's own `RESTServer` binds 0.0.0.0 whatever it is told, so uvicorn is given its socket here. gRPC, if
it is asked for, begins and ends with it.

How it ends, so that a rolling update loses no request. At TERM the model turns unready, but everything is
still answered, new connections included: a cluster tells its proxies at the same moment as it tells us, and
until they have heard they go on sending here. Every answer now says `connection: close`, which moves clients
with open connections to another server, one answer at a time. After `settle_seconds` nothing new is accepted,
idle connections are closed, and what was begun is answered, as long as `drain_seconds` allow. INT comes from
a person at a terminal, so nothing settles then. A second TERM or INT ends the program at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import resource
import signal
import socket
import threading
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import uvicorn

from prottune.errors import ConfigError
from prottune.serving.connection import connections_within
from prottune.serving.guard import Guard, read_token
from prottune.serving.logs import ANNOUNCEMENT, set_up_logging
from prottune.serving.predictor import LocationPredictor
from prottune.serving.routes import application
from prottune.serving.settings import ServeConfig

if TYPE_CHECKING:
    import grpc

# Longer than the minute after which usual load balancers drop an idle connection: whoever drops it first
# should be the one who sends, or a request crosses with our closing.
_KEEP_ALIVE_SECONDS = 75
_FILES_BESIDE_CONNECTIONS = 128
_LAST_SECONDS = 3.0

_log = logging.getLogger(__name__)


def serve(model: Path, config: ServeConfig, model_version: str = "") -> None:
    """Answer requests with a finished model folder until INT or TERM; then finish what was begun and return.

    Raises: ConfigError if the address, the token or as many connections cannot be had; ArtifactError if the
        folder is damaged or does not reproduce its golden answers.
    """
    set_up_logging()
    read_token(config)  # before the model, which takes longer
    _allow_connections(config)
    with bound_socket(config) as listener:
        run(LocationPredictor.from_folder(model, config, model_version), config, listener)


def run(model: LocationPredictor, config: ServeConfig, listener: socket.socket) -> None:
    """Answer requests with a loaded model until INT or TERM."""
    server = _Server(Guard(application(model, config), config), model, config)
    # uvicorn listens for signals only once it runs; a TERM before that must not be lost.
    signal.signal(signal.SIGTERM, server.handle_exit)
    server.run(sockets=[listener])


class _Server(uvicorn.Server):
    """Says where it listens once it does, and ends as this module's docstring says."""

    def __init__(self, guard: Guard, model: LocationPredictor, config: ServeConfig) -> None:
        super().__init__(
            uvicorn.Config(
                guard,
                http=connections_within(config),
                ws="none",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=_KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=config.drain_seconds - config.settle_seconds,
            )
        )
        self._guard, self._drain_seconds = guard, config.drain_seconds
        self._model, self._config = model, config
        self._grpc: grpc.aio.Server | None = None
        self._settle_seconds = config.settle_seconds

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, then say so; programs that start the server wait for that line."""
        if self._config.grpc:
            from prottune.serving.grpc_server import start_grpc

            self._grpc = await start_grpc(self._model, self._config)
        await super().startup(sockets)
        for listener in sockets or []:
            host, port = listener.getsockname()[:2]
            _log.info(f"{ANNOUNCEMENT}http://%s:%d", f"[{host}]" if ":" in host else host, port)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to end; asked again, end at once."""
        if self.should_exit:
            signal.signal(sig, signal.SIG_DFL)
            os.kill(os.getpid(), sig)
        if sig == signal.SIGINT:
            self._settle_seconds = 0
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Settle, stop accepting, finish what was begun."""
        end = threading.Timer(self._drain_seconds + _LAST_SECONDS, _end)
        end.daemon = True
        end.start()
        self._guard.draining = self._model.is_ending = True
        _log.info("ending: %d s for those who send to hear of it", self._settle_seconds)
        await asyncio.sleep(self._settle_seconds)
        await self._stop_accepting(sockets or [])
        left = self._drain_seconds - self._config.settle_seconds
        others = [self._grpc.stop(left)] if self._grpc else []
        await asyncio.gather(super().shutdown(sockets), *others)
        await self._model.close()

    async def _stop_accepting(self, listeners: list[socket.socket]) -> None:
        """Take in those who wait at the door while it closes, whom the system would reset."""
        waiting = []
        for listener in listeners:
            listener.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    waiting.append(listener.accept()[0])
        for server in self.servers:
            server.close()
        take = functools.partial(  # as uvicorn's own startup makes them
            connections_within(self._config),
            config=self.config,  # type: ignore[call-arg] # of the class inside
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )
        for connection in waiting:
            await asyncio.get_running_loop().connect_accepted_socket(take, connection)


def _end() -> None:
    """The model's thread cannot be stopped: a batch that outlasts the drain is not waited for."""
    _log.error("the last batch outlasted the drain")
    os._exit(1)


def _allow_connections(config: ServeConfig) -> None:
    """Raises: ConfigError if the system does not let us open as many sockets as the settings want."""
    needed = config.max_connections + _FILES_BESIDE_CONNECTIONS
    allowed, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allowed == resource.RLIM_INFINITY or allowed >= needed:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, most))
    except (ValueError, OSError) as error:  # more than `most`, or than a kernel allows that calls it endless
        raise ConfigError(
            f"max_connections={config.max_connections}: expected {needed} open files, the system allows "
            f"{most if most != resource.RLIM_INFINITY else allowed}; choose fewer connections or raise "
            "`ulimit -n`"
        ) from error


def bound_socket(config: ServeConfig) -> socket.socket:
    """A socket that owns its port already and refuses connections until the model is loaded."""
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((config.host, config.port))
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"cannot listen on {config.host}:{config.port}: {error.strerror}; choose another host or port"
        ) from error
    return listener
