"""deadlines: when each open federation has to be looked at, whatever else happens."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from flowerbed.contracts.federation import (
    FederationCancelled,
    FederationCompleted,
    FederationCreated,
    FederationFailed,
    FederationPaused,
    FederationPolicyChanged,
    FederationResumed,
)
from flowerbed.contracts.round import ExchangeStarted, RoundCompleted, RoundFailed
from flowerbed.contracts.server_app import ServerAppExtended, ServerAppStarted
from flowerbed.events.connection import Connection
from flowerbed.events.projection import Projection
from flowerbed.events.store import Recorded
from flowerbed.orchestrator.state import patience


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    federation_id: str
    tenant: str


def due_after(event: Any, waited: timedelta) -> datetime | None:
    """When to look at the federation after this fact; None where the last answer still holds.

    `waited`: how long after an exchange's deadline the aggregator is waited for.
    """
    match event:
        case FederationCreated():
            return event.join_deadline_at
        case ExchangeStarted():
            return event.deadline_at + waited
        case ServerAppStarted() | ServerAppExtended():
            return event.deadline_at + waited
        case RoundCompleted() | RoundFailed() | FederationResumed() | FederationPolicyChanged():
            return event.waits_until
        case FederationPaused() if event.is_between_rounds:
            return event.expires_at
        case _:
            return None  # refused, or in an exchange whose own deadline stands


async def apply(tx: Connection, recorded: Recorded[Any]) -> None:
    match recorded.event:
        case FederationCreated() as created:
            await tx.execute(
                "INSERT INTO deadlines (federation_id, tenant, due_at, patience)"
                " VALUES ($1, $2, $3, $4)",
                created.federation_id,
                recorded.context.tenant,
                created.join_deadline_at,
                patience(created.federation_spec.spec.round_policy),
            )
        case FederationCompleted() | FederationFailed() | FederationCancelled() as over:
            await tx.execute("DELETE FROM deadlines WHERE federation_id = $1", over.federation_id)
        case event:
            await _look_again(tx, event)


async def _look_again(tx: Connection, event: Any) -> None:
    if isinstance(event, FederationPolicyChanged):
        await tx.execute(
            "UPDATE deadlines SET patience = $2 WHERE federation_id = $1",
            event.federation_id,
            patience(event.round_policy),
        )
    waited: timedelta | None = await tx.fetchval(
        "SELECT patience FROM deadlines WHERE federation_id = $1", event.federation_id
    )
    if waited is not None and (due_at := due_after(event, waited)) is not None:
        await tx.execute(
            "UPDATE deadlines SET due_at = $2 WHERE federation_id = $1",
            event.federation_id,
            due_at,
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
