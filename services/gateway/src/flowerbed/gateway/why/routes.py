"""`GET /federations/{id}/why`: the gateway's events, and the dead letters of every service."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter

from flowerbed.gateway.auth import VIEWER, Tenant
from flowerbed.gateway.dead_letter_routes import collect
from flowerbed.gateway.paths import FederationId
from flowerbed.gateway.reads import Reads
from flowerbed.gateway.status_routes import At
from flowerbed.gateway.upstream import Upstream
from flowerbed.gateway.why.facts import Letter
from flowerbed.gateway.why.view import Why

PATIENCE = 1.0
"""Seconds. A service that does not answer is itself part of the answer."""


def why_routes(reads: Reads, upstreams: dict[str, Upstream]) -> APIRouter:
    router = APIRouter(dependencies=[VIEWER])

    @router.get("/federations/{federation_id}/why")
    async def why(federation_id: FederationId, tenant: Tenant = None, at: At = None) -> Why:
        """What it waits for, on whom, since when, until when, what then, and the last error."""
        await reads.tenant_of_federation(tenant, federation_id)  # or nobody need be asked
        if at is not None:  # of dead letters only those of now are known
            then = await reads.at(tenant, federation_id, at)
            return await then.why(tenant, federation_id, datetime.now(UTC), (), ())
        found, away = await collect(upstreams, PATIENCE)
        now = datetime.now(UTC)
        return await reads.why(tenant, federation_id, now, letters(found, federation_id), away)

    return router


def letters(found: Sequence[Mapping[str, Any]], federation_id: str) -> tuple[Letter, ...]:
    """The first of each consumer's parked lane of this federation; the rest wait behind it."""
    lanes: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for one in found:
        if one["lane"] == federation_id:
            lanes.setdefault((one["service"], one["consumer"]), []).append(one)
    return tuple(
        Letter(
            service=service,
            consumer=consumer,
            event=_event(lane[0]),
            error=lane[0]["error"],
            parked_at=datetime.fromisoformat(lane[0]["parked_at"]),
            n_behind=len(lane) - 1,
        )
        for (service, consumer), lane in lanes.items()
    )


def _event(letter: Mapping[str, Any]) -> str:
    """Its type, out of its subject `fl.<entity>.<fact>.<tenant>.<federation>`."""
    event_type = ".".join(str(letter["subject"]).split(".")[:3])
    return f"{event_type} ({letter['stream']}@{letter['version']})"
