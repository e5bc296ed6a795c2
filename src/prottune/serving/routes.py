"""The routes that exist, KServe's own endpoints behind them, and the words of every refusal.

KServe's server lets anybody unload the model, so the list is written here: what it does not name, does not
exist.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from prottune.serving.predictor import LocationPredictor
from prottune.serving.sdk import (
    DataPlane,
    InvalidInput,
    ModelNotFound,
    ModelNotReady,
    ModelRepository,
    ServerNotReady,
    V1Endpoints,
    V2Endpoints,
    metrics_handler,
)

_BINARY_HEADER = b"inference-header-content-length"

Scope = MutableMapping[str, Any]


def application(model: LocationPredictor) -> FastAPI:
    """The ASGI application that serves one model; these routes and no others."""
    models = ModelRepository()
    models.update(model)
    plane = _StrictDataPlane(models)
    v1, v2 = V1Endpoints(plane), V2Endpoints(plane)
    app = FastAPI(title="prottune", openapi_url=None, docs_url=None, redoc_url=None)
    routes: list[tuple[str, str, Callable[..., Any]]] = [
        ("GET", "/metrics", metrics_handler),
        ("GET", "/v1/models", v1.models),
        ("GET", "/v1/models/{model_name}", v1.model_ready),
        ("POST", "/v1/models/{model_name}:predict", v1.predict),
        ("GET", "/v2", v2.metadata),
        ("GET", "/v2/health/live", v2.live),
        ("GET", "/v2/health/ready", v2.ready),
        ("GET", "/v2/models", v2.models),
        ("GET", "/v2/models/{model_name}", _without_version(v2.model_metadata)),
        ("GET", "/v2/models/{model_name}/ready", _without_version(v2.model_ready)),
        ("POST", "/v2/models/{model_name}/infer", v2.infer),
    ]
    for method, path, handler in routes:
        app.add_api_route(path, handler, methods=[method], response_model=None)
    for error, handler in _REFUSALS.items():
        app.add_exception_handler(error, handler)
    app.add_middleware(_JsonUnlessBinary)
    return app


class _StrictDataPlane(DataPlane):  # type: ignore[misc]
    """KServe's data plane, ready when its model is; whatever it cannot decode is the caller's error."""

    def metadata(self) -> dict[str, Any]:
        return {"name": "prottune", "version": self._server_version, "extensions": []}

    async def model_metadata(self, model_name: str) -> dict[str, Any]:
        version = self.get_model_from_registry(model_name).model_version
        return {**await super().model_metadata(model_name), "platform": "prottune", "versions": [version]}

    async def ready(self) -> bool:
        return all([await model.healthy() for model in self.model_registry.get_models().values()])

    def decode(self, body: Any, headers: Any, *more: Any, **others: Any) -> Any:
        try:
            return super().decode(body, headers, *more, **others)
        except InvalidInput:
            raise
        except Exception as error:
            raise InvalidInput(f"body: not an inference request ({type(error).__name__}: {error})") from error


class _JsonUnlessBinary:
    """Take every body for JSON, as curl sends it without saying so, but for V2's binary extension.

    CloudEvents are not spoken here: their headers are dropped.
    """

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["method"] == "POST":
            kept = [(name, value) for name, value in scope["headers"] if not name.startswith(b"ce-")]
            if _BINARY_HEADER not in dict(kept):
                kept = [(name, value) for name, value in kept if name != b"content-type"]
                kept.append((b"content-type", b"application/json"))
            scope = {**scope, "headers": kept}
        await self._app(scope, receive, send)


def _without_version(handler: Callable[[str], Awaitable[Any]]) -> Callable[[str], Awaitable[Any]]:
    """KServe's handlers take a model version as well, which would become a query parameter."""

    async def one_model(model_name: str) -> Any:
        return await handler(model_name)

    return one_model


def _refusal(status: int) -> Callable[[Request, Exception], Awaitable[JSONResponse]]:
    async def answer(_: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"error": str(error)}, status)

    return answer


async def _refuse_shape(_: Request, error: Exception) -> JSONResponse:
    """A V2 body that has not the protocol's fields: name the first one, do not send the body back."""
    first = error.errors()[0] if isinstance(error, RequestValidationError) else {"loc": (), "msg": str(error)}
    if first.get("type") == "json_invalid":
        return JSONResponse({"error": f"body: not JSON at character {first['loc'][-1]}"}, 400)
    path = [part for part in first["loc"][1:] if part not in ("InferenceRequest", "bytes")]
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")
    return JSONResponse({"error": f"{where or 'body'}: {first['msg']}"}, 400)


async def _refuse_http(_: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, HTTPException):
        raise error
    return JSONResponse({"error": str(error.detail)}, error.status_code, error.headers)


async def _internal_error(_: Request, error: Exception) -> JSONResponse:
    words = f"{type(error).__name__} inside the server; its log says more"
    return JSONResponse({"error": words}, 500)


_REFUSALS: dict[Any, Callable[[Request, Exception], Awaitable[JSONResponse]]] = {
    InvalidInput: _refusal(400),
    ModelNotFound: _refusal(404),
    ModelNotReady: _refusal(503),
    ServerNotReady: _refusal(503),
    NotImplementedError: _refusal(501),
    RequestValidationError: _refuse_shape,
    HTTPException: _refuse_http,
    Exception: _internal_error,
}
