"""Apps of people's own over HTTP, for the gateway only."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from pydantic import SecretStr

from flowerbed.artifact.app import Digest
from flowerbed.artifact.app_shelf import AppShelf
from flowerbed.contracts.apps import AppPushed
from flowerbed.contracts.values import Token
from flowerbed.events.http import Actor, internal_only

Owner = Annotated[Token, Query()]


def app_routes(shelf: AppShelf, token: SecretStr) -> APIRouter:
    router = APIRouter(prefix="/internal", dependencies=[Depends(internal_only(token))])

    @router.post("/apps")
    async def push(request: Request, tenant: Owner, actor: Actor = None) -> AppPushed:
        """The body is the bundle."""
        return await shelf.push(tenant, await request.body(), actor)

    @router.get("/apps/{sha256}")
    async def pushed(sha256: Digest, tenant: Owner) -> AppPushed:
        return await shelf.find(tenant, sha256)

    return router
