"""How the services do, replica by replica, as they say it themselves; and whether they do it well.

The objectives are those of the indicators that a user feels: a site that is offered work gets to
do it, rounds end in time, and a checkpoint is there soon after it was made.
"""

import asyncio
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query

from flowerbed.events.errors import Unavailable
from flowerbed.gateway.auth import VIEWER, Tenant
from flowerbed.gateway.dead_letter_routes import collect
from flowerbed.gateway.slo import Slo, Slos
from flowerbed.gateway.upstream import Upstream
from flowerbed.gateway.views import View

PATIENCE = 2.0


class Replica(View):
    """`checks`: each dependency, `ok` or what is wrong. `lags`: events still to be handled."""

    replica: int
    status: Literal["ready", "not-ready", "away"]
    checks: dict[str, str] = {}
    failing: dict[str, str] = {}
    lags: dict[str, float] = {}
    detail: str = ""


class Service(View):
    """`dead_letters` is None where the service did not say."""

    name: str
    status: Literal["ready", "degraded", "away"]
    replicas: list[Replica]
    dead_letters: int | None


class ServiceList(View):
    services: list[Service]


def service_routes(upstreams: dict[str, Upstream], slos: Slos) -> APIRouter:
    router = APIRouter(dependencies=[VIEWER])

    @router.get("/services")
    async def services() -> ServiceList:
        """Each service and replica: ready or why not, lags, dead letters."""
        return ServiceList(services=await look_at(upstreams))

    @router.get("/slo")
    async def slo(
        tenant: Tenant = None, hours: Annotated[int, Query(ge=1, le=24 * 90)] = 24 * 28
    ) -> Slo:
        """Indicators, objectives and what is left of the error budgets, over the last `hours`."""
        return await slos.over(tenant, hours)

    return router


async def look_at(upstreams: dict[str, Upstream]) -> list[Service]:
    (found, away), *replicas = await asyncio.gather(
        collect(upstreams, PATIENCE), *(_replicas(one) for one in upstreams.values())
    )
    return [
        Service(
            name=name,
            status=_status(mine),
            replicas=mine,
            dead_letters=None
            if name in away
            else sum(1 for letter in found if letter["service"] == name),
        )
        for name, mine in zip(upstreams, replicas, strict=True)
    ]


async def _replicas(upstream: Upstream) -> list[Replica]:
    answers = await asyncio.gather(
        *(upstream.readiness(url, PATIENCE) for url in upstream.urls), return_exceptions=True
    )
    return [_replica(place, answer) for place, answer in enumerate(answers, 1)]


def _replica(place: int, answer: Any) -> Replica:
    if isinstance(answer, Unavailable):
        return Replica(replica=place, status="away", detail=str(answer))
    if isinstance(answer, BaseException):
        raise answer
    return Replica(
        replica=place,
        status="ready" if answer.get("ready") else "not-ready",
        checks=answer.get("checks", {}),
        failing=answer.get("failing", {}),
        lags=answer.get("lags", {}),
        detail="" if "ready" in answer else "it did not say whether it is ready",
    )


def _status(replicas: list[Replica]) -> Literal["ready", "degraded", "away"]:
    n_ready = sum(1 for one in replicas if one.status == "ready")
    if n_ready == len(replicas):
        return "ready"
    return "away" if all(one.status == "away" for one in replicas) else "degraded"
