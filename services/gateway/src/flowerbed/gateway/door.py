"""In front of every route: who asks, how often, how much they send, and what is kept of it.

    health and pages ──────────────────────────────────────────> app
    everything else  ── token ── rate ── body ── app ── audit ──> answer

Plain ASGI, so that it costs little and streams stay streams. A body is read before the app sees
it: then a body that is too large has changed nothing, however it was sent.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flowerbed.contracts.bundle import LARGEST_BUNDLE
from flowerbed.events.errors import FlowerbedError
from flowerbed.events.http import problem, problem_of
from flowerbed.gateway.auth import Authenticator, Principal, acting_as
from flowerbed.gateway.noting import Notes, noting
from flowerbed.gateway.rates import Limiter, Rate
from flowerbed.gateway.trail import Trail
from flowerbed.gateway.visits import Answer, Visit, seconds_until

READING = frozenset(("GET", "HEAD", "OPTIONS", "TRACE"))
HEALTH = frozenset(("/healthz", "/readyz", "/metrics", "/status"))
INTERNAL = "/internal/"
"""These have a token of their own, which no person knows."""
LONGEST_BODY = 1024 * 1024
LARGER_BODIES = {("POST", "/apps"): LARGEST_BUNDLE}
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
            principal = await self._authenticator.authenticate(_header(scope, b"authorization"))
        scope.setdefault("state", {})["principal"] = principal
        with acting_as(principal):
            await self._app(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        visit = Visit(scope, Notes(is_write=scope["method"] not in READING))
        visit.address = (scope.get("client") or ("",))[0]
        answer = Answer(visit, send, self._trail)
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
        with acting_as(visit.principal), noting(visit.notes):
            try:
                await self._app(scope, receive, answer.send)
            finally:
                await answer.finish()

    # --- who, how often ---------------------------------------------------------------------

    async def _admit(self, visit: Visit) -> Principal:
        authorization = _header(visit.scope, b"authorization")
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
        seconds = seconds_until(verdict)
        who = f"{name} asks" if principal else f"{name} asks without a token that is known"
        rate = f"{limiter.rate.count} requests in {limiter.rate.seconds:g} s"
        detail = f"{who} too often: at most {rate}; ask again in {seconds} s"
        headers = {"Retry-After": str(seconds)}
        raise _Refused(problem(429, "too-many-requests", detail, headers=headers))

    # --- how much ---------------------------------------------------------------------------

    async def _whole_body(self, scope: Scope, receive: Receive) -> Receive:
        length = _header(scope, b"content-length") or ""
        if not length and _header(scope, b"transfer-encoding") is None:
            return receive
        largest = LARGER_BODIES.get((scope["method"], scope["path"]), self._body_bytes)
        is_larger = length.isdecimal() and int(length) > largest
        received, size, more = bytearray(), 0, True
        while more and size <= MOST_LET_GO:
            message = await receive()
            if message["type"] == "http.disconnect":
                return _replayed([message], receive)
            part, more = message.get("body", b""), message.get("more_body", False)
            size += len(part)
            is_larger = is_larger or size > largest
            received = bytearray() if is_larger else received + part
        if is_larger:
            raise _too_large(largest)
        whole: Message = {"type": "http.request", "body": bytes(received), "more_body": False}
        return _replayed([whole], receive)


class _Refused(Exception):
    """Answered at the door."""

    def __init__(self, response: Response) -> None:
        self.response = response


def _too_large(largest: int) -> _Refused:
    detail = f"a request has at most {largest} bytes"
    return _Refused(problem(413, "body-too-large", detail, headers={"Connection": "close"}))


def _header(scope: Scope, wanted: bytes) -> str | None:
    """Of each request a few are looked for; that is no reason to read them all."""
    found = next((value for name, value in scope["headers"] if name == wanted), None)
    return None if found is None else str(found.decode("latin-1"))


def _has_nul(scope: Scope) -> bool:
    return "\0" in scope["path"] or b"%00" in scope.get("query_string", b"")


def _replayed(messages: Sequence[Message], receive: Receive) -> Receive:
    """What was read, and then whatever comes."""
    waiting = list(messages)

    async def again() -> Message:
        return waiting.pop(0) if waiting else await receive()

    return again
