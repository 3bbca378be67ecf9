"""/healthz, /readyz, /metrics, /status, and the door to the dead letters.

/healthz does no I/O. /readyz asks Postgres and NATS and is 503 when one is away.
"""

import asyncio
import time
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client import REGISTRY, Gauge
from prometheus_client.exposition import choose_encoder
from pydantic import BaseModel, ConfigDict

from flowerbed.events import dead_letters, metrics
from flowerbed.events.errors import FlowerbedError
from flowerbed.events.http import RETRY_AFTER, internal_only
from flowerbed.events.scraping import measure_all

if TYPE_CHECKING:
    from flowerbed.events.service import Check, Lag, Shell

PATIENCE = 3.0


class ReplayRequest(BaseModel):
    """`federation_id` may also be the stream of events that belong to no federation."""

    model_config = ConfigDict(extra="forbid")

    consumer: str
    federation_id: str


def health_routes(shell: "Shell") -> APIRouter:
    router = APIRouter()
    internal = Depends(internal_only(shell.settings.internal_token))

    @router.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "ok", "service": shell.service}

    @router.get("/readyz", responses={503: {"description": "Not ready; the checks say why."}})
    async def readyz() -> JSONResponse:
        report = await readiness(shell)
        if report["ready"]:
            return JSONResponse(report)
        return JSONResponse(report, status_code=503, headers={"Retry-After": RETRY_AFTER})

    @router.get("/metrics", response_class=PlainTextResponse)
    async def scrape(accept: Annotated[str, Header()] = "") -> Response:
        """OpenMetrics, with exemplars, for who asks for it."""
        await asyncio.gather(lags(shell), measure_all(shell))
        encode, content_type = choose_encoder(accept)
        return Response(encode(REGISTRY), media_type=content_type)

    @router.get("/status")
    async def status() -> dict[str, Any]:
        return await status_report(shell)

    @router.get("/internal/dead-letters", dependencies=[internal], include_in_schema=False)
    async def letters(
        consumer: str | None = None, limit: Annotated[int, Query(ge=1, le=1000)] = 100
    ) -> list[dict[str, Any]]:
        return await dead_letters.listed(shell.database, consumer, limit)

    @router.post("/internal/dead-letters/replay", dependencies=[internal], include_in_schema=False)
    async def replay(request: ReplayRequest) -> dict[str, int]:
        handled = await shell.replay(request.consumer, request.federation_id)
        return {"replayed": handled}

    return router


async def readiness(shell: "Shell") -> dict[str, Any]:
    """Each check's outcome, and the lags as far as they can be known."""
    checks = {"postgres": shell.ping_postgres, "nats": shell.ping_nats, **shell.checks}
    outcomes = await asyncio.gather(*(_outcome(check) for check in checks.values()))
    return {
        "ready": all(outcome == "ok" for outcome in outcomes) and not shell.failing,
        "checks": dict(zip(checks, outcomes, strict=True)),
        "failing": shell.failing,
        "lags": await lags(shell),
    }


async def status_report(shell: "Shell") -> dict[str, Any]:
    relay = shell.relaying
    report: dict[str, Any] = {
        "service": shell.service,
        "uptime_seconds": round(time.time() - shell.started_at, 1),
        "leads": shell.leadership.roles,
        "partitions": shell.leadership.partitions,
        "failing": shell.failing,
        "lags": await lags(shell),
        "relay": None
        if relay is None or relay.mark is None
        else {"mark": str(relay.mark), "sequence": relay.sequence},
        "consumers": {
            name: {"handled": one.handled, "waits_for": one.waits_for}
            for name, one in shell.intakes.items()
        },
    }
    for more in shell.statuses:
        report |= await more()
    return report


async def lags(shell: "Shell") -> dict[str, float]:
    """How far behind things are; what cannot be measured now is left out."""
    measures: dict[str, tuple[Lag, Gauge]] = {}
    if shell.relaying is not None:
        measures["outbox"] = shell.outbox_lag, metrics.outbox_lag.labels(shell.service)
    for name in shell.consumers:
        gauge = metrics.projection_lag.labels(shell.service, name)
        measures[name] = partial(shell.consumer_lag, name), gauge
    for name, measure in shell.lags.items():
        measures[name] = measure, metrics.named_lag.labels(shell.service, name)
    values = await asyncio.gather(*(_value(measure) for measure, _ in measures.values()))
    found = {}
    for (name, (_, gauge)), value in zip(measures.items(), values, strict=True):
        if value is not None:
            gauge.set(value)
            found[name] = value
    return found


async def _value(measure: "Lag") -> float | None:
    try:
        async with asyncio.timeout(PATIENCE):
            return await measure()
    except (TimeoutError, FlowerbedError):
        return None


async def _outcome(check: "Check") -> str:
    try:
        async with asyncio.timeout(PATIENCE):
            await check()
    except TimeoutError:
        return f"no answer within {PATIENCE:g} s"
    except Exception as error:  # whatever it is, it is the reason for not being ready
        return dead_letters.describe(error)
    return "ok"
