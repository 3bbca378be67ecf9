"""`GET /federations/{id}/logs`: what ClientApps wrote at their sites; the lease service has it.

`GET /federations/{id}/server-logs`: what a whole ServerApp wrote; the aggregator has it.
"""

from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Query, Response

from flowerbed.gateway.auth import VIEWER, Tenant
from flowerbed.gateway.reads import Reads
from flowerbed.gateway.upstream import Upstream
from flowerbed.gateway.views import ClientLogs, ServerLogs


def log_routes(reads: Reads, upstreams: dict[str, Upstream]) -> APIRouter:
    router = APIRouter(dependencies=[VIEWER])

    @router.get("/federations/{federation_id}/logs", response_model=ClientLogs)
    async def logs(
        federation_id: str,
        client: Annotated[str | None, Query(max_length=200)] = None,
        after: Annotated[int, Query(ge=0, lt=2**63)] = 0,
        tail: Annotated[int | None, Query(ge=0, le=2000)] = None,
        tenant: Tenant = None,
    ) -> Response:
        """Log lines of the federation's clients, or of those whose id or label is `client`.

        Ask again with `after=next_after`. `tail`: only the last so many.
        """
        owner = await reads.tenant_of_federation(tenant, federation_id)
        asked = {"tenant": owner, "after": after, "client": client, "tail": tail}
        params = {name: str(value) for name, value in asked.items() if value is not None}
        path = f"/internal/federations/{quote(federation_id, safe='')}/logs"
        return await upstreams["lease"].forward("GET", path, params=params)

    @router.get("/federations/{federation_id}/server-logs", response_model=ServerLogs)
    async def server_logs(
        federation_id: str,
        after: Annotated[int, Query(ge=0, lt=2**63)] = 0,
        tail: Annotated[int | None, Query(ge=0, le=2000)] = None,
        tenant: Tenant = None,
    ) -> Response:
        """Log lines of the federation's ServerApp, where the whole of it runs.

        Ask again with `after=next_after`. `tail`: only the last so many.
        """
        owner = await reads.tenant_of_federation(tenant, federation_id)
        asked = {"tenant": owner, "after": after, "tail": tail}
        params = {name: str(value) for name, value in asked.items() if value is not None}
        path = f"/internal/federations/{quote(federation_id, safe='')}/logs"
        return await upstreams["aggregator"].forward("GET", path, params=params)

    return router
