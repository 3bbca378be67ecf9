"""Push a Flower app of one's own, and see which there are."""

from typing import Any

from fastapi import APIRouter, Request, Response

from flowerbed.contracts.apps import AppPushed
from flowerbed.gateway.apps import AppList, Apps
from flowerbed.gateway.auth import OPERATOR, VIEWER, Role, Tenant, acting
from flowerbed.gateway.noting import note
from flowerbed.gateway.status_routes import Cursor, Digest, Limit
from flowerbed.gateway.upstream import LONG_PATIENCE, Upstream

_BUNDLE: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "A Flower App Bundle (FAB), at most 10 MiB.",
        "content": {"application/zip": {"schema": {"type": "string", "format": "binary"}}},
    }
}


def app_routes(apps: Apps, artifact: Upstream) -> APIRouter:
    router = APIRouter()

    @router.post("/apps", dependencies=[OPERATOR], response_model=AppPushed, openapi_extra=_BUNDLE)
    async def push_app(request: Request, tenant: Tenant = None) -> Response:
        """Store a bundle for a tenant, `default` if none is meant; the same bytes are one app."""
        owner = tenant or "default"
        acting().require(Role.operator, owner)
        note(tenant=owner, role=acting().role_in(owner))
        return await artifact.forward(
            "POST", "/internal/apps", content=await request.body(), params={"tenant": owner},
            patience=LONG_PATIENCE,
        )  # fmt: skip

    @router.get("/apps", dependencies=[VIEWER])
    async def list_apps(
        tenant: Tenant = None, cursor: Cursor = None, limit: Limit = 100
    ) -> AppList:
        """Newest first."""
        return await apps.listed(tenant, cursor=cursor, limit=limit)

    @router.get("/apps/{sha256}", dependencies=[VIEWER])
    async def app(sha256: Digest, tenant: Tenant = None) -> AppList:
        """Who pushed these bytes, in each tenant that you see."""
        return await apps.shown(tenant, sha256)

    return router
