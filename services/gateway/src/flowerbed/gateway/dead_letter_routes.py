"""Events that some service could not handle, from all services, and a way to try them again."""

import asyncio
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict

from flowerbed.events.errors import Unavailable
from flowerbed.gateway.auth import ADMIN, Tenant
from flowerbed.gateway.upstream import PATIENCE, Upstream


class Replay(BaseModel):
    """Which ones to handle again; each that is left out means all."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    service: str | None = None
    consumer: str | None = None
    federation_id: str | None = None


def dead_letter_routes(upstreams: dict[str, Upstream]) -> APIRouter:
    router = APIRouter(prefix="/dead-letters", dependencies=[ADMIN])

    @router.get("")
    async def letters(tenant: Tenant = None) -> dict[str, Any]:
        """`unavailable` names services that did not answer: theirs are not known."""
        found, unavailable = await collect(upstreams)
        mine = [letter for letter in found if tenant is None or letter["tenant"] == tenant]
        return {"dead_letters": mine, "unavailable": unavailable}

    @router.post("/replay")
    async def replay(wanted: Replay, tenant: Tenant = None) -> dict[str, Any]:
        """Lane by lane, in order; the first that fails again ends its lane."""
        found, unavailable = await collect(upstreams)
        lanes = {
            (letter["service"], letter["consumer"], letter["lane"]): None
            for letter in found
            if (tenant is None or letter["tenant"] == tenant) and _is_wanted(letter, wanted)
        }
        lane_results = [await _replay(upstreams[lane[0]], *lane) for lane in lanes]
        return {"lanes": lane_results, "unavailable": unavailable}

    return router


async def collect(
    upstreams: dict[str, Upstream], patience: float = PATIENCE
) -> tuple[list[dict[str, Any]], list[str]]:
    """All dead letters, and the services that did not answer within `patience` seconds."""

    async def ask(upstream: Upstream) -> list[dict[str, Any]] | None:
        try:
            async with asyncio.timeout(patience):
                letters: list[dict[str, Any]] = await upstream.fetch(
                    "GET", "/internal/dead-letters", params={"limit": "1000"}
                )
        except (Unavailable, TimeoutError):
            return None
        return [{"service": upstream.name, **letter} for letter in letters]

    answers = await asyncio.gather(*(ask(upstream) for upstream in upstreams.values()))
    found = [letter for answer in answers if answer is not None for letter in answer]
    away = [name for name, answer in zip(upstreams, answers, strict=True) if answer is None]
    return found, away


def _is_wanted(letter: dict[str, Any], wanted: Replay) -> bool:
    return (
        wanted.service in (None, letter["service"])
        and wanted.consumer in (None, letter["consumer"])
        and wanted.federation_id in (None, letter["lane"])
    )


async def _replay(upstream: Upstream, service: str, consumer: str, lane: str) -> dict[str, Any]:
    body = {"consumer": consumer, "federation_id": lane}
    result: dict[str, Any] = {"service": service, "consumer": consumer, "lane": lane}
    try:
        answer = await upstream.fetch("POST", "/internal/dead-letters/replay", body=body)
    except Unavailable as error:
        return result | {"replayed": 0, "error": str(error)}
    return result | {"replayed": answer["replayed"], "error": ""}
