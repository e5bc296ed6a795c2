"""A small MLflow server in memory: it answers one call, to those host names only that it is told."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Server:
    """Whom it lets in, and whom it has seen."""

    allowed_hosts: set[str] = field(default_factory=set)
    """Beside its own address."""
    status: int = 200
    """With what it answers those it lets in."""
    hosts: list[str] = field(default_factory=list)
    port: int = 0

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.host}"


@contextmanager
def running(server: Server) -> Iterator[Server]:
    """Serve on a free port of this machine."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            host = self.headers["Host"]
            server.hosts.append(host)
            status, said = server.status, b"{}" if server.status == 200 else b"the database is away"
            if self.path != "/api/2.0/mlflow/experiments/search":
                status, said = 404, b"no such route"
            if host not in {server.host, *server.allowed_hosts}:
                status, said = 403, b"Invalid Host header - possible DNS rebinding attack detected"
            self.send_response(status)
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, *_: object) -> None:
            pass

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.port = listener.server_address[1]
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        listener.shutdown()
        listener.server_close()
        thread.join()
