"""In front of every route: who asks, how often, how much they send, and what is kept of it.

    health and pages ──────────────────────────────────────────> app
    everything else  ── token ── rate ── body ── app ── audit ──> answer

Plain ASGI, so that it costs little and streams stay streams. A body is read before the app sees
it: then a body that is too large has changed nothing, however it was sent.
"""

import json
import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flowerbed.events.errors import FlowerbedError
from flowerbed.events.http import problem, problem_of
from flowerbed.gateway.auth import Authenticator, Principal, acting_as
from flowerbed.gateway.noting import Notes, noting
from flowerbed.gateway.rates import Limiter, Rate, Verdict
from flowerbed.gateway.trail import Entry, Trail, storable

logger = logging.getLogger(__name__)

READING = frozenset(("GET", "HEAD", "OPTIONS", "TRACE"))
HEALTH = frozenset(("/healthz", "/readyz", "/metrics", "/status"))
INTERNAL = "/internal/"
"""These have a token of their own, which no person knows."""
LONGEST_BODY = 1024 * 1024
MOST_LET_GO = 16 * LONGEST_BODY
"""Of what is too large so much is read and let go: who still sends would not see the answer."""

PUBLIC = ("/openapi.json", "/")
PUBLIC_FOLDER = "/assets/"
"""The dashboard's own files, which hold no data: it asks for that with the person's token."""


def is_public(path: str) -> bool:
    return path in PUBLIC or path.startswith(PUBLIC_FOLDER)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """`requests` and `writes`: of one principal. `strangers`: of one address without a token."""

    requests: Rate
    writes: Rate
    strangers: Rate
    body_bytes: int = LONGEST_BODY


@dataclass(slots=True)
class Visit:
    """One request, as far as it is known."""

    scope: Scope
    notes: Notes
    principal: Principal | None = None
    verdict: Verdict | None = None
    rate: Rate | None = None
    address: str = ""
    is_coalesced: bool = False
    """Refused like the one before it: one row is enough."""
    at: datetime = field(default_factory=lambda: datetime.now(UTC))


class Door:
    """`is_public`: paths of pages that anybody may load."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        authenticator: Authenticator,
        limits: Limits,
        trail: Trail,
        is_public: Callable[[str], bool],
    ) -> None:
        self._app = app
        self._authenticator = authenticator
        self._body_bytes = limits.body_bytes
        self._requests = Limiter(limits.requests)
        self._writes = Limiter(limits.writes)
        self._strangers = Limiter(limits.strangers)
        self._refused = Limiter(Rate(1, 60))
        self._trail = trail
        self._is_public = is_public

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await self._socket(scope, receive, send)
        elif scope["type"] != "http" or self._is_free(scope):
            await self._app(scope, receive, send)
        else:
            await self._answer(scope, receive, send)

    def _is_free(self, scope: Scope) -> bool:
        path: str = scope["path"]
        if path in HEALTH or path.startswith(INTERNAL):
            return True
        return scope["method"] in READING and self._is_public(path)

    async def _socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Browsers cannot send the header: whoever is nobody here may show a token to the route."""
        principal = None
        with suppress(FlowerbedError):
            principal = await self._authenticator.authenticate(
                Headers(scope=scope).get("authorization")
            )
        scope.setdefault("state", {})["principal"] = principal
        with acting_as(principal):
            await self._app(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        visit = Visit(scope, Notes(is_write=scope["method"] not in READING))
        visit.address = (scope.get("client") or ("",))[0]
        answer = _Answer(visit, send, self._trail)
        try:
            visit.principal = await self._admit(visit)
            receive = await self._whole_body(scope, receive)
        except _Refused as refused:
            await refused.response(scope, receive, answer.send)
            return
        except FlowerbedError as error:
            await problem_of(error)(scope, receive, answer.send)
            return
        scope.setdefault("state", {})["principal"] = visit.principal
        with ExitStack() as stack:
            stack.enter_context(acting_as(visit.principal))
            stack.enter_context(noting(visit.notes))
            try:
                await self._app(scope, receive, answer.send)
            finally:
                await answer.finish()

    # --- who, how often ---------------------------------------------------------------------

    async def _admit(self, visit: Visit) -> Principal:
        authorization = Headers(scope=visit.scope).get("authorization")
        try:
            principal = await self._authenticator.authenticate(authorization)
        except FlowerbedError:
            self._count(visit, self._strangers, visit.address)
            raise
        self._count(visit, self._requests, principal.actor, principal)
        if visit.notes.is_write:
            self._count(visit, self._writes, principal.actor, principal)
        if _has_nul(visit.scope):
            visit.principal = principal
            detail = "the address holds a NUL character, which nothing here is called by"
            raise _Refused(problem(400, "nul-character", detail))
        return principal

    def _count(
        self, visit: Visit, limiter: Limiter, name: str, principal: Principal | None = None
    ) -> None:
        verdict = visit.verdict = limiter.take(name)
        visit.rate = limiter.rate
        if verdict.is_allowed:
            return
        visit.principal = principal
        visit.is_coalesced = not self._refused.take(name).is_allowed
        seconds = max(1, round(verdict.retry_after + 0.5))
        who = f"{name} asks" if principal else f"{name} asks without a token that is known"
        rate = f"{limiter.rate.count} requests in {limiter.rate.seconds:g} s"
        detail = f"{who} too often: at most {rate}; ask again in {seconds} s"
        headers = {"Retry-After": str(seconds)}
        raise _Refused(problem(429, "too-many-requests", detail, headers=headers))

    # --- how much ---------------------------------------------------------------------------

    async def _whole_body(self, scope: Scope, receive: Receive) -> Receive:
        headers = Headers(scope=scope)
        length = headers.get("content-length", "")
        if not length and "transfer-encoding" not in headers:
            return receive
        is_larger = length.isdecimal() and int(length) > self._body_bytes
        received, size, more = bytearray(), 0, True
        while more and size <= MOST_LET_GO:
            message = await receive()
            if message["type"] == "http.disconnect":
                return _replayed([message], receive)
            part, more = message.get("body", b""), message.get("more_body", False)
            size += len(part)
            is_larger = is_larger or size > self._body_bytes
            received = bytearray() if is_larger else received + part
        if is_larger:
            raise self._too_large()
        whole: Message = {"type": "http.request", "body": bytes(received), "more_body": False}
        return _replayed([whole], receive)

    def _too_large(self) -> "_Refused":
        return _Refused(
            problem(
                413, "body-too-large", f"a request has at most {self._body_bytes} bytes",
                headers={"Connection": "close"},
            )
        )  # fmt: skip


class _Refused(Exception):
    """Answered at the door."""

    def __init__(self, response: Response) -> None:
        self.response = response


class _Answer:
    """Sends the answer on, with what the caller has left; a command's is held until its row of the
    audit trail is written."""

    def __init__(self, visit: Visit, send: Send, trail: Trail) -> None:
        self._visit = visit
        self._send = send
        self._trail = trail
        self._started: Message | None = None
        self._is_kept = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._with_limits(message)
            if self._visit.notes.is_write:
                self._started = message
                return
        elif self._started is not None:
            started, self._started = self._started, None
            await self._keep(int(started["status"]), _code(started, message))
            await self._send(started)
        await self._send(message)

    async def finish(self) -> None:
        """An answer that never came has a row too."""
        if self._visit.notes.is_write and not self._is_kept:
            await self._keep(500, "no-answer")

    def _with_limits(self, message: Message) -> None:
        verdict, rate = self._visit.verdict, self._visit.rate
        if verdict is None or rate is None:
            return
        headers = MutableHeaders(raw=message["headers"])
        headers["RateLimit-Policy"] = f'"default";q={rate.count};w={rate.seconds:.0f}'
        wait = f";t={max(1, round(verdict.retry_after + 0.5))}" if not verdict.is_allowed else ""
        headers["RateLimit"] = f'"default";r={verdict.remaining}{wait}'
        message["headers"] = headers.raw

    async def _keep(self, status: int, code: str) -> None:
        self._is_kept = True
        visit, notes = self._visit, self._visit.notes
        if visit.is_coalesced:
            return
        principal, role = visit.principal, notes.role
        await self._trail.add(
            Entry(
                at=visit.at,
                actor=principal.actor if principal else "",
                issuer=principal.issuer if principal else "",
                role=str(role) if role else "",
                tenant=notes.tenant or "",
                address=storable(visit.address, 64),
                method=storable(visit.scope["method"], 16),
                path=storable(visit.scope["path"]),
                action=storable(notes.action or _route(visit.scope), 128),
                status=status,
                code=storable(code or notes.code or "", 64),
                federation_id=_federation(visit),
            )
        )


def _federation(visit: Visit) -> str | None:
    """As it was noted, or as the path names it."""
    named = visit.notes.federation_id or visit.scope.get("path_params", {}).get("federation_id")
    return storable(str(named), 64) if named else None


def _route(scope: Scope) -> str:
    """The name of the route's function; nothing where there was no route."""
    return str(getattr(scope.get("endpoint"), "__name__", ""))


def _code(started: Message, message: Message) -> str:
    """Of a problem document."""
    if int(started["status"]) < HTTPStatus.BAD_REQUEST:
        return ""
    try:
        content: Any = json.loads(message.get("body", b""))
    except ValueError:
        return ""
    return str(content.get("code", "")) if isinstance(content, dict) else ""


def _has_nul(scope: Scope) -> bool:
    return "\0" in scope["path"] or b"%00" in scope.get("query_string", b"")


def _replayed(messages: Sequence[Message], receive: Receive) -> Receive:
    """What was read, and then whatever comes."""
    waiting = list(messages)

    async def again() -> Message:
        return waiting.pop(0) if waiting else await receive()

    return again
