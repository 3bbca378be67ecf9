"""What people ask: federations, their rounds, history and lineage, clients, artifacts."""

from typing import Annotated, TypeAlias

from fastapi import APIRouter, Path, Query

from flowerbed.gateway.auth import Tenant
from flowerbed.gateway.reads import Reads
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

Cursor: TypeAlias = Annotated[str | None, Query(description="`next_cursor` of the page before.")]
Limit: TypeAlias = Annotated[int, Query(ge=1, le=500)]
Digest: TypeAlias = Annotated[str, Path(pattern=r"^[0-9a-f]{64}$")]


def status_routes(reads: Reads) -> APIRouter:
    router = APIRouter()

    @router.get("/federations")
    async def federations(
        tenant: Tenant = None,
        status: Status | None = None,
        name: str | None = None,
        cursor: Cursor = None,
        limit: Limit = 50,
    ) -> FederationList:
        """Newest first."""
        return await reads.federations(tenant, status=status, name=name, cursor=cursor, limit=limit)

    @router.get("/federations/{federation_id}")
    async def federation(federation_id: str, tenant: Tenant = None) -> Federation:
        """Where it stands, what it waits for, and everything it has made."""
        return await reads.federation(tenant, federation_id)

    @router.get("/federations/{federation_id}/rounds/{number}")
    async def a_round(
        federation_id: str, number: Annotated[int, Path(ge=1)], tenant: Tenant = None
    ) -> RoundDetail:
        """Every attempt of one round, with each client's answer."""
        return await reads.round(tenant, federation_id, number)

    @router.get("/federations/{federation_id}/events")
    async def history(
        federation_id: str,
        after: Annotated[int, Query(ge=0)] = 0,
        limit: Annotated[int, Query(ge=1, le=1000)] = 200,
        tenant: Tenant = None,
    ) -> History:
        """Every service's events about it, oldest first; ask again with `after=next_after`."""
        return await reads.history(tenant, federation_id, after=after, limit=limit)

    @router.get("/federations/{federation_id}/lineage")
    async def lineage(federation_id: str, tenant: Tenant = None) -> Lineage:
        """From the base checkpoint to the newest, with the updates folded into each."""
        return await reads.lineage(tenant, federation_id)

    @router.get("/clients")
    async def clients(
        tenant: Tenant = None, cursor: Cursor = None, limit: Limit = 100
    ) -> ClientList:
        return await reads.clients(tenant, cursor=cursor, limit=limit)

    @router.get("/artifacts/{sha256}")
    async def artifact(sha256: Digest, tenant: Tenant = None) -> ArtifactRecords:
        return await reads.artifact(tenant, sha256)

    return router
