"""A small S3 server in memory: a bucket behind HTTP that a test can look into, cut short or make fail."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit


@dataclass
class Store:
    """Buckets in memory behind HTTP: GET, PUT, DELETE and LIST as S3 answers them, for whoever signs how."""

    objects: dict[str, bytes] = field(default_factory=dict)
    puts: list[str] = field(default_factory=list)
    deletes: list[str] = field(default_factory=list)
    failures_left: int = 0
    """So many GETs are answered 503 before the next is served."""
    cut: int = 0
    """So many bytes are missing at the end of each body, though its length is announced."""
    refuse: dict[str, str] = field(default_factory=dict)
    """Method -> the code of the error 403 that such calls get: POST begins and ends an upload in parts."""
    parts: dict[str, dict[int, bytes]] = field(default_factory=dict)
    """Key -> number and content of the parts of an upload that has begun."""
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def handler_of(store: Store) -> type[BaseHTTPRequestHandler]:
    """A request handler that answers from one store."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            address = urlsplit(self.path)
            query, key = parse_qs(address.query), unquote(address.path).lstrip("/")
            if store.failures_left:
                store.failures_left -= 1
                self.answer(503, b"<Error><Code>SlowDown</Code></Error>")
            elif "list-type" in query:
                self.answer(200, listing(store, key.rstrip("/"), query.get("prefix", [""])[0]))
            elif key in store.objects:
                self.answer(200, store.objects[key])
            else:
                self.answer(404, b"<Error><Code>NoSuchKey</Code><Message>not here</Message></Error>")

        def do_PUT(self) -> None:
            address = urlsplit(self.path)
            key, query = unquote(address.path).lstrip("/"), parse_qs(address.query)
            content = self.rfile.read(int(self.headers["Content-Length"]))
            if self.refused():
                return
            if "partNumber" in query:
                store.parts[key][int(query["partNumber"][0])] = content
            else:
                store.objects[key] = content
                store.puts.append(key)
            self.answer(200, b"")

        def do_POST(self) -> None:
            key = unquote(urlsplit(self.path).path).lstrip("/")
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.refused():
                return
            if "uploadId=" not in self.path:
                store.parts[key] = {}
                self.answer(200, upload(key, "InitiateMultipartUploadResult"))
            else:
                store.objects[key] = b"".join(part for _, part in sorted(store.parts.pop(key).items()))
                self.answer(200, upload(key, "CompleteMultipartUploadResult"))

        def refused(self) -> bool:
            if code := store.refuse.get(self.command):
                self.answer(403, f"<Error><Code>{code}</Code><Message>refused</Message></Error>".encode())
            return bool(code)

        def do_DELETE(self) -> None:
            if self.refused():
                return
            key = unquote(urlsplit(self.path).path).lstrip("/")
            store.objects.pop(key, None)
            store.deletes.append(key)
            self.answer(204, b"")

        def answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Content-Type", "application/xml")
            self.send_header("ETag", '"0"')
            self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
            self.end_headers()
            self.wfile.write(body[: len(body) - store.cut])
            self.close_connection = bool(store.cut)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


def upload(key: str, kind: str) -> bytes:
    """The answer to the beginning or the end of an upload in parts."""
    bucket, _, name = key.partition("/")
    return (
        f'<{kind} xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Bucket>{bucket}</Bucket><Key>{name}</Key>'
        f"<UploadId>{name}</UploadId><Location>/{key}</Location><ETag>0</ETag></{kind}>"
    ).encode()


def listing(store: Store, bucket: str, prefix: str) -> bytes:
    """The answer to ListObjectsV2."""
    keys = [key.removeprefix(f"{bucket}/") for key in store.objects if key.startswith(f"{bucket}/{prefix}")]
    contents = "".join(
        f"<Contents><Key>{key}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><Size>1</Size>"
        "<ETag>0</ETag></Contents>"
        for key in sorted(keys)
    )
    return (
        f'<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>{bucket}</Name>'
        f"<IsTruncated>false</IsTruncated>{contents}</ListBucketResult>"
    ).encode()


@contextmanager
def serving(store: Store) -> Iterator[Store]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(store))
    store.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield store
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
