"""The guard around a small application, in this process; sockets are met in test_connection.py."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from letters import LettersPredictor
from prometheus_client import REGISTRY
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Message, Scope

from prottune.errors import ConfigError
from prottune.serving.exchange import WITHOUT_TOKEN
from prottune.serving.guard import Guard
from prottune.serving.logs import note, set_up_logging
from prottune.serving.predictor import LocationPredictor
from prottune.serving.routes import application
from prottune.serving.settings import ServeConfig

PREDICT = "/v1/models/prottune:predict"
PREDICT_ROUTE = "/v1/models/{model_name}:predict"
LIMIT = ServeConfig(max_body_megabytes=1).max_body_bytes


@pytest.fixture(autouse=True)
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test waits for a caller to read why it was refused."""
    monkeypatch.setattr("prottune.serving.exchange.LINGER_SECONDS", 0.02)


class House:
    """Answers how many bytes it was sent; can be told to wait, and remembers who gave up waiting."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.open.set()
        self.num_waiting = self.num_cancelled = 0
        self.app = Starlette(
            routes=[
                Route(PREDICT_ROUTE, self.predict, methods=["POST"]),
                Route("/v1/models/{model_name}", lambda _: JSONResponse({"ready": True})),
                Route("/v2/health/live", lambda _: JSONResponse({"live": True})),
                Route("/metrics", lambda _: Response("")),
                Route("/", lambda _: Response("", headers={"content-security-policy": "mine"})),
                Route("/broken", self.broken),
            ]
        )

    async def predict(self, request: Request) -> Response:
        body = await request.body()
        note(num_sequences=3)
        self.num_waiting += 1
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.num_cancelled += 1
            raise
        finally:
            self.num_waiting -= 1
        return JSONResponse({"num_bytes": len(body)})

    async def broken(self, _: Request) -> Response:
        raise RuntimeError("cannot read MKTAYIAKQR of P12345")

    async def fills(self, num_requests: int) -> None:
        while self.num_waiting < num_requests:
            await asyncio.sleep(0)


def guarded(config: ServeConfig | None = None) -> tuple[Guard, House]:
    house = House()
    return Guard(house.app, config or ServeConfig(max_body_megabytes=1)), house


async def ask(guard: Guard, method: str, path: str, **more: Any) -> httpx.Response:
    transport = httpx.ASGITransport(app=guard)
    async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
        return await client.request(method, path, **more)


def asked(guard: Guard, method: str, path: str, **more: Any) -> httpx.Response:
    return asyncio.run(ask(guard, method, path, **more))


def counted(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


class Caller:
    """Sends a body as slowly as a test wants, and keeps what is answered."""

    def __init__(self, *chunks: bytes, ends: bool = False, leaves: bool = False, headers: Any = ()) -> None:
        self.chunks, self.ends, self.leaves = list(chunks), ends, leaves
        self.num_read = 0
        self.sent: list[Message] = []
        self.left = asyncio.Event()
        self.scope: Scope = {
            "type": "http",
            "method": "POST",
            "path": PREDICT,
            "raw_path": PREDICT.encode(),
            "query_string": b"",
            "headers": list(headers),
        }

    async def receive(self) -> Message:
        if self.chunks:
            chunk = self.chunks.pop(0)
            self.num_read += len(chunk)
            return {"type": "http.request", "body": chunk, "more_body": bool(self.chunks) or not self.ends}
        if not self.leaves:
            await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        self.sent.append(message)

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(self.sent[0]["headers"])


async def calling(guard: Guard, caller: Caller) -> None:
    await guard(caller.scope, caller.receive, caller.send)


def test_a_body_at_the_limit_is_answered_and_one_byte_more_is_refused() -> None:
    guard, _ = guarded()
    assert asked(guard, "POST", PREDICT, content=b"x" * LIMIT).json() == {"num_bytes": LIMIT}
    reply = asked(guard, "POST", PREDICT, content=b"x" * (LIMIT + 1))
    assert (reply.status_code, reply.headers["connection"]) == (413, "close")
    assert reply.json() == {"error": f"body: expected at most {LIMIT} bytes, got {LIMIT + 1} bytes"}


def test_a_body_of_many_chunks_arrives_whole_and_in_order() -> None:
    guard, _ = guarded()

    async def chunks() -> AsyncIterator[bytes]:
        for number in range(50):
            yield b"%d," % number

    assert asked(guard, "POST", PREDICT, content=chunks()).json() == {"num_bytes": 140}


@pytest.mark.parametrize("headers", [[], [(b"content-length", b"10")], [(b"content-length", b"9" * 30)]])
def test_an_endless_body_is_refused_before_a_megabyte_over_the_limit_is_read(headers: Any) -> None:
    guard, _ = guarded()
    caller = Caller(*[b"x" * 65536] * 100, headers=headers)
    asyncio.run(calling(guard, caller))
    assert (caller.status, caller.headers[b"connection"]) == (413, b"close")
    assert caller.num_read < LIMIT + 1_000_000


def test_an_announced_body_that_is_too_large_is_refused_unread() -> None:
    guard, _ = guarded()
    caller = Caller(headers=[(b"content-length", b"300000000")], leaves=True)
    asyncio.run(calling(guard, caller))
    assert (caller.status, caller.headers[b"connection"], caller.num_read) == (413, b"close", 0)


def test_a_body_that_does_not_end_in_time_is_refused() -> None:
    guard, _ = guarded(ServeConfig(body_seconds=0.05))
    caller = Caller(b"{", headers=[(b"content-length", b"100000")])

    async def impatient() -> None:
        answer = asyncio.create_task(calling(guard, caller))
        while not caller.sent:
            await asyncio.sleep(0.01)
        caller.left.set()
        await answer

    asyncio.run(impatient())
    assert (caller.status, caller.headers[b"connection"]) == (408, b"close")
    assert json.loads(caller.sent[1]["body"]) == {"error": "body: expected all of it within 0.05 s"}


def test_a_caller_that_leaves_in_its_body_gets_no_answer_and_is_counted() -> None:
    guard, house = guarded()
    before = counted("prottune_http_requests_total", route=PREDICT_ROUTE, status="499")
    caller = Caller(b"{", leaves=True)
    asyncio.run(calling(guard, caller))
    assert caller.sent == []
    assert counted("prottune_http_requests_total", route=PREDICT_ROUTE, status="499") == before + 1
    assert house.num_waiting == 0


def test_when_a_caller_leaves_nobody_goes_on_computing_its_answer() -> None:
    async def leave() -> tuple[Guard, House, Caller]:
        guard, house = guarded()
        house.open.clear()
        caller = Caller(b"{}", ends=True)
        answer = asyncio.create_task(calling(guard, caller))
        await house.fills(1)
        caller.left.set()
        await answer
        return guard, house, caller

    _, house, caller = asyncio.run(leave())
    assert (house.num_cancelled, house.num_waiting, caller.sent) == (1, 0, [])


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "identity, gzip"])
def test_an_encoded_body_is_refused(encoding: str) -> None:
    guard, _ = guarded()
    reply = asked(guard, "POST", PREDICT, content=b"{}", headers={"Content-Encoding": encoding})
    assert reply.status_code == 415
    assert "content-encoding: expected identity, got" in reply.json()["error"]


def test_identity_is_no_encoding() -> None:
    guard, _ = guarded()
    reply = asked(guard, "POST", PREDICT, content=b"{}", headers={"Content-Encoding": "identity"})
    assert reply.status_code == 200


def test_a_head_that_is_too_large_is_refused() -> None:
    guard, _ = guarded()
    assert asked(guard, "GET", "/v2/health/live", headers={"x-a": "x" * 33_000}).status_code == 431
    assert asked(guard, "GET", "/v2/health/live?" + "x" * 33_000).status_code == 431


def test_a_full_house_refuses_at_once_and_still_answers_probes() -> None:
    async def fill() -> list[httpx.Response]:
        guard, house = guarded(ServeConfig(max_requests=2))
        house.open.clear()
        inside = [asyncio.create_task(ask(guard, "POST", PREDICT, content=b"{}")) for _ in range(2)]
        await house.fills(2)
        assert counted("prottune_http_requests_in_house") == 2
        refused = await ask(guard, "POST", PREDICT, content=b"{}")
        probe = await ask(guard, "GET", "/v1/models/prottune")
        house.open.set()
        answers = await asyncio.gather(*inside)
        return [refused, probe, *answers, await ask(guard, "POST", PREDICT, content=b"{}")]

    before = counted("prottune_http_refused_total", reason="requests")
    replies = asyncio.run(fill())
    assert [reply.status_code for reply in replies] == [503, 200, 200, 200, 200]
    assert replies[0].headers["retry-after"] == "1"
    assert "connection" not in replies[0].headers  # its body was small and is read: it may ask again on it
    assert replies[0].json() == {"error": "2 requests are being answered; ask again"}
    assert counted("prottune_http_refused_total", reason="requests") == before + 1
    assert counted("prottune_http_requests_in_house") == 0


def test_bodies_that_are_still_coming_do_not_fill_the_house() -> None:
    async def ask_beside_slow_bodies() -> httpx.Response:
        guard, _ = guarded(ServeConfig(max_requests=2))
        slow = [asyncio.create_task(calling(guard, Caller(b"{"))) for _ in range(5)]
        await asyncio.sleep(0)
        reply = await ask(guard, "POST", PREDICT, content=b"{}")
        for task in slow:
            task.cancel()
        await asyncio.gather(*slow, return_exceptions=True)
        return reply

    assert asyncio.run(ask_beside_slow_bodies()).status_code == 200


def test_the_bodies_of_all_requests_together_have_a_limit() -> None:
    async def fill() -> list[httpx.Response]:
        guard, house = guarded(ServeConfig(max_body_megabytes=1, max_bodies_megabytes=2))
        house.open.clear()
        inside = [asyncio.create_task(ask(guard, "POST", PREDICT, content=b"x" * LIMIT)) for _ in range(2)]
        await house.fills(2)
        refused = await ask(guard, "POST", PREDICT, content=b"x")
        house.open.set()
        return [refused, *await asyncio.gather(*inside), await ask(guard, "POST", PREDICT, content=b"x")]

    replies = asyncio.run(fill())
    assert [reply.status_code for reply in replies] == [503, 200, 200, 200]
    assert replies[0].headers["retry-after"] == "1"


@pytest.fixture
def token_file(tmp_path: Path) -> str:
    file = tmp_path / "token"
    file.write_text("open-sesame-0123456789\n")
    return str(file)


def test_a_token_is_asked_of_everybody_but_probes_metrics_and_readers_of_the_page(token_file: str) -> None:
    guard, _ = guarded(ServeConfig(token_file=token_file))
    for path in ("/v1/models/prottune", "/v2/health/live", "/metrics", "/"):
        assert asked(guard, "GET", path).status_code == 200
    for method, path in (("POST", PREDICT), ("POST", "/"), ("POST", "/metrics"), ("GET", "/nowhere")):
        reply = asked(guard, method, path)
        assert (reply.status_code, reply.headers["www-authenticate"]) == (401, "Bearer")


@pytest.mark.parametrize(
    ("value", "status"),
    [
        ("Bearer open-sesame-0123456789", 200),
        ("bearer open-sesame-0123456789", 200),
        ("Bearer open-sesame-0123456788", 401),
        ("Bearer open-sesame", 401),
        ("Bearer ", 401),
        ("Basic open-sesame-0123456789", 401),
        ("open-sesame-0123456789", 401),
    ],
)
def test_only_the_token_opens(token_file: str, value: str, status: int) -> None:
    guard, _ = guarded(ServeConfig(token_file=token_file))
    reply = asked(guard, "POST", PREDICT, content=b"{}", headers={"Authorization": value})
    assert reply.status_code == status
    assert "sesame" not in reply.text


@pytest.mark.parametrize(
    "text", ["", "\n", "too short", "with a space, although long", "naïve-token-of-some-length"]
)
def test_a_file_that_holds_no_token_is_refused_without_repeating_it(tmp_path: Path, text: str) -> None:
    (tmp_path / "token").write_text(text)
    with pytest.raises(ConfigError, match="expected one token of at least 16") as caught:
        guarded(ServeConfig(token_file=str(tmp_path / "token")))
    assert not text.strip() or text not in str(caught.value)


def test_a_token_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"token'?: No such file or directory"):
        guarded(ServeConfig(token_file=str(tmp_path / "token")))


def test_every_answer_has_security_headers_and_a_page_keeps_its_own() -> None:
    guard, _ = guarded()
    for reply in (asked(guard, "POST", PREDICT), asked(guard, "GET", "/nowhere")):
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["cache-control"] == "no-store"
        assert reply.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
        assert reply.headers["referrer-policy"] == "no-referrer"
        assert "server" not in reply.headers
    assert asked(guard, "GET", "/").headers.get_list("content-security-policy") == ["mine"]


@pytest.mark.parametrize(("asked_id", "kept"), [("job-7:3", True), ("a b", False), ("x" * 65, False)])
def test_a_sane_request_id_is_kept_and_any_other_is_replaced(asked_id: str, kept: bool) -> None:
    guard, _ = guarded()
    answered = asked(guard, "GET", "/", headers={"x-request-id": asked_id}).headers["x-request-id"]
    assert (answered == asked_id) is kept
    assert kept or len(answered) == 32


def test_while_draining_readiness_is_false_and_everything_is_answered_for_the_last_time() -> None:
    guard, _ = guarded()
    guard.draining = True
    assert asked(guard, "GET", "/v1/models/prottune").status_code == 503
    for reply in (asked(guard, "GET", "/v2/health/live"), asked(guard, "POST", PREDICT, content=b"{}")):
        assert (reply.status_code, reply.headers["connection"]) == (200, "close")


def test_a_request_that_outlasts_the_drain_is_told_so() -> None:
    async def cut() -> Caller:
        guard, house = guarded()
        house.open.clear()
        caller = Caller(b"{}", ends=True)
        answer = asyncio.create_task(calling(guard, caller))
        await house.fills(1)
        answer.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await answer
        return caller

    caller = asyncio.run(cut())
    assert (caller.status, caller.headers[b"retry-after"]) == (503, b"1")


@pytest.fixture
def endpoint(token_file: str) -> Guard:
    """The guard in front of the real routes."""
    config = ServeConfig(token_file=token_file)
    model = LocationPredictor(LettersPredictor(), config, "7")
    model.load()
    return Guard(application(model, config), config)


def test_of_the_real_routes_only_probes_metrics_and_the_page_need_no_token(endpoint: Guard) -> None:
    routes = {(method, route.path) for route in endpoint.app.routes for method in route.methods}
    open_to_all = {
        (method, path)
        for method, path in routes
        if asked(endpoint, method, path.replace("{model_name}", "prottune")).status_code != 401
    }
    assert open_to_all == {(method, path) for method in ("GET", "HEAD") for path in WITHOUT_TOKEN}


def test_a_real_request_is_logged_with_its_route_and_its_number_of_sequences(
    endpoint: Guard, log_lines: Callable[[], list[dict[str, Any]]]
) -> None:
    headers = {"Authorization": "Bearer open-sesame-0123456789"}
    content = b'{"instances": ["MKT", "KKK"]}'
    assert asked(endpoint, "POST", PREDICT, content=content, headers=headers).status_code == 200
    (line,) = [line for line in log_lines() if "route" in line]
    assert (line["route"], line["status"], line["num_sequences"]) == (PREDICT_ROUTE, 200, 2)


@pytest.fixture
def log_lines() -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """What the server writes on stderr, line by line."""
    root, stream = logging.getLogger(), io.StringIO()
    before, level = root.handlers[:], root.level
    root.handlers[:] = []
    set_up_logging(stream)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    root.handlers[:] = before
    root.setLevel(level)


def test_a_request_is_one_line_of_numbers(log_lines: Callable[[], list[dict[str, Any]]]) -> None:
    guard, _ = guarded()
    body = b'{"instances": [{"accession": "P12345", "sequence": "MKTAYIAKQR"}]}'
    asked(guard, "POST", PREDICT + "?key=MKTAYIAKQR", content=body, headers={"x-request-id": "job-7"})
    (line,) = [line for line in log_lines() if "route" in line]
    assert list(line) == [
        "time",
        "level",
        "method",
        "route",
        "status",
        "seconds",
        "request_id",
        "num_sequences",
    ]
    assert (line["method"], line["route"], line["status"]) == ("POST", PREDICT_ROUTE, 200)
    assert (line["level"], line["request_id"], line["num_sequences"]) == ("INFO", "job-7", 3)
    assert 0 <= line["seconds"] < 5


def test_a_probe_that_finds_all_well_is_not_worth_a_line(
    log_lines: Callable[[], list[dict[str, Any]]],
) -> None:
    guard, _ = guarded()
    asked(guard, "GET", "/v2/health/live")
    guard.draining = True
    asked(guard, "GET", "/v1/models/prottune")
    assert [line["status"] for line in log_lines() if "route" in line] == [503]


def test_a_bug_is_answered_and_logged_by_its_place_without_its_words(
    log_lines: Callable[[], list[dict[str, Any]]],
) -> None:
    guard, _ = guarded()
    assert asked(guard, "GET", "/broken").status_code == 500
    bug, line = [line for line in log_lines() if "route" in line or "error" in line]
    assert (bug["error"], line["status"], line["level"]) == ("RuntimeError", 500, "ERROR")
    assert bug["at"][-1].endswith(" broken")
    assert "MKTAYIAKQR" not in str(bug)
    assert "P12345" not in str(bug)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"head_seconds": float("inf")}, "head_seconds=inf: expected more than 0"),
        ({"body_seconds": float("nan")}, "body_seconds=nan: expected more than 0"),
        ({"max_requests": 0}, "max_requests=0: expected more than 0"),
        ({"max_bodies_megabytes": 7}, "max_bodies_megabytes=7: expected at least one body"),
        ({"settle_seconds": -1}, "settle_seconds=-1: expected 0 or more"),
        ({"settle_seconds": 30}, "settle_seconds=30: .* less than drain_seconds=30"),
    ],
)
def test_limits_that_limit_nothing_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        ServeConfig(**settings)
