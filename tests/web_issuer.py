"""An issuer of web identities for tests, as a cluster is for its pods: it signs tokens and shows its key."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

AUDIENCE = "prottune"


class Issuer:
    """Signs tokens; a store that is told of it fetches the certificate and believes them."""

    def __init__(self, folder: Path) -> None:
        self._key, certificate = folder / "issuer.key", folder / "issuer.crt"
        made = ["-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=issuer"]
        said = ["-keyout", self._key, "-out", certificate]
        subprocess.run(["openssl", "req", "-x509", *made, *said], check=True, capture_output=True)
        pem = certificate.read_text().split("-----")[2]
        self._certificate = "".join(pem.split())
        self.url = ""

    @property
    def thumbprint(self) -> str:
        return hashlib.sha1(base64.b64decode(self._certificate), usedforsecurity=False).hexdigest().upper()

    @property
    def host(self) -> str:
        return self.url.removeprefix("http://")

    def token(self, seconds: int = 3600) -> str:
        """A token for a pod of the account that trains; it expires in so many seconds, or has."""
        now = int(time.time())
        claims = {
            "iss": self.url,
            "sub": "system:serviceaccount:prottune:prottune-run",
            "aud": AUDIENCE,
            "iat": now - 100,
            "exp": now + seconds,
        }
        said = b".".join(map(_encoded, ({"alg": "RS256", "typ": "JWT", "kid": "1"}, claims)))
        signing = ["openssl", "dgst", "-sha256", "-sign", self._key]
        signature = subprocess.run(signing, input=said, check=True, capture_output=True).stdout
        return b".".join([said, base64.urlsafe_b64encode(signature).rstrip(b"=")]).decode()

    def answer(self, path: str) -> object:
        """What a store asks: where the keys are, and the keys."""
        if path.endswith("/openid-configuration"):
            return {"issuer": self.url, "jwks_uri": f"{self.url}/keys"}
        key = {"kty": "RSA", "use": "sig", "alg": "RS256", "kid": "1", "x5c": [self._certificate]}
        return {"keys": [key]}


def _encoded(part: dict[str, object]) -> bytes:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=")


@contextmanager
def issuing(folder: Path) -> Iterator[Issuer]:
    issuer = Issuer(folder)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(issuer.answer(self.path)).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    issuer.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield issuer
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
