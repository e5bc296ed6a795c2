"""The least that an HTTP server can do, to find how much the client of a load test can ask at most.

`python -m benchmarks.small_server` answers every request at once with the same few bytes.
"""

from __future__ import annotations

import asyncio
import os
import sys

_ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-type: application/json\r\n\r\n{}"


class Answering(asyncio.Protocol):
    """Reads a head and a body of the length that it states; answers."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._received = b""

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        if end:
            _, found, rest = head.partition(b"content-length: ")
            if len(body) >= (int(rest.split(b"\r\n", 1)[0]) if found else 0):
                self._received = b""
                self._transport.write(_ANSWER)


async def main() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Answering, "127.0.0.1", 0)
    print(f"listening on http://127.0.0.1:{server.sockets[0].getsockname()[1]}", file=sys.stderr, flush=True)
    await loop.run_in_executor(None, os.read, sys.stdin.fileno(), 1)  # our starter's end


if __name__ == "__main__":
    asyncio.run(main())
