"""The load that benchmarks of serving put on a server, and that all sides of them answer the same."""

import asyncio
import json

import pytest

from benchmarks.http_client import ask_locations, local_address
from benchmarks.load import closed_loop, open_loop


async def small_server(answer):
    """An HTTP server on a free port that answers each request with what `answer(body)` says."""

    async def serve(reader, writer):
        while head := await reader.readuntil(b"\r\n\r\n") if not reader.at_eof() else b"":
            length = int(dict(_fields(head)).get(b"content-length", 0))
            status, body, extra = answer(await reader.readexactly(length))
            if not status:
                break
            reply = f"HTTP/1.1 {status} X\r\n{extra}Content-Length: {len(body)}\r\n\r\n".encode() + body
            for start in range(0, len(reply), 7):  # in pieces: the client must put them together
                writer.write(reply[start : start + 7])
                await writer.drain()
            if "close" in extra:
                break
        writer.close()

    async def forgiving(reader, writer):
        try:
            await serve(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(forgiving, "127.0.0.1", 0)
    return server, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def _fields(head):
    for line in head.lower().split(b"\r\n")[1:]:
        name, _, value = line.partition(b": ")
        yield name, value


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org:80",
        "http://10.0.0.1:8080",
        "https://127.0.0.1:8080",
        "http://127.0.0.1",
        "http://127.0.0.1.example.org:80",
    ],
)
def test_load_is_put_on_servers_of_this_machine_only(url):
    with pytest.raises(ValueError, match="expected an address of this machine"):
        local_address(url)


def test_addresses_of_this_machine_are_taken():
    urls = ("http://127.0.0.1:80", "http://localhost:81", "http://[::1]:82/")
    assert [local_address(url) for url in urls] == [("127.0.0.1", 80), ("127.0.0.1", 81), ("::1", 82)]


def test_a_closed_loop_asks_each_request_once_and_counts_every_status():
    asked = []

    def answer(body):
        sequence = json.loads(body)["instances"][0]
        asked.append(sequence)
        return (429 if sequence == "MKK" else 200), sequence.encode(), ""

    async def run():
        server, url = await small_server(answer)
        replies = {}
        async with server:
            proteins = ["MKA", "MKK", "MKT", "MKV", "MKL"]
            requests = [ask_locations([protein]) for protein in proteins]
            outcome = await closed_loop(
                url, requests, 2, lambda number, reply: replies.update({number: reply})
            )
        assert [replies[number].body.decode() for number in range(5)] == proteins
        assert sorted(asked) == sorted(proteins)
        assert outcome.statuses == {"200": 4, "429": 1}
        assert len(outcome.waits) == outcome.num_good == 4
        assert 0 < outcome.percentile(50) <= outcome.percentile(99) <= outcome.seconds

    asyncio.run(run())


def test_an_open_loop_keeps_its_rate_and_opens_a_new_connection_after_one_that_was_closed():
    async def run():
        server, url = await small_server(lambda _: (200, b"{}", "Connection: close\r\n"))
        async with server:
            outcome = await open_loop(url, [ask_locations(["MK"])], rate=200, num_requests=20)
        assert outcome.statuses == {"200": 20}
        assert outcome.seconds >= 19 / 200

    asyncio.run(run())


def test_a_request_that_nobody_answers_counts_by_its_error():
    async def run():
        server, url = await small_server(lambda _: (0, b"", ""))
        async with server:
            cut_off = await open_loop(url, [ask_locations(["MK"])], rate=100, num_requests=2)
        refused = await open_loop(url, [ask_locations(["MK"])], rate=100, num_requests=3)
        assert cut_off.statuses == {"ConnectionResetError": 2}
        assert refused.statuses == {"ConnectionRefusedError": 3}
        assert refused.goodput() == 0

    asyncio.run(run())
