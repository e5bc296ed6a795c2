"""A small token service: gives temporary S3 keys for a web identity's token, or to a container, as AWS."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

NAMESPACE = "https://sts.amazonaws.com/doc/2011-06-15/"

ERROR = b"<ErrorResponse><Error><Code>InvalidIdentityToken</Code></Error></ErrorResponse>"


@dataclass
class Keys:
    """Temporary keys and when they expire."""

    access: str
    secret: str
    token: str
    expire: datetime


def numbered(number: int, seconds: int = 3600) -> Keys:
    """Keys that name which exchange they came of."""
    return Keys(
        f"access-{number}", "secret", f"session-{number}", datetime.now(UTC) + timedelta(seconds=seconds)
    )


@dataclass
class TokenService:
    """What it was asked, what it gives, and what it refuses."""

    give: Callable[[int], Keys] = numbered
    """The number of the exchange -> keys."""
    status: int = 200
    questions: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    """What proxies would log."""
    url: str = ""


def handler_of(service: TokenService) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            query = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
            service.paths.append(self.path)
            service.questions.append({name: values[0] for name, values in query.items()})
            body = answer(service.give(len(service.questions))) if service.status == 200 else ERROR
            self.send_response(service.status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:  # an agent beside the container, which asks for no token
            service.paths.append(self.path)
            keys = service.give(len(service.paths))
            said = {"AccessKeyId": keys.access, "SecretAccessKey": keys.secret, "Token": keys.token}
            body = json.dumps(said | {"Expiration": f"{keys.expire:%Y-%m-%dT%H:%M:%SZ}"}).encode()
            self.send_response(service.status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


def answer(keys: Keys) -> bytes:
    kind = "AssumeRoleWithWebIdentity"
    return (
        f'<{kind}Response xmlns="{NAMESPACE}"><{kind}Result><Credentials>'
        f"<AccessKeyId>{keys.access}</AccessKeyId><SecretAccessKey>{keys.secret}</SecretAccessKey>"
        f"<SessionToken>{keys.token}</SessionToken><Expiration>{keys.expire:%Y-%m-%dT%H:%M:%S}.123456789Z</Expiration>"
        f"</Credentials></{kind}Result></{kind}Response>"
    ).encode()


@contextmanager
def serving_tokens(service: TokenService) -> Iterator[TokenService]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(service))
    service.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield service
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
