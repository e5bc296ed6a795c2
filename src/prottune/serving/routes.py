"""The routes that exist and what stands behind each; what this list does not name does not exist.

KServe's server lets anybody unload the model. Its endpoints that tell about the server and the model are used
as they are. Bodies are read here, because FastAPI and KServe take what the protocols do not allow (two equal
keys, text for numbers, CloudEvents), and the model is asked through KServe's `Model`. That leaves nothing for
FastAPI to do but to take its time, so the routes are Starlette's.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from prottune.serving.predictor import LocationPredictor
from prottune.serving.refusals import REFUSALS
from prottune.serving.sdk import (
    DataPlane,
    InferenceVerb,
    ModelNotFound,
    ModelNotReady,
    ModelRepository,
    V1Endpoints,
    V2Endpoints,
    metrics_handler,
)
from prottune.serving.settings import ServeConfig
from prottune.serving.tensors import BINARY_HEADER, request_of_http

_JSON, _BYTES = "application/json", "application/octet-stream"

Handler = Callable[[Request], Awaitable[Response]]


def application(model: LocationPredictor, config: ServeConfig) -> Starlette:
    """The ASGI application that serves one model; these routes and no others."""
    plane = Plane(model)
    v1, v2 = V1Endpoints(plane), V2Endpoints(plane)
    routes: list[tuple[str, str, Handler]] = [
        ("GET", "/metrics", metrics_handler),
        ("GET", "/v1/models", _told(v1.models)),
        ("POST", "/v1/models/{model_name}:predict", _v1(plane, InferenceVerb.PREDICT)),
        ("GET", "/v1/models/{model_name}", _without_verb(_told(v1.model_ready))),
        ("GET", "/v2", _told(v2.metadata)),
        ("GET", "/v2/health/live", _told(v2.live)),
        ("GET", "/v2/health/ready", _told(v2.ready)),
        ("GET", "/v2/models", _told(v2.models)),
        ("GET", "/v2/models/{model_name}", _told(v2.model_metadata)),
        ("GET", "/v2/models/{model_name}/ready", _told(v2.model_ready)),
        ("POST", "/v2/models/{model_name}/infer", _infer(plane)),
    ]
    if config.explain:
        explain = _v1(plane, InferenceVerb.EXPLAIN)
        routes.insert(0, ("POST", "/v1/models/{model_name}:explain", explain))
    if config.page:
        from prottune.serving.page import page

        routes.append(("GET", "/", _fixed(page)))
    if config.docs:
        from prottune.serving.openapi import openapi

        routes.append(("GET", "/openapi.json", _fixed(lambda: _json(openapi(model, config)))))
    app = Starlette(
        routes=[Route(path, handler, methods=[method]) for method, path, handler in routes],
        exception_handlers=REFUSALS,
    )
    app.router.redirect_slashes = False
    return app


class Plane(DataPlane):  # type: ignore[misc]
    """KServe's view of the one model, for both protocols; ready when the model is."""

    def __init__(self, model: LocationPredictor) -> None:
        models = ModelRepository()
        models.update(model)
        super().__init__(models)

    def metadata(self) -> dict[str, Any]:
        return {"name": "prottune", "version": self._server_version, "extensions": []}

    async def model_metadata(self, model_name: str) -> dict[str, Any]:
        version = self.get_model_from_registry(model_name).model_version
        return {**await super().model_metadata(model_name), "platform": "prottune", "versions": [version]}

    async def ready(self) -> bool:
        return all([await model.healthy() for model in self.model_registry.get_models().values()])

    def asked(self, model_name: str) -> LocationPredictor:
        """The model that a request is for.

        Raises: ModelNotFound, ModelNotReady.
        """
        model: LocationPredictor | None = self.model_registry.get_model(model_name)
        if model is None:
            raise ModelNotFound(model_name)
        if not model.ready:
            raise ModelNotReady(model_name)
        return model


def _v1(plane: Plane, verb: InferenceVerb) -> Handler:
    async def answer(request: Request) -> Response:
        model = plane.asked(request.path_params["model_name"])
        answers, _ = await model(await request.body(), dict(request.headers), verb)
        return _json(answers)

    return answer


def _infer(plane: Plane) -> Handler:
    async def answer(request: Request) -> Response:
        model_name = request.path_params["model_name"]
        model = plane.asked(model_name)
        body = await request.body()
        names = [output["name"] for output in model.get_output_types()]
        question = request_of_http(body, request.headers.get(BINARY_HEADER), model_name, names)
        response, _ = await model(question, dict(request.headers))
        content, json_length = response.to_rest()
        if json_length is None:
            return _json(content)
        return Response(content, media_type=_BYTES, headers={BINARY_HEADER: str(json_length)})

    return answer


def _told(handler: Callable[..., Awaitable[Any]]) -> Handler:
    """What one of KServe's handlers tells of the server, or of the model that the path names."""

    async def tell(request: Request) -> Response:
        told = await handler(**request.path_params)
        return _json(told.model_dump(mode="json") if isinstance(told, BaseModel) else told)

    return tell


def _json(content: Any) -> Response:
    return Response(orjson.dumps(content), media_type=_JSON)


def _fixed(make: Callable[[], Response]) -> Handler:
    """A handler that sends what was made once."""
    made = make()

    async def send(_: Request) -> Response:
        return made

    return send


def _without_verb(handler: Handler) -> Handler:
    """A name with a verb is a route of its own, which is not asked with GET."""

    async def one_model(request: Request) -> Response:
        if request.path_params["model_name"].endswith((":predict", ":explain")):
            raise HTTPException(405, headers={"Allow": "POST"})
        return await handler(request)

    return one_model
