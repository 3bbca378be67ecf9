"""A request on its way through the door: what is known of it, and how its answer goes out."""

import json
import math
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

from starlette.types import Message, Scope, Send

from flowerbed.gateway.noting import Notes
from flowerbed.gateway.principal import Principal
from flowerbed.gateway.rates import Rate, Verdict
from flowerbed.gateway.trail import Entry, Trail, storable


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


class Answer:
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
        policy = f'"default";q={rate.count};w={rate.seconds:.0f}'
        wait = f";t={seconds_until(verdict)}" if not verdict.is_allowed else ""
        message["headers"] = [
            *message["headers"],
            (b"ratelimit-policy", policy.encode()),
            (b"ratelimit", f'"default";r={verdict.remaining}{wait}'.encode()),
        ]

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


def seconds_until(verdict: Verdict) -> int:
    """Until one more may be asked, as `Retry-After` says it."""
    return max(1, math.ceil(verdict.retry_after))


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
