"""A small S3 server in memory: a bucket behind HTTP that a test can look into, cut short or make fail."""

from __future__ import annotations

import hashlib
import re
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
    num_cuts: int | None = None
    """So many bodies are cut; None: all."""
    parts_until_away: int | None = None
    """So many parts are taken before everything is answered 503; None: the store stays."""
    stumbles: int = 0
    """So many parts are answered 503 before the next is taken."""
    tidied_after: int | None = None
    """After so many parts the upload is gone, once."""
    spoiled_after: int | None = None
    """After so many parts somebody else writes the first one, once."""
    lost_ends: int = 0
    """So many uploads end well without an answer that says so."""
    hides_uploads: bool = False
    replaced_by: bytes | None = None
    """What the object is replaced by after the next answer that is cut."""
    ranges: list[str] = field(default_factory=list)
    """What was asked for of objects that were not asked for whole."""
    tokens: list[str] = field(default_factory=list)
    """The session token of each call."""
    access_keys: list[str] = field(default_factory=list)
    """The access key of each call."""
    refuse: dict[str, str] = field(default_factory=dict)
    """Method -> the code of the error 403 that such calls get: POST begins and ends an upload in parts."""
    parts: dict[str, dict[int, bytes]] = field(default_factory=dict)
    """Key -> number and content of the parts of an upload that has begun."""
    tags: dict[str, str] = field(default_factory=dict)
    """Key -> ETag of what was written in parts."""
    sent_parts: list[int] = field(default_factory=list)
    """Numbers of the parts that arrived, in this order."""
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
            query, key = parse_qs(address.query, keep_blank_values=True), unquote(address.path).lstrip("/")
            self.note()
            if self.refused():
                return
            if store.failures_left:
                store.failures_left -= 1
                self.away()
            elif self.is_away():
                self.away()
            elif "list-type" in query:
                self.answer(200, listing(store, key.rstrip("/"), query.get("prefix", [""])[0]))
            elif "uploads" in query and store.hides_uploads:
                self.answer(403, b"<Error><Code>AccessDenied</Code><Message>not for you</Message></Error>")
            elif "uploads" in query:
                self.answer(200, uploads(store, key.rstrip("/"), query.get("prefix", [""])[0]))
            elif "uploadId" in query:
                self.answer(200, parts_of(store.parts[key]))
            elif key not in store.objects:
                self.answer(404, b"<Error><Code>NoSuchKey</Code><Message>not here</Message></Error>")
            elif asked := self.headers.get("Range"):
                store.ranges.append(asked)
                content = store.objects[key]
                self.answer(206, content[int(asked.removeprefix("bytes=").rstrip("-")) :], tag(content))
            else:
                self.answer(200, store.objects[key], tag(store.objects[key]))

        def do_HEAD(self) -> None:
            key = unquote(urlsplit(self.path).path).lstrip("/")
            content = store.objects.get(key)
            self.send_response(404 if content is None else 200)
            self.send_header("Content-Length", str(len(content or b"")))
            self.send_header("ETag", store.tags.get(key, '"0"'))
            self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
            self.end_headers()

        def note(self) -> None:
            signed = re.search("Credential=([^/]+)/", self.headers.get("Authorization", ""))
            store.access_keys.append(signed[1] if signed else "")
            store.tokens.append(self.headers.get("X-Amz-Security-Token", ""))

        def is_away(self) -> bool:
            return store.parts_until_away is not None and store.parts_until_away <= 0

        def gone(self) -> None:
            self.answer(404, b"<Error><Code>NoSuchUpload</Code><Message>gone</Message></Error>")

        def away(self) -> None:
            self.answer(503, b"<Error><Code>SlowDown</Code></Error>")

        def do_PUT(self) -> None:
            address = urlsplit(self.path)
            key, query = unquote(address.path).lstrip("/"), parse_qs(address.query)
            content = self.rfile.read(int(self.headers["Content-Length"]))
            self.note()
            if self.refused():
                return
            if "partNumber" in query and key not in store.parts:
                self.gone()
            elif "partNumber" in query and (self.is_away() or store.stumbles):
                store.stumbles = max(store.stumbles - 1, 0)
                self.away()
            elif "partNumber" in query:
                number = int(query["partNumber"][0])
                store.parts[key][number] = content
                store.sent_parts.append(number)
                if store.parts_until_away is not None:
                    store.parts_until_away -= 1
                if store.tidied_after is not None and len(store.sent_parts) > store.tidied_after:
                    del store.parts[key]
                    store.tidied_after = None
                if len(store.sent_parts) == store.spoiled_after:
                    store.parts[key][1], store.spoiled_after = b"another's", None
                self.answer(200, b"", tag(content))
            else:
                store.objects[key] = content
                store.puts.append(key)
                self.answer(200, b"", tag(content))

        def do_POST(self) -> None:
            key = unquote(urlsplit(self.path).path).lstrip("/")
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
            self.note()
            if self.refused():
                return
            if "uploadId=" not in self.path:
                store.parts[key] = {}
                self.answer(200, upload(key, "InitiateMultipartUploadResult"))
            elif key not in store.parts:
                self.gone()
            elif re.findall("<ETag>(.*?)</ETag>", body) != [
                tag(part) for _, part in sorted(store.parts[key].items())
            ]:
                self.answer(400, b"<Error><Code>InvalidPart</Code><Message>others</Message></Error>")
            else:
                parts = [part for _, part in sorted(store.parts.pop(key).items())]
                store.objects[key], store.tags[key] = b"".join(parts), tag_of_parts(parts)
                if store.lost_ends:
                    store.lost_ends -= 1
                    self.away()
                else:
                    self.answer(200, upload(key, "CompleteMultipartUploadResult"))

        def refused(self) -> bool:
            if code := store.refuse.get(self.command):
                self.answer(403, f"<Error><Code>{code}</Code><Message>refused</Message></Error>".encode())
            return bool(code)

        def do_DELETE(self) -> None:
            if self.refused():
                return
            key = unquote(urlsplit(self.path).path).lstrip("/")
            if "uploadId=" in self.path:
                store.parts.pop(key, None)
            else:
                store.objects.pop(key, None)
                store.deletes.append(key)
            self.answer(204, b"")

        def answer(self, status: int, body: bytes, etag: str = '"0"') -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Content-Type", "application/xml")
            self.send_header("ETag", etag)
            self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
            self.end_headers()
            missing = store.cut if store.num_cuts is None or store.num_cuts > 0 else 0
            if missing and store.num_cuts:
                store.num_cuts -= 1
                if store.replaced_by is not None:
                    store.objects[unquote(urlsplit(self.path).path).lstrip("/")] = store.replaced_by
            self.wfile.write(body[: len(body) - missing])
            self.close_connection = bool(missing)

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


def tag(content: bytes) -> str:
    return f'"{hashlib.md5(content, usedforsecurity=False).hexdigest()}"'


def tag_of_parts(parts: list[bytes]) -> str:
    digests = [hashlib.md5(part, usedforsecurity=False).digest() for part in parts]
    return f'"{hashlib.md5(b"".join(digests), usedforsecurity=False).hexdigest()}-{len(parts)}"'


def uploads(store: Store, bucket: str, prefix: str) -> bytes:
    """The answer to ListMultipartUploads."""
    keys = [key.removeprefix(f"{bucket}/") for key in store.parts if key.startswith(f"{bucket}/{prefix}")]
    found = "".join(
        f"<Upload><Key>{key}</Key><UploadId>{key}</UploadId><Initiated>2026-01-01T00:00:00.000Z</Initiated></Upload>"
        for key in sorted(keys)
    )
    kind = "ListMultipartUploadsResult"
    return f"<{kind}><IsTruncated>false</IsTruncated>{found}</{kind}>".encode()


def parts_of(taken: dict[int, bytes]) -> bytes:
    """The answer to ListParts."""
    found = "".join(
        f"<Part><PartNumber>{number}</PartNumber><ETag>{tag(part)}</ETag><Size>{len(part)}</Size></Part>"
        for number, part in sorted(taken.items())
    )
    return f"<ListPartsResult><IsTruncated>false</IsTruncated>{found}</ListPartsResult>".encode()


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
