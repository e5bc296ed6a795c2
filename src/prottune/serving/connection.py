"""One connection: how late and how large the head of a request may be, how slowly an answer may be read.

An ASGI application sees a request once its head is whole, so a client that sends half a head and waits must
be met one floor below, in uvicorn's protocol class. This leans on names inside uvicorn that it does not
promise: the lock file holds its version, and tests/serving/test_connection.py fails where an upgrade changes
them.
"""

from __future__ import annotations

import asyncio
import json
from http import HTTPStatus
from typing import ClassVar

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from prottune.serving.exchange import LINGER_SECONDS, MAX_HEAD_BYTES, SECURITY_HEADERS
from prottune.serving.http_metrics import count_refusal
from prottune.serving.settings import ServeConfig


def connections_within(config: ServeConfig) -> type[asyncio.Protocol]:
    """Make the class of uvicorn's connections that keeps to these settings."""
    return type("LimitedConnection", (Connection,), {"limits": config})


class Connection(HttpToolsProtocol):
    """Closes what is slow, too large, too many or not HTTP, with an answer where one can still be sent."""

    limits: ClassVar[ServeConfig]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as in uvicorn
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=0)  # so that we are told when an answer is not taken at once
        self._has_begun = self._in_head = self._in_body = self._is_refused = False
        self._head_bytes = 0
        self._head_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        if len(self.connections) > self.limits.max_connections:
            self._refuse(503, "connections", "too many connections; ask again", b"retry-after: 1\r\n")
            transport.close()
        else:
            self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._head_is_whole()
        self.resume_writing()

    def data_received(self, data: bytes) -> None:
        """As uvicorn's own, which warns of bad requests in the log and answers some without their body."""
        self._unset_keepalive_if_required()
        goes_on, self._got_on = self._in_head or self._in_body, False
        try:
            rest = data
            while rest:
                rest = self._fed(rest)
        except httptools.HttpParserError:
            self._refuse(400, "not_http", "the bytes that came are no HTTP/1.1 request")
        if goes_on and not self._got_on:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                where = "head" if self._in_head else "trailers"
                self._refuse(431, "head_size", f"{where}: expected at most {MAX_HEAD_BYTES} bytes")
        is_idle = not self._is_answering() and self.timeout_keep_alive_task is None
        if self._head_timer is None and (self._in_head or is_idle):
            self._expect_head()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._has_begun = self._in_head = True
        self._gets_on()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Of the head. Headers behind a chunked body (trailers) are nobody's, and uvicorn would keep them."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade():
            return  # data_received asks again
        self._head_is_whole()
        self._in_body = True
        self._gets_on()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._gets_on()
        super().on_body(body)

    def on_message_complete(self) -> None:
        if not self.parser.should_upgrade():
            self._in_body = False
            self._gets_on()
            super().on_message_complete()

    def shutdown(self) -> None:
        """At the end of the server a head that has begun is waited for, within its deadline, and whoever has
        just connected is given a moment to begin."""
        if not self._has_begun:
            self.loop.call_later(LINGER_SECONDS, self._close_unless_begun)
        elif not self._in_head:
            super().shutdown()

    def _close_unless_begun(self) -> None:
        if not self._has_begun:
            self.transport.close()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._write_timer is None:
            self._write_timer = self.loop.call_later(self.limits.body_seconds, self._give_up_writing)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def _gets_on(self) -> None:
        """A part of the request is whole; what comes from here on is counted anew, until the next one is."""
        self._got_on = True
        self._head_bytes = 0

    def _fed(self, data: bytes) -> bytes:
        """Let the parser read; returns what it shall read next."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            return self._without_upgrade(data[upgrade.args[0] :])
        return b""

    def _without_upgrade(self, rest: bytes) -> bytes:
        """A server may pass over the wish for another protocol, as Java's client sends it with every first
        request, but the parser then leaves out the body. So it is asked again, without the wish."""
        headers = [header for header in self.headers if header[0] != b"upgrade"]
        if len(headers) == len(self.headers):  # CONNECT
            self._refuse(400, "not_http", "this is no proxy")
            return b""
        head = b"%s %s HTTP/1.1\r\n" % (self.parser.get_method(), self.url)
        self.parser = httptools.HttpRequestParser(self)
        return head + b"".join(b"%s: %s\r\n" % header for header in headers) + b"\r\n" + rest

    def _give_up_writing(self) -> None:
        count_refusal("answer_time")
        self.transport.abort()

    def _expect_head(self) -> None:
        self._head_timer = self.loop.call_later(self.limits.head_seconds, self._head_is_late)

    def _head_is_whole(self) -> None:
        self._in_head = False
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_is_late(self) -> None:
        if self._is_answering():  # the head of a next request, sent ahead: the answer under way comes first
            self._expect_head()
        elif self._in_head:
            self._refuse(408, "head_time", f"head: expected all of it within {self.limits.head_seconds:g} s")
        if not self._is_answering():
            self.transport.close()

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _refuse(self, status: int, reason: str, words: str, headers: bytes = b"") -> None:
        """Say why, read no more, and close; an answer that is under way is sent first, and is the last."""
        if self._is_refused:
            return
        self._is_refused = True
        count_refusal(reason)
        self.flow.pause_reading()
        if self._is_answering() and (self.cycle.response_started or not self.cycle.more_body):
            self.cycle.keep_alive = False
            return
        body = json.dumps({"error": words}).encode()
        lines = [b"HTTP/1.1 %d %s" % (status, HTTPStatus(status).phrase.encode())]
        lines += [b"%s: %s" % header for header in SECURITY_HEADERS]
        lines += [b"content-type: application/json", b"content-length: %d" % len(body), b"connection: close"]
        self.transport.write(b"\r\n".join(lines) + b"\r\n" + headers + b"\r\n" + body)
        self.transport.write_eof()
        self.loop.call_later(LINGER_SECONDS, self.transport.close)
