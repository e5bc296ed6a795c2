"""gRPC in this process, by KServe's stubs; clients that others wrote meet it in tests/integration."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from letters import HeldPredictor, LettersPredictor

from prottune.errors import ConfigError
from prottune.serving.answers import NoNumber
from prottune.serving.batcher import Overloaded, TooLate, TooMuch
from prottune.serving.grpc_server import start_grpc
from prottune.serving.predictor import LocationPredictor
from prottune.serving.sdk import messages
from prottune.serving.settings import ServeConfig
from prottune.serving.strict_json import MAX_PARTS

SERVICE = "/inference.GRPCInferenceService/"
TOKEN = "a-token-of-thirty-two-letters-00"
Call = Callable[..., Awaitable[Any]]


def letters(
    predictor: LettersPredictor | None = None, **settings: Any
) -> tuple[LocationPredictor, ServeConfig]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config = ServeConfig(grpc=True, grpc_port=port, **settings)
    model = LocationPredictor(predictor or LettersPredictor(), config, "7")
    model.load()
    return model, config


def asked(model: LocationPredictor, config: ServeConfig, ask: Callable[[Call], Awaitable[Any]]) -> Any:
    """What `ask` returns, which gets a function that makes one call."""

    async def once() -> Any:
        server = await start_grpc(model, config)
        assert server is not None
        async with grpc.aio.insecure_channel(f"127.0.0.1:{config.grpc_port}") as channel:

            async def call(name: str, request: Any, **metadata: str) -> Any:
                answer = getattr(messages, f"{type(request).__name__.removesuffix('Request')}Response")
                method = channel.unary_unary(
                    SERVICE + name, type(request).SerializeToString, answer.FromString
                )
                return await method(request, metadata=list(metadata.items()), timeout=30)

            try:
                return await ask(call)
            finally:
                await server.stop(None)
                await model.close()

    return asyncio.run(once())


def question(*sequences: bytes) -> Any:
    tensor = messages.ModelInferRequest.InferInputTensor(
        name="sequence", datatype="BYTES", shape=[len(sequences)]
    )
    tensor.contents.bytes_contents.extend(sequences)
    return messages.ModelInferRequest(model_name="prottune", inputs=[tensor])


def test_it_is_off_unless_asked_for() -> None:
    model, _ = letters()
    assert asyncio.run(start_grpc(model, ServeConfig())) is None


def test_a_question_is_answered_as_over_http() -> None:
    async def ask(call: Call) -> Any:
        return await call("ModelInfer", question(b"kkk", b">P1\nLL*"))

    answer = asked(*letters(), ask)
    outputs = {output.name: output for output in answer.outputs}
    assert (answer.model_name, answer.model_version) == ("prottune", "7")
    assert list(outputs["location"].contents.bytes_contents) == [b"Nucleus", b"Cell.membrane"]
    assert list(outputs["probability"].contents.fp32_contents) == pytest.approx([4 / 6, 3 / 5])


def status_of(model: LocationPredictor, config: ServeConfig, *call_: Any, **metadata: str) -> tuple[Any, str]:
    async def ask(call: Call) -> Any:
        with pytest.raises(grpc.RpcError) as caught:
            await call(*call_, **metadata)
        return caught.value.code(), caught.value.details()

    code, words = asked(model, config, ask)
    return code, words


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (Overloaded("3 wait", 2), grpc.StatusCode.RESOURCE_EXHAUSTED, "3 wait; try again in 2 s"),
        (TooLate("not answered within 60 s"), grpc.StatusCode.UNAVAILABLE, "not answered within 60 s"),
        (TooMuch("60 s are not enough"), grpc.StatusCode.RESOURCE_EXHAUSTED, "60 s are not enough"),
        (NoNumber("sequence 0: no number"), grpc.StatusCode.INTERNAL, "sequence 0: no number"),
        (RuntimeError("MKT"), grpc.StatusCode.INTERNAL, "RuntimeError inside the server; its log says more"),
    ],
)
def test_what_the_model_cannot_answer_has_its_status(error: Exception, status: Any, words: str) -> None:
    model, config = letters()

    async def fail(*_: Any) -> Any:
        raise error

    model.predict = fail  # type: ignore[method-assign]
    assert status_of(model, config, "ModelInfer", question(b"MKT")) == (status, words)


def test_a_message_is_as_long_as_a_body_over_http_and_no_longer() -> None:
    for length, status in ((998_000, "INVALID_ARGUMENT"), (1_000_001, "RESOURCE_EXHAUSTED")):
        code, _ = status_of(*letters(max_body_megabytes=1), "ModelInfer", question(b"K" * length))
        assert code.name == status  # what is let through is longer than a protein may be


def test_so_many_calls_at_a_time_as_their_longest_messages_fit_into_the_memory() -> None:
    held = HeldPredictor()
    model, config = letters(held, max_body_megabytes=1, max_bodies_megabytes=2)

    async def ask(call: Call) -> Any:
        tasks = [asyncio.ensure_future(call("ModelInfer", question(b"K"))) for _ in range(2)]
        await held.begun()
        while len(model._batcher._line._asked) < 2:
            await asyncio.sleep(0.01)
        with pytest.raises(grpc.RpcError) as caught:
            await call("ModelInfer", question(b"K"))
        held.let_go(2)
        answers = await asyncio.gather(*tasks)
        return caught.value.code().name, len(answers)

    assert asked(model, config, ask) == ("RESOURCE_EXHAUSTED", 2)


def many(kind: str) -> Any:
    message = question(b"K")
    tensor, number = message.inputs[0], MAX_PARTS + 1
    if kind == "elements":
        tensor.contents.bytes_contents.extend([b""] * number)
    elif kind == "dimensions":
        tensor.shape.extend([1] * number)
    elif kind == "raw elements":
        tensor.ClearField("contents")
        message.raw_input_contents.append(bytes(4 * number))
    elif kind == "raw contents":
        message.raw_input_contents.extend([b""] * number)
    else:
        message.outputs.extend([messages.ModelInferRequest.InferRequestedOutputTensor()] * number)
    return message


@pytest.mark.parametrize("kind", ["elements", "dimensions", "raw elements", "raw contents", "outputs"])
def test_a_message_of_very_many_parts_is_refused_before_they_are_looked_at(kind: str) -> None:
    code, words = status_of(*letters(), "ModelInfer", many(kind))
    assert (code.name, f"expected at most {MAX_PARTS} " in words) == ("INVALID_ARGUMENT", True)


def test_a_server_that_is_about_to_end_is_not_ready_and_still_answers() -> None:
    model, config = letters()
    model.is_ending = True

    async def ask(call: Call) -> Any:
        server = await call("ServerReady", messages.ServerReadyRequest())
        one = await call("ModelReady", messages.ModelReadyRequest(name="prottune"))
        answer = await call("ModelInfer", question(b"KKK"))
        return server.ready, one.ready, answer.model_name

    assert asked(model, config, ask) == (False, False, "prottune")


def test_the_token_must_be_brought(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(TOKEN)
    settings = {"token_file": str(tmp_path / "token")}
    for metadata in ({}, {"authorization": "Bearer wrong"}, {"authorization": TOKEN}):
        code, words = status_of(*letters(**settings), "ModelInfer", question(b"MKT"), **metadata)
        assert (code, "Bearer TOKEN" in words) == (grpc.StatusCode.UNAUTHENTICATED, True)

    async def ask(call: Call) -> Any:
        answer = await call("ModelInfer", question(b"MKT"), authorization=f"Bearer {TOKEN}")
        probe = await call("ModelReady", messages.ModelReadyRequest(name="prottune"))
        return len(answer.outputs), probe.ready

    assert asked(*letters(**settings), ask) == (4, True)


def test_a_port_in_use_is_refused_in_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        model, _ = letters()
        config = ServeConfig(grpc=True, grpc_port=taken.getsockname()[1])
        with pytest.raises(ConfigError, match=f"cannot listen for gRPC on 127.0.0.1:{config.grpc_port}"):
            asyncio.run(start_grpc(model, config))
