"""The load that benchmarks of serving put on a server, and that all sides of them answer the same."""

import asyncio
import json

import numpy as np
import pytest

from benchmarks import serve, serving_latency
from benchmarks.http_client import ask_locations, local_address
from benchmarks.load import Outcome, closed_loop, open_loop
from benchmarks.timing import Samples


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


def test_the_load_test_refuses_other_machines_in_one_line(capsys):
    assert serve.main(["--url", "http://192.0.2.7:8080"]) == 2
    assert capsys.readouterr().err.startswith("benchmarks.serve: http://192.0.2.7:8080: expected an address")


def test_a_load_without_bounds_is_refused():
    for rate, number in ((1e6, 10), (0, 10), (50, 10**9)):
        with pytest.raises(ValueError, match="expected at most"):
            asyncio.run(open_loop("http://127.0.0.1:1", [b""], rate, number))


def test_what_is_told_of_a_load_counts_only_answers_in_time_as_good():
    outcome = Outcome(seconds=2.0)
    for status, wait in (("200", 0.1), ("200", 0.3), ("200", 5.0), ("503", 0.0), ("ConnectionResetError", 0)):
        outcome.count(status, wait)
    assert serve.told(outcome, within=1.0) == [
        "5 requests in 2.0 s; by status 200: 3, 503: 1, ConnectionResetError: 1",
        "answers with 200: p50 300.0 ms, p99 4906.0 ms, longest 5000.0 ms",
        "goodput 1.0 answers a second within 1 s",
    ]


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A model folder as the benchmarks make it, but small."""
    from benchmarks.served import Sizes, write_served_model

    sizes = Sizes(num_layers=1, num_positions=1024, width=64, num_heads=2, feed_forward=96)
    return write_served_model(tmp_path_factory.mktemp("served") / "model", sizes)


def test_the_stock_way_answers_as_we_do_and_proteins_differ(served):
    from benchmarks.stock_model import StockModel
    from prottune.model.inference import Predictor

    proteins = ["MKTAYIAKQRQISFVKSHFSRQ", "M", "WWWWWCCCCC" * 12 + "MKVLAAGIV", "uzob" + "AG" * 20]
    ours = np.stack([answer.probabilities for answer in Predictor.load(served, "fp32").predict(proteins)])
    stock = StockModel(served)
    assert np.abs(ours - stock.probabilities(proteins)).max() < 1e-4  # it rounds to four digits
    assert np.abs(ours - np.vstack([stock.probabilities([protein]) for protein in proteins])).max() < 1e-4
    assert ours.std(axis=0).max() > 1e-3  # ten times what they may differ by


def test_latency_is_judged_at_each_length_and_other_engines_over_all():
    ways = {"ours": 0.02, "bf16 matrix products": 0.01, "stock fp32": 0.1, "ONNX": 0.08, "OpenVINO": 0.01}
    samples = {length: {name: Samples((value,)) for name, value in ways.items()} for length in (64, 128)}
    samples[64]["ONNX"] = Samples((0.005,))
    facts = {"seconds": {"64": {"ours": {"p99": 0.03}}}}
    limit, stock = serving_latency._at_length(64, samples[64], facts)
    assert (limit.ours, limit.limit, limit.ratio, limit.met) == (20.0, 10.0, 2.0, False)
    assert (stock.peer, stock.ratio, stock.met, stock.note) == (100.0, 5.0, True, "p99 30 ms")
    planned = serving_latency.PLANNED[-1]
    chosen = {"side": "ours", "limit": "bf16 matrix products"}
    engines = serving_latency._over_all(planned, samples, facts, peers=("ONNX", "OpenVINO"), **chosen)
    assert engines.ratio == pytest.approx((0.25 * 0.5) ** 0.5)
    assert engines.note == "64: 0.25 ONNX, 128: 0.50 OpenVINO"
    absent = serving_latency._over_all(planned, samples, {"engines": "not run: none"}, peers=(), **chosen)
    assert (absent.met, absent.note) == (None, "not run: none")


def test_the_no_op_model_answers_in_the_form_of_a_real_one():
    from benchmarks.no_op_server import NoOp

    (answer,) = NoOp().predict(["MKT"])
    assert answer.probabilities.sum() == pytest.approx(1)
    assert (answer.num_residues, len(answer.probabilities)) == (3, 10)
    assert answer.location == NoOp.labels[0]


def test_a_damaged_copy_of_a_model_is_told_from_the_model(served, tmp_path):
    from benchmarks.rollout import damaged_copy
    from prottune.artifacts import read_manifest
    from prottune.errors import ArtifactError

    read_manifest(served, "train")
    with pytest.raises(ArtifactError, match=r"model\.safetensors"):
        read_manifest(damaged_copy(served, tmp_path / "damaged"), "train")
