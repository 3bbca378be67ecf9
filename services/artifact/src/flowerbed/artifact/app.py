"""The artifact service's HTTP routes, for other services only."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Path
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from flowerbed.artifact.decider import (
    LineageCommand,
    PromoteArtifact,
    RevokeArtifact,
    lineage,
    stream_of,
)
from flowerbed.artifact.projections import verifications
from flowerbed.artifact.projections.artifacts import ArtifactView, list_artifacts
from flowerbed.artifact.verifier import Verifier
from flowerbed.contracts.values import Token, Words
from flowerbed.events.commands import handle
from flowerbed.events.context import Context
from flowerbed.events.http import Actor, internal_only

Digest = Annotated[str, Path(pattern=r"^[0-9a-f]{64}$")]


class Command(BaseModel):
    """Which federation's artifact is meant, and whose federation it is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tenant: Token
    federation_id: Token


class Promotion(Command):
    channel: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")] = "stable"


class Revocation(Command):
    reason: Annotated[Words, Field(max_length=1024)] = ""


class Done(BaseModel):
    """`events`: the types of what was recorded; none where it was so already."""

    events: list[str]


def routes(verifier: Verifier, token: SecretStr) -> APIRouter:
    router = APIRouter(prefix="/internal", dependencies=[Depends(internal_only(token))])
    database, store = verifier.database, verifier.store

    async def run(asked: Command, command: LineageCommand, actor: str | None) -> Done:
        context = Context(tenant=asked.tenant, correlation_id=asked.federation_id, actor=actor)
        stream = stream_of(asked.federation_id)
        recorded = await handle(database, store, lineage, stream, command, context)
        return Done(events=[one.type for one in recorded])

    @router.get("/artifacts")
    async def artifacts(federation_id: str) -> list[ArtifactView]:
        return await list_artifacts(database, federation_id)

    @router.post("/artifacts/{sha256}/promote")
    async def promote(sha256: Digest, asked: Promotion, actor: Actor = None) -> Done:
        """Make it the current one of a channel."""
        command = PromoteArtifact(
            federation_id=asked.federation_id, sha256=sha256, channel=asked.channel
        )
        return await run(asked, command, actor)

    @router.post("/artifacts/{sha256}/revoke")
    async def revoke(sha256: Digest, asked: Revocation, actor: Actor = None) -> Done:
        command = RevokeArtifact(
            federation_id=asked.federation_id, sha256=sha256, reason=asked.reason
        )
        return await run(asked, command, actor)

    @router.post("/verifications/{event_id}/retry", status_code=202)
    async def retry(event_id: UUID) -> None:
        """Read back once more what was refused."""
        verifier.wake(await verifications.retry(database, event_id))

    return router
