"""The bridge's HTTP routes, for other services only."""

from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from flowerbed.aggregator.bridge import Bridge
from flowerbed.aggregator.verify import Verification, verify
from flowerbed.events.http import internal_only


class VerifyRequest(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    federation_id: str
    tenant: str | None = None
    round_number: Annotated[int, Field(ge=0)]


def routes(bridge: Bridge, token: SecretStr) -> APIRouter:
    router = APIRouter(dependencies=[Depends(internal_only(token))])

    @router.post("/verify")
    async def verify_round(request: VerifyRequest) -> Verification:
        return await verify(bridge, request.federation_id, request.round_number, request.tenant)

    return router
