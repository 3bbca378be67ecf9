"""Commands that the gateway forwards. Internal token only."""

from collections.abc import Callable

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, SecretStr

from flowerbed.contracts.values import Token, Words
from flowerbed.events.context import Context
from flowerbed.events.database import Database
from flowerbed.events.http import internal_only
from flowerbed.orchestrator.commanding import Federations, Situation
from flowerbed.orchestrator.state import (
    CancelFederation,
    Command,
    PauseFederation,
    ResumeFederation,
)


class FederationCommand(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    tenant: Token
    reason: Words = ""
    actor: str | None = None


class Answer(BaseModel):
    """`events`: the types of what was recorded; empty where the command changed nothing."""

    federation_id: str
    events: list[str]


def internal_routes(token: SecretStr, database: Database, federations: Federations) -> APIRouter:
    router = APIRouter(prefix="/internal/federations", dependencies=[Depends(internal_only(token))])

    async def give(
        federation_id: str, request: FederationCommand, make: Callable[[Situation], Command]
    ) -> Answer:
        context = Context(tenant=request.tenant, correlation_id=federation_id, actor=request.actor)
        recorded = await federations.handle(database, federation_id, make, context)
        return Answer(federation_id=federation_id, events=[one.type for one in recorded])

    @router.post("/{federation_id}/pause")
    async def pause(federation_id: str, request: FederationCommand) -> Answer:
        def make(now: Situation) -> Command:
            return PauseFederation(reason=request.reason, at=now.at)

        return await give(federation_id, request, make)

    @router.post("/{federation_id}/resume")
    async def resume(federation_id: str, request: FederationCommand) -> Answer:
        def make(now: Situation) -> Command:
            return ResumeFederation(base=now.base, pool=now.pool, at=now.at)

        return await give(federation_id, request, make)

    @router.post("/{federation_id}/cancel")
    async def cancel(federation_id: str, request: FederationCommand) -> Answer:
        def make(now: Situation) -> Command:
            return CancelFederation(reason=request.reason)

        return await give(federation_id, request, make)

    return router
