"""The bridge's HTTP routes, for other services only."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from flowerbed.aggregator.bridge import Bridge
from flowerbed.aggregator.flower_runs import Beats
from flowerbed.aggregator.server_lines import ServerLogs, read_lines
from flowerbed.aggregator.verify import Verification, verify
from flowerbed.contracts.values import Token
from flowerbed.events.http import internal_only


class VerifyRequest(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    federation_id: str
    tenant: str | None = None
    round_number: Annotated[int, Field(ge=0)]


class Beat(BaseModel):
    """Of a ServerApp, to say that it lives."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    attempt: Annotated[int, Field(ge=1)]


def routes(bridge: Bridge, token: SecretStr, beats: Beats) -> APIRouter:
    router = APIRouter(dependencies=[Depends(internal_only(token))])

    @router.post("/flower-runs/{federation_id}/beats", status_code=204)
    async def hear(federation_id: Token, beat: Beat) -> None:
        beats.hear(federation_id, beat.attempt)

    @router.post("/verify")
    async def verify_round(request: VerifyRequest) -> Verification:
        return await verify(bridge, request.federation_id, request.round_number, request.tenant)

    @router.get("/internal/federations/{federation_id}/logs")
    async def logs(
        federation_id: str,
        tenant: Token,
        after: Annotated[int, Query(ge=0, lt=2**63)] = 0,
        tail: Annotated[int | None, Query(ge=0, le=2000)] = None,
    ) -> ServerLogs:
        return await read_lines(bridge.database, tenant, federation_id, after, tail)

    return router
