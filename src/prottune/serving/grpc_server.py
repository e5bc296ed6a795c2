"""The Open Inference Protocol over gRPC, beside HTTP: the same questions, refusals and limits.

It listens on the same host as HTTP and speaks by KServe's stubs. Nobody can load or unload the model: those
calls are refused as not implemented. Source of the messages: kserve.protocol.grpc (grpc_predict_v2.proto).
"""
# ruff: noqa: N802 - the protocol names its calls

from __future__ import annotations

import functools
import hmac
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NoReturn

import grpc

from prottune.errors import ConfigError
from prottune.serving.answers import NoNumber
from prottune.serving.batcher import Overloaded, TooLate, TooMuch
from prottune.serving.predictor import LocationPredictor
from prottune.serving.routes import Plane
from prottune.serving.sdk import (
    GRPCInferenceServiceServicer,
    InferResponse,
    InvalidInput,
    ModelNotFound,
    ModelNotReady,
    add_GRPCInferenceServiceServicer_to_server,
    messages,
)
from prottune.serving.settings import ServeConfig
from prottune.serving.tensors import request_of_grpc

ANNOUNCEMENT = "gRPC on "
"""Begins the log line that ends with the address."""

_STATUS: dict[type[Exception], grpc.StatusCode] = {
    InvalidInput: grpc.StatusCode.INVALID_ARGUMENT,
    ModelNotFound: grpc.StatusCode.NOT_FOUND,
    ModelNotReady: grpc.StatusCode.UNAVAILABLE,
    Overloaded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    TooLate: grpc.StatusCode.UNAVAILABLE,
    TooMuch: grpc.StatusCode.RESOURCE_EXHAUSTED,
    NoNumber: grpc.StatusCode.INTERNAL,
    NotImplementedError: grpc.StatusCode.UNIMPLEMENTED,
}
_MAX_WORDS = 1000
"""Words of a refusal travel in a header, which must be short."""

_log = logging.getLogger(__name__)

Method = Callable[[Any, Any, Any], Awaitable[Any]]


async def start_grpc(model: LocationPredictor, config: ServeConfig) -> grpc.aio.Server | None:
    """Listen for gRPC, if the settings ask for it; whoever starts the server also stops it.

    Raises: ConfigError if the address cannot be had or the token cannot be read.
    """
    if not config.grpc:
        return None
    server = grpc.aio.server(
        interceptors=[_token_check(config)] if config.token_file else [],
        options=[
            ("grpc.max_receive_message_length", config.max_body_bytes),
            ("grpc.so_reuseport", 0),  # or a second server on the same port would take half of the calls
        ],
        # gRPC reads a message whole before anybody can ask how long it is, so each counts as the longest.
        maximum_concurrent_rpcs=min(config.max_requests, config.max_bodies_bytes // config.max_body_bytes),
    )
    add_GRPCInferenceServiceServicer_to_server(_Servicer(model), server)
    host = f"[{config.host}]" if ":" in config.host else config.host
    try:
        port = server.add_insecure_port(f"{host}:{config.grpc_port}")
    except RuntimeError as error:
        raise ConfigError(
            f"cannot listen for gRPC on {host}:{config.grpc_port}; choose another host or grpc_port"
        ) from error
    await server.start()
    _log.info(f"{ANNOUNCEMENT}%s:%d", host, port)
    return server


def _refusing(method: Method) -> Method:
    """Answer an error with its status and its words; what is no refusal is a bug, and keeps its words."""

    @functools.wraps(method)
    async def answer(servicer: Any, request: Any, context: Any) -> Any:
        try:
            return await method(servicer, request, context)
        except tuple(_STATUS) as error:
            status = next(status for kind, status in _STATUS.items() if isinstance(error, kind))
            words = str(error).encode("ascii", "backslashreplace").decode()
            await _abort(context, status, words[:_MAX_WORDS])
        except Exception as error:
            _log.exception("a call failed inside the server")
            words = f"{type(error).__name__} inside the server; its log says more"
            await _abort(context, grpc.StatusCode.INTERNAL, words)

    return answer


async def _abort(context: Any, status: grpc.StatusCode, words: str) -> NoReturn:
    await context.abort(status, words)
    raise AssertionError("abort always raises")


class _Servicer(GRPCInferenceServiceServicer):  # type: ignore[misc]
    """Each call of the protocol."""

    def __init__(self, model: LocationPredictor) -> None:
        self._plane = Plane(model)

    @_refusing
    async def ServerLive(self, request: Any, context: Any) -> Any:
        return messages.ServerLiveResponse(live=True)

    @_refusing
    async def ServerReady(self, request: Any, context: Any) -> Any:
        return messages.ServerReadyResponse(ready=await self._plane.ready())

    @_refusing
    async def ModelReady(self, request: Any, context: Any) -> Any:
        self._check_version(request.name, request.version)
        return messages.ModelReadyResponse(ready=await self._plane.model_ready(request.name))

    @_refusing
    async def ServerMetadata(self, request: Any, context: Any) -> Any:
        return messages.ServerMetadataResponse(**self._plane.metadata())

    @_refusing
    async def ModelMetadata(self, request: Any, context: Any) -> Any:
        self._check_version(request.name, request.version)
        return messages.ModelMetadataResponse(**await self._plane.model_metadata(request.name))

    @_refusing
    async def ModelInfer(self, request: Any, context: Any) -> Any:
        model = self._plane.asked(request.model_name)
        self._check_version(request.model_name, request.model_version)
        names = [output["name"] for output in model.get_output_types()]
        question = request_of_grpc(request, names)
        headers = {name: str(value) for name, value in context.invocation_metadata() or ()}
        response, _ = await model(question, headers)
        return _only(response, [output.name for output in question.request_outputs or ()]).to_grpc()

    @_refusing
    async def RepositoryModelLoad(self, request: Any, context: Any) -> Any:
        raise NotImplementedError("the model of this server can neither be loaded nor unloaded")

    RepositoryModelUnload = RepositoryModelLoad

    def _check_version(self, name: str, version: str) -> None:
        """Raises: ModelNotFound for a version that is not the one served."""
        model = self._plane.get_model_from_registry(name)
        if version and version != model.model_version:
            raise ModelNotFound(f"{name}, version {version[:40]!a},")


def _only(response: InferResponse, names: Sequence[str]) -> InferResponse:
    """The outputs that were asked for; KServe's answer over gRPC would hold them all."""
    if names:
        response.outputs = [response.get_output_by_name(name) for name in names]
    return response


def _token_check(config: ServeConfig) -> grpc.aio.ServerInterceptor:
    """Every call but those of probes must bring the token, as metadata `authorization: Bearer TOKEN`."""
    from prottune.serving.guard import read_token

    expected = read_token(config)
    open_to_all = ("/ServerLive", "/ServerReady", "/ModelReady")

    async def refuse(_: Any, context: Any) -> None:
        words = "expected the metadata `authorization: Bearer TOKEN` with this server's token"
        await context.abort(grpc.StatusCode.UNAUTHENTICATED, words)

    class TokenCheck(grpc.aio.ServerInterceptor):  # type: ignore[misc]
        async def intercept_service(self, continuation: Any, details: Any) -> Any:
            given = dict(details.invocation_metadata or ()).get("authorization", "")
            word, _, token = str(given).partition(" ")
            is_known = word.lower() == "bearer" and hmac.compare_digest(token.strip().encode(), expected)
            if is_known or details.method.endswith(open_to_all):
                return await continuation(details)
            return grpc.unary_unary_rpc_method_handler(refuse)

    return TokenCheck()
