"""deadlines: when each open federation has to be looked at, whatever else happens."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from flowerbed.contracts.federation import (
    FederationCancelled,
    FederationCompleted,
    FederationCreated,
    FederationFailed,
    FederationPaused,
    FederationResumed,
)
from flowerbed.contracts.round import ExchangeStarted, RoundCompleted, RoundFailed
from flowerbed.events.connection import Connection
from flowerbed.events.projection import Projection
from flowerbed.events.store import Recorded
from flowerbed.orchestrator.decider import AGGREGATOR_GRACE


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    federation_id: str
    tenant: str


async def apply(tx: Connection, recorded: Recorded[Any]) -> None:
    match recorded.event:
        case FederationCreated() as created:
            await _look_again(tx, recorded, created.join_deadline_at)
        case ExchangeStarted() as exchange:
            await _look_again(tx, recorded, exchange.deadline_at + AGGREGATOR_GRACE)
        case RoundCompleted() | RoundFailed() as ended if ended.waits_until is not None:
            await _look_again(tx, recorded, ended.waits_until)
        case FederationPaused() as paused if paused.is_between_rounds:
            await _look_again(tx, recorded, paused.expires_at)
        case FederationResumed() as resumed if resumed.waits_until is not None:
            await _look_again(tx, recorded, resumed.waits_until)
        case FederationCompleted() | FederationFailed() | FederationCancelled() as over:
            await tx.execute("DELETE FROM deadlines WHERE federation_id = $1", over.federation_id)
        case _:
            pass  # refused, or in an exchange whose own deadline stands


async def _look_again(tx: Connection, recorded: Recorded[Any], at: datetime) -> None:
    await tx.execute(
        "INSERT INTO deadlines (federation_id, tenant, due_at) VALUES ($1, $2, $3)"
        " ON CONFLICT (federation_id) DO UPDATE SET due_at = EXCLUDED.due_at",
        recorded.event.federation_id,
        recorded.context.tenant,
        at,
    )


deadlines = Projection("deadlines", ("deadlines",), apply)


async def next_due_at(reader: Connection) -> datetime | None:
    due_at: datetime | None = await reader.fetchval("SELECT min(due_at) FROM deadlines")
    return due_at


async def due(reader: Connection, at: datetime) -> list[Due]:
    """Over all tenants, the oldest first."""
    rows = await reader.fetch(
        "SELECT federation_id, tenant FROM deadlines WHERE due_at <= $1 ORDER BY due_at", at
    )
    return [Due(federation_id=row["federation_id"], tenant=row["tenant"]) for row in rows]
