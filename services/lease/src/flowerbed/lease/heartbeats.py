"""Signs of life. They are overwritten, not recorded: only silence becomes an event."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from flowerbed.events.database import Connection
from flowerbed.lease.projections.leases import Lease

SHORTEST, LONGEST = 5.0, 30.0
FRESH = timedelta(seconds=1)
"""A sign of life this young need not be written again: a fast round gives several a second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Silent:
    lease_id: str
    tenant: str
    federation_id: str
    client_id: str
    epoch: int
    seen_at: datetime


def interval(ttl_seconds: int) -> float:
    """How often to beat, in seconds: six times in a ttl, so that several may be lost."""
    return min(LONGEST, max(SHORTEST, ttl_seconds / 6))


def expires_at(seen_at: datetime, ttl_seconds: int) -> datetime:
    return seen_at + timedelta(seconds=ttl_seconds)


async def beat(tx: Connection, tenant: str, lease: Lease, at: datetime) -> None:
    """`lease`: with the sign of life that it gave before."""
    if lease.seen_at is not None and at - lease.seen_at < FRESH:
        return
    await tx.execute(
        "INSERT INTO heartbeats (lease_id, tenant, seen_at) VALUES ($1, $2, $3)"
        " ON CONFLICT (lease_id) DO UPDATE SET"
        " seen_at = greatest(heartbeats.seen_at, EXCLUDED.seen_at)",
        lease.lease_id,
        tenant,
        at,
    )


async def beat_all(
    tx: Connection, federation_id: str, clients: Sequence[str], at: datetime
) -> list[str]:
    """A sign of life of each client that holds a lease in the federation: those."""
    rows = await tx.fetch(
        "WITH held AS (SELECT lease_id, tenant, client_id FROM leases"
        " WHERE federation_id = $1 AND client_id = ANY ($2) AND status = 'held'),"
        " beaten AS (INSERT INTO heartbeats (lease_id, tenant, seen_at)"
        " SELECT lease_id, tenant, $3 FROM held ON CONFLICT (lease_id) DO UPDATE SET"
        " seen_at = greatest(heartbeats.seen_at, EXCLUDED.seen_at))"
        " SELECT client_id FROM held ORDER BY client_id",
        federation_id,
        list(clients),
        at,
    )
    return [row["client_id"] for row in rows]


async def silent(reader: Connection, at: datetime, awake_since: datetime) -> list[Silent]:
    """Held leases whose client was not heard for a ttl, counted from `awake_since` at the earliest:
    while the door was shut, nobody could knock."""
    rows = await reader.fetch(
        "SELECT l.lease_id, l.tenant, l.federation_id, l.client_id, l.epoch, h.seen_at"
        " FROM leases l JOIN heartbeats h USING (lease_id)"
        " WHERE l.status = 'held'"
        " AND greatest(h.seen_at, $2) + make_interval(secs => l.ttl_seconds) <= $1",
        at,
        awake_since,
    )
    return [Silent(**dict(row)) for row in rows]
