"""The status and the words of every refusal: always `{"error": "..."}`, never a sequence that was sent."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse

from prottune.serving.answers import NoNumber
from prottune.serving.batcher import Overloaded, TooLate, TooMuch
from prottune.serving.sdk import InvalidInput, ModelNotFound, ModelNotReady, ServerNotReady
from prottune.serving.strict_json import shown

_RETRY_AFTER_SECONDS = 1
"""Where nobody knows better."""

Refuse = Callable[[Request, Exception], Awaitable[JSONResponse]]


def _refusal(status: int) -> Refuse:
    async def refuse(_: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"error": _printable(str(error))}, status)

    return refuse


def _refusal_for_now(status: int) -> Refuse:
    """Trying again later may help."""

    async def refuse(_: Request, error: Exception) -> JSONResponse:
        seconds = getattr(error, "retry_after_seconds", _RETRY_AFTER_SECONDS)
        return JSONResponse({"error": _printable(str(error))}, status, {"Retry-After": str(seconds)})

    return refuse


async def _refuse_route(request: Request, error: Exception) -> JSONResponse:
    """A path that is not in the list, or not with this method."""
    if not isinstance(error, HTTPException):
        raise error
    asked = f"{request.method} {shown(request.url.path, 80)}"
    words = {404: f"{asked}: there is no such route", 405: f"{asked}: the route takes another method"}
    return JSONResponse(
        {"error": words.get(error.status_code, str(error.detail))}, error.status_code, error.headers
    )


async def _refuse_inside(_: Request, error: Exception) -> JSONResponse:
    words = f"{type(error).__name__} inside the server; its log says more"
    return JSONResponse({"error": words}, 500)


def _printable(words: str) -> str:
    """Halves of characters, which JSON can carry and UTF-8 cannot, as escapes."""
    return words.encode("utf-8", "backslashreplace").decode()


REFUSALS: dict[Any, Refuse] = {
    InvalidInput: _refusal(400),
    ClientDisconnect: _refusal(400),
    ModelNotFound: _refusal(404),
    Overloaded: _refusal_for_now(429),
    TooLate: _refusal_for_now(503),
    TooMuch: _refusal(413),
    ModelNotReady: _refusal_for_now(503),
    ServerNotReady: _refusal_for_now(503),
    NotImplementedError: _refusal(501),
    NoNumber: _refusal(500),
    HTTPException: _refuse_route,
    Exception: _refuse_inside,
}
