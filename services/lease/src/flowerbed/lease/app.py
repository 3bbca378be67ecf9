"""What other services ask: invites, revocation, log lines, work to relay. Internal token only."""

from datetime import datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from flowerbed.contracts.relay import (
    RelayAnswers,
    RelayBeats,
    RelayHeld,
    RelayMembers,
    RelayNodes,
    RelayPoll,
    RelayQuestion,
    RelayRefusals,
    RelayWork,
)
from flowerbed.contracts.spec import Tag
from flowerbed.contracts.values import Token, Words
from flowerbed.events.database import Database
from flowerbed.events.http import Actor, internal_only
from flowerbed.events.store import EventStore
from flowerbed.lease.enrolment import Enrolments
from flowerbed.lease.log_lines import LogLines, LogShelf, Wanted
from flowerbed.lease.relaying import Relaying
from flowerbed.lease.revocation import drop_leases


class InviteRequest(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    tenant: Token = "default"
    tags: tuple[Tag, ...] = ()
    ttl_seconds: Annotated[int, Field(ge=60, le=30 * 86_400)] = 86_400
    actor: str | None = None


class InviteAnswer(BaseModel):
    invite: str
    client_id: str
    expires_at: datetime


class RevokeRequest(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    tenant: Token
    reason: Words = ""
    actor: str | None = None


class Revoked(BaseModel):
    client_id: str
    status: str = "revoked"


def internal_routes(
    token: SecretStr, database: Database, store: EventStore, enrolments: Enrolments
) -> APIRouter:
    router = APIRouter(prefix="/internal", dependencies=[Depends(internal_only(token))])

    @router.post("/invites")
    async def invite(request: InviteRequest, actor: Actor = None) -> InviteAnswer:
        ttl, who = timedelta(seconds=request.ttl_seconds), actor or request.actor
        made, expires_at = await enrolments.invite(request.tenant, request.tags, ttl, who)
        return InviteAnswer(invite=made.encode(), client_id=made.client_id, expires_at=expires_at)

    @router.post("/clients/{client_id}/revoke")
    async def revoke(client_id: str, request: RevokeRequest, actor: Actor = None) -> Revoked:
        who = actor or request.actor
        await enrolments.revoke(request.tenant, client_id, request.reason, who)
        await drop_leases(database, store, request.tenant, client_id, who)
        return Revoked(client_id=client_id)

    return router


def log_routes(token: SecretStr, shelf: LogShelf) -> APIRouter:
    router = APIRouter(prefix="/internal", dependencies=[Depends(internal_only(token))])

    @router.get("/federations/{federation_id}/logs")
    async def logs(
        federation_id: str,
        tenant: Token,
        client: str | None = None,
        after: Annotated[int, Query(ge=0, lt=2**63)] = 0,
        tail: Annotated[int | None, Query(ge=0, le=2000)] = None,
    ) -> LogLines:
        wanted = Wanted(federation_id=federation_id, client=client, after=after, tail=tail)
        return await shelf.read(tenant, wanted)

    return router


def relay_routes(token: SecretStr, relaying: Relaying) -> APIRouter:
    router = APIRouter(
        prefix="/internal/relay/{federation_id}", dependencies=[Depends(internal_only(token))]
    )

    @router.post("/members")
    async def members(federation_id: Token, request: RelayMembers) -> RelayHeld:
        return await relaying.join(federation_id, request)

    @router.post("/beats")
    async def beats(federation_id: Token, request: RelayBeats) -> RelayHeld:
        return await relaying.beat(federation_id, request)

    @router.post("/work")
    async def work(federation_id: Token, request: RelayPoll) -> RelayWork:
        return await relaying.work(federation_id, request)

    @router.post("/nodes")
    async def nodes(federation_id: Token, request: RelayQuestion) -> RelayNodes:
        return await relaying.nodes(federation_id, request)

    @router.post("/answers")
    async def answers(federation_id: Token, request: RelayAnswers) -> RelayRefusals:
        return await relaying.answer(federation_id, request)

    return router
