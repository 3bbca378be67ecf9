"""What people ask: federations, their rounds, history and lineage, clients, artifacts."""

from typing import Annotated, TypeAlias

from fastapi import APIRouter, Path, Query

from flowerbed.gateway.auth import VIEWER, Tenant
from flowerbed.gateway.paths import LARGEST_ROUND, FederationId
from flowerbed.gateway.reads import Reads
from flowerbed.gateway.sse import LARGEST_POSITION
from flowerbed.gateway.views import (
    ArtifactRecords,
    ClientList,
    Federation,
    FederationList,
    History,
    Lineage,
    RoundDetail,
    Status,
)

Cursor: TypeAlias = Annotated[
    str | None, Query(max_length=500, description="`next_cursor` of the page before.")
]
Limit: TypeAlias = Annotated[int, Query(ge=1, le=500)]
At: TypeAlias = Annotated[
    int | None,
    Query(ge=0, le=LARGEST_POSITION, description="As it was when this position had just come."),
]
Before: TypeAlias = Annotated[
    int | None,
    Query(ge=0, le=LARGEST_POSITION, description="The newest before this position, in order."),
]
Digest: TypeAlias = Annotated[str, Path(pattern=r"^[0-9a-f]{64}$")]


def status_routes(reads: Reads) -> APIRouter:
    router = APIRouter(dependencies=[VIEWER])

    @router.get("/federations")
    async def federations(
        tenant: Tenant = None,
        status: Status | None = None,
        name: Annotated[str | None, Query(max_length=200)] = None,
        cursor: Cursor = None,
        limit: Limit = 50,
    ) -> FederationList:
        """Newest first."""
        return await reads.federations(tenant, status=status, name=name, cursor=cursor, limit=limit)

    @router.get("/federations/{federation_id}")
    async def federation(
        federation_id: FederationId, tenant: Tenant = None, at: At = None
    ) -> Federation:
        """Where it stands, what it waits for, and everything it has made."""
        then = await reads.at(tenant, federation_id, at)
        return await then.federation(tenant, federation_id)

    @router.get("/federations/{federation_id}/rounds/{number}")
    async def a_round(
        federation_id: FederationId,
        number: Annotated[int, Path(ge=1, le=LARGEST_ROUND)],
        tenant: Tenant = None,
        at: At = None,
    ) -> RoundDetail:
        """Every attempt of one round, with each client's answer."""
        then = await reads.at(tenant, federation_id, at)
        return await then.round(tenant, federation_id, number)

    @router.get("/federations/{federation_id}/events")
    async def history(
        federation_id: FederationId,
        after: Annotated[int, Query(ge=0, le=LARGEST_POSITION)] = 0,
        limit: Annotated[int, Query(ge=1, le=1000)] = 200,
        tenant: Tenant = None,
        before: Before = None,
    ) -> History:
        """Every service's events about it, oldest first; ask again with `after=next_after`."""
        return await reads.history(tenant, federation_id, after=after, limit=limit, before=before)

    @router.get("/federations/{federation_id}/lineage")
    async def lineage(federation_id: FederationId, tenant: Tenant = None, at: At = None) -> Lineage:
        """From the base checkpoint to the newest, with the updates folded into each."""
        then = await reads.at(tenant, federation_id, at)
        return await then.lineage(tenant, federation_id)

    @router.get("/clients")
    async def clients(
        tenant: Tenant = None, cursor: Cursor = None, limit: Limit = 100
    ) -> ClientList:
        return await reads.clients(tenant, cursor=cursor, limit=limit)

    @router.get("/artifacts/{sha256}")
    async def artifact(sha256: Digest, tenant: Tenant = None) -> ArtifactRecords:
        return await reads.artifact(tenant, sha256)

    return router
