"""What ClientApps wrote at the sites: taken from a lease's own client, kept for a while, read.

    line ── own lease, its epoch? ──> kept, once ──> the newest of each lease ──> read by position

Best effort on both sides: no event, and nothing waits for it.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pydantic import BaseModel

from flowerbed.contracts.door import LogBatch
from flowerbed.events.database import Connection, Database
from flowerbed.events.errors import NotFound
from flowerbed.lease import federations
from flowerbed.lease.leases import LeaseLost
from flowerbed.lease.owning import own_lease
from flowerbed.lease.pki import Peer

LINES_KEPT = 2_000
"""The newest of each lease."""
KEPT = timedelta(days=7)
FORGET_EVERY = 600.0
LAST_WORDS = timedelta(minutes=1)
"""How long after a lease has ended its last lines may still come."""


class LogLineRead(BaseModel):
    position: int
    client_id: str
    label: str | None
    at: datetime
    kind: str
    text: str


class LogClient(BaseModel):
    """`keeps_lines`: the site does not hand them out."""

    client_id: str
    label: str | None
    keeps_lines: bool


class LogLines(BaseModel):
    """Ask again with `after=next_after`; nothing more comes once it is not `is_open`."""

    federation_id: str
    lines: list[LogLineRead]
    next_after: int
    is_open: bool
    clients: list[LogClient]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """`tail`: the last so many, instead of what comes first after a position."""

    federation_id: str
    client: str | None = None
    after: int = 0
    limit: int = 500
    tail: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LogShelf:
    database: Database
    now: Callable[[], datetime]

    async def take(self, peer: Peer, lease_key: str, batch: LogBatch) -> None:
        """Keep the lines that are new.

        Raises:
            LeaseLost: the lease is at another epoch, or has ended a while ago.
        """
        async with self.database.transaction(peer.tenant) as tx:
            lease = await own_lease(tx, peer, lease_key)
            is_over = lease.status != "held" and self.now() - lease.since > LAST_WORDS
            if lease.epoch != batch.epoch or is_over:
                raise LeaseLost(f"epoch {batch.epoch} has no more to say ({lease.status})")
            # One batch of a federation at a time: positions are seen in their order.
            await tx.execute(
                "SELECT pg_advisory_xact_lock(hashtextextended('log_lines.' || $1, 0))",
                lease.federation_id,
            )
            owner = (peer.tenant, lease.federation_id, peer.client_id, lease_key, batch.run)
            await tx.executemany(
                "INSERT INTO log_lines (tenant, federation_id, client_id, lease_id, run, number,"
                " at, kind, text) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)"
                " ON CONFLICT DO NOTHING",
                [(*owner, line.number, line.at, line.kind, line.text) for line in batch.lines],
            )
            await tx.execute(
                "DELETE FROM log_lines WHERE lease_id = $1 AND position <= (SELECT position"
                " FROM log_lines WHERE lease_id = $1 ORDER BY position DESC OFFSET $2 LIMIT 1)",
                lease_key,
                LINES_KEPT,
            )

    async def read(self, tenant: str, wanted: Wanted) -> LogLines:
        """Raises: NotFound: no client of the federation is called so."""
        async with self.database.transaction(tenant) as tx:
            clients = _meant(wanted, await _clients(tx, wanted.federation_id))
            rows = await _lines(tx, wanted, [one.client_id for one in clients])
            is_open = await federations.find(tx, wanted.federation_id) is not None
        return LogLines(
            federation_id=wanted.federation_id,
            lines=[LogLineRead(**dict(row)) for row in rows],
            next_after=rows[-1]["position"] if rows else wanted.after,
            is_open=is_open,
            clients=clients,
        )


async def forget_old(database: Database, now: Callable[[], datetime]) -> None:
    """For ever: lines do not stay longer than they are of use."""
    while True:
        await forget_before(database, now() - KEPT)
        await asyncio.sleep(FORGET_EVERY)


async def forget_before(database: Database, moment: datetime) -> None:
    async with database.read_all() as reader:
        rows = await reader.fetch("SELECT DISTINCT tenant FROM log_lines WHERE at < $1", moment)
    for row in rows:
        async with database.transaction(row["tenant"]) as tx:
            await tx.execute("DELETE FROM log_lines WHERE at < $1", moment)


# --- rows -------------------------------------------------------------------


async def _clients(tx: Connection, federation_id: str) -> list[LogClient]:
    rows = await tx.fetch(
        "SELECT client_id, dataset_label AS label, coalesce((SELECT kind = 'kept' FROM log_lines g"
        " WHERE g.lease_id = l.lease_id ORDER BY position DESC LIMIT 1), false) AS keeps_lines"
        " FROM leases l WHERE federation_id = $1 ORDER BY client_id",
        federation_id,
    )
    return [LogClient(**dict(row)) for row in rows]


def _meant(wanted: Wanted, clients: list[LogClient]) -> list[LogClient]:
    """Those whose id or label that is, or else begins so."""
    if wanted.client is None:
        return clients
    name = wanted.client
    found = [one for one in clients if name in (one.client_id, one.label)] or [
        one
        for one in clients
        if one.client_id.startswith(name) or (one.label or "").startswith(name)
    ]
    if not found:
        there = ", ".join(f"{one.client_id} ({one.label})" for one in clients[:20]) or "none"
        raise NotFound(f"no client {name!r} is in {wanted.federation_id}; there are: {there}")
    return found


async def _lines(tx: Connection, wanted: Wanted, client_ids: list[str]) -> list[Any]:
    query = (
        "SELECT g.position, g.client_id, l.dataset_label AS label, g.at, g.kind, g.text"
        " FROM log_lines g JOIN leases l USING (lease_id)"
        " WHERE g.federation_id = $1 AND g.client_id = ANY ($2) AND g.position > $3"
    )
    values = (wanted.federation_id, client_ids, wanted.after)
    if wanted.tail is None:
        rows = await tx.fetch(f"{query} ORDER BY g.position LIMIT $4", *values, wanted.limit)
        return list(rows)
    rows = await tx.fetch(f"{query} ORDER BY g.position DESC LIMIT $4", *values, wanted.tail)
    return list(reversed(rows))
