"""One program at one address: the routes behind uvicorn, on a socket that is bound already.

KServe's own `RESTServer` binds 0.0.0.0 whatever it is told, so uvicorn is given its socket here. There is no
gRPC.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import socket
import warnings
from pathlib import Path

import uvicorn

from prottune.errors import ConfigError
from prottune.serving.predictor import LocationPredictor
from prottune.serving.routes import application
from prottune.serving.settings import ServeConfig

_GRACE_SECONDS = 30

_log = logging.getLogger(__name__)


def serve(model: Path, config: ServeConfig, model_version: str = "") -> None:
    """Answer requests with a finished model folder until INT or TERM; then finish what was begun and return.

    Raises: ConfigError if the address cannot be had; ArtifactError if the folder is damaged or does not
        reproduce its golden answers.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    warnings.filterwarnings("ignore", "ORJSONResponse is deprecated")  # KServe's endpoints still use it
    with _bound_socket(config) as listener:
        app = application(LocationPredictor.from_folder(model, config, model_version))
        server = _AnnouncedServer(
            uvicorn.Config(
                app, log_config=None, timeout_graceful_shutdown=_GRACE_SECONDS, server_header=False
            )
        )
        # uvicorn drains at TERM and raises it once more: that must not kill us; before, it must not be lost.
        signal.signal(signal.SIGTERM, lambda *_: setattr(server, "should_exit", True))
        with contextlib.suppress(KeyboardInterrupt):
            server.run(sockets=[listener])


class _AnnouncedServer(uvicorn.Server):
    """Says where it listens once it does; programs that start it wait for that line."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for listener in sockets or []:
            host, port = listener.getsockname()[:2]
            _log.info("listening on http://%s:%d", f"[{host}]" if ":" in host else host, port)


def _bound_socket(config: ServeConfig) -> socket.socket:
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
