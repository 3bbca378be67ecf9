"""HTTP as every service does it: problem+json (RFC 9457), trace context, the internal token."""

import hmac
import json
import logging
import math
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Annotated, Any, TypeAlias

from fastapi import FastAPI, Header, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from opentelemetry import trace
from opentelemetry.trace import SpanKind
from pydantic import SecretStr
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flowerbed.contracts.actor import ACTOR_HEADER, LONGEST_ACTOR
from flowerbed.events.errors import Conflict, FlowerbedError, NotFound, Rejected, Unavailable
from flowerbed.events.telemetry import trace_context

logger = logging.getLogger(__name__)

RETRY_AFTER = "2"
"""Seconds after which to ask again when a dependency is away."""

_UNTRACED = frozenset(("/healthz", "/readyz", "/metrics", "/status"))


Actor: TypeAlias = Annotated[
    str | None, Header(alias=ACTOR_HEADER, max_length=LONGEST_ACTOR, include_in_schema=False)
]
"""For whom another service gives a command. Only behind `internal_only`."""


class Unauthorized(FlowerbedError):
    """A token is missing or another."""


def problem(
    status: int, code: str, detail: str, *, headers: dict[str, str] | None = None, **more: Any
) -> JSONResponse:
    """An RFC 9457 problem; `code` is stable, `detail` is for people."""
    body = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "code": code,
        "detail": detail,
        **more,
    }
    return _Problem(body, status_code=status, headers=headers)


class _Problem(JSONResponse):
    """Whatever was sent may be told back: half a surrogate pair too, which is no UTF-8."""

    media_type = "application/problem+json"

    def render(self, content: Any) -> bytes:
        try:
            return super().render(content)
        except UnicodeEncodeError:
            return json.dumps(content).encode()


def new_app(title: str) -> FastAPI:
    """A FastAPI app that answers every error with a problem and joins the caller's trace."""
    app = FastAPI(title=title, docs_url=None, redoc_url=None)
    prepare(app)
    return app


def prepare(app: FastAPI, *, is_traced: bool = True) -> None:
    """Give an app of a service's own the same errors, and a span for each request."""
    app.add_exception_handler(FlowerbedError, _on_flowerbed_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(Exception, _on_unexpected_error)
    if is_traced:
        app.add_middleware(_Traced)


def internal_only(token: SecretStr) -> Callable[[str | None], Awaitable[None]]:
    """A dependency that lets through only callers who know the internal token."""
    expected = f"Bearer {token.get_secret_value()}".encode()

    async def check(authorization: Annotated[str | None, Header()] = None) -> None:
        given = (authorization or "").encode()
        if not hmac.compare_digest(given, expected):
            raise Unauthorized("the internal token is required")

    return check


def problem_of(error: FlowerbedError) -> JSONResponse:
    """What the caller is told.

    Raises:
        FlowerbedError: the error itself, if it is none of the caller's business.
    """
    match error:
        case Rejected():
            more: dict[str, Any] = {"errors": list(error.errors)} if error.errors else {}
            return problem(error.status, error.code, str(error), **more)
        case NotFound():
            return problem(404, "not-found", str(error))
        case Conflict():
            return problem(409, "conflict", str(error))
        case Unavailable():
            return problem(503, "unavailable", str(error), headers={"Retry-After": RETRY_AFTER})
        case Unauthorized():
            return problem(401, "unauthorized", str(error), headers={"WWW-Authenticate": "Bearer"})
        case _:
            raise error


async def _on_flowerbed_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, FlowerbedError)
    try:
        return problem_of(error)
    except FlowerbedError:
        return await _on_unexpected_error(request, error)


async def _on_validation_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    errors = [
        {
            "path": ".".join(str(part) for part in one["loc"]),
            "message": one["msg"],
            # What was sent is repeated only if it is short and plain; a body may hold secrets.
            **({"value": one["input"]} if _is_plain(one) else {}),
        }
        for one in error.errors()
    ]
    return problem(422, "not-valid", f"{len(errors)} values are not valid", errors=errors)


def _is_plain(error: dict[str, Any]) -> bool:
    value = error.get("input")
    if error["loc"][:1] == ("header",):
        return False
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, bool | int | str) and len(str(value)) <= 64


async def _on_http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    code = HTTPStatus(error.status_code).phrase.lower().replace(" ", "-")
    headers = dict(error.headers) if error.headers else None
    return problem(error.status_code, code, str(error.detail), headers=headers)


async def _on_unexpected_error(request: Request, error: Exception) -> JSONResponse:
    logger.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return problem(500, "internal-error", "an error of ours; the log has it")


class _Traced:
    """A span for each request, under the caller's trace if it names one.

    What nobody expected is answered here, while the span is still open, so that the log has
    the trace; the handler for Exception is only for what is not traced.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._tracer = trace.get_tracer("flowerbed.events")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in _UNTRACED:
            await self._app(scope, receive, send)
            return
        traceparent = dict(scope["headers"]).get(b"traceparent", b"").decode("latin-1")
        with self._tracer.start_as_current_span(
            f"{scope['method']} {scope['path']}",
            context=trace_context(traceparent),
            kind=SpanKind.SERVER,
            attributes={"http.request.method": scope["method"], "url.path": scope["path"]},
        ):
            await self._answered(scope, receive, send)

    async def _answered(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_started = False

        async def sending(message: Message) -> None:
            nonlocal is_started
            is_started = True
            await send(message)

        try:
            await self._app(scope, receive, sending)
        except Exception as error:
            if is_started:
                raise
            answer = await _on_unexpected_error(Request(scope), error)
            await answer(scope, receive, send)
