"""leases: one row per client and federation, with where its lease stands."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from flowerbed.contracts.client import (
    ClientDropped,
    ClientJoined,
    ClientLeaseIssued,
    ClientReleased,
)
from flowerbed.events.database import Connection
from flowerbed.events.projection import Projection
from flowerbed.events.store import Recorded


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """`status`: offered, held, dropped or released. `since`: of that status.

    `seen_at`: its last sign of life, where that was looked up.
    """

    lease_id: str
    federation_id: str
    client_id: str
    epoch: int
    status: str
    ttl_seconds: int
    dataset_label: str | None
    dataset_sha256: str | None
    since: datetime
    seen_at: datetime | None = None

    @property
    def stream(self) -> str:
        return f"lease-{self.federation_id}-{self.client_id}"


_COLUMNS = (
    "lease_id, federation_id, client_id, epoch, status, ttl_seconds, dataset_label,"
    " dataset_sha256, since"
)


async def apply(tx: Connection, recorded: Recorded[Any]) -> None:
    match recorded.event:
        case ClientLeaseIssued() as issued:
            await tx.execute(
                "INSERT INTO leases (lease_id, tenant, federation_id, client_id, epoch, status,"
                " ttl_seconds, since) VALUES ($1, $2, $3, $4, $5, 'offered', $6, $7)"
                " ON CONFLICT (lease_id) DO UPDATE SET epoch = EXCLUDED.epoch,"
                " status = 'offered', since = EXCLUDED.since",
                issued.lease_id, recorded.context.tenant, issued.federation_id, issued.client_id,
                issued.epoch, issued.ttl_seconds, recorded.recorded_at,
            )  # fmt: skip
        case ClientJoined() as joined:
            await tx.execute(
                "UPDATE leases SET status = 'held', since = $2, dataset_label = $3,"
                " dataset_sha256 = $4, node_key = $5 WHERE lease_id = $1",
                joined.lease_id,
                recorded.recorded_at,
                joined.dataset.label,
                joined.dataset.sha256,
                joined.node_key,
            )
        case ClientDropped() as dropped:
            await _end(tx, dropped.lease_id, "dropped", recorded.recorded_at)
        case ClientReleased() as released:
            await _end(tx, released.lease_id, "released", recorded.recorded_at)


async def _end(tx: Connection, lease_id: str, status: str, at: datetime) -> None:
    await tx.execute(
        "UPDATE leases SET status = $2, since = $3 WHERE lease_id = $1", lease_id, status, at
    )


leases = Projection("leases", ("leases",), apply)


async def find(tx: Connection, lease_id: str, *, lock: bool = False) -> Lease | None:
    """With `lock` it stays as it is found until the transaction ends."""
    query = f"SELECT {_COLUMNS} FROM leases WHERE lease_id = $1" + (" FOR SHARE" if lock else "")
    row = await tx.fetchrow(query, lease_id)
    return None if row is None else Lease(**dict(row))


async def not_held(tx: Connection, lease_ids: Sequence[str]) -> list[str]:
    """Those that nobody holds; all of them stay as they are found until the transaction ends."""
    rows = await tx.fetch(
        "SELECT lease_id, status FROM leases WHERE lease_id = ANY ($1) ORDER BY lease_id FOR SHARE",
        list(lease_ids),
    )
    return [row["lease_id"] for row in rows if row["status"] != "held"]


async def asked_for(
    tx: Connection, client_id: str, lease_id: str
) -> tuple[str | None, Lease | None]:
    """The client's status, and the lease if it is the client's own, with its last sign of life."""
    row = await tx.fetchrow(
        "SELECT c.status AS client_status, l.* FROM clients c"
        f" LEFT JOIN (SELECT {_COLUMNS}, seen_at FROM leases LEFT JOIN heartbeats USING (lease_id))"
        " l ON l.client_id = c.client_id AND l.lease_id = $2 WHERE c.client_id = $1",
        client_id,
        lease_id,
    )
    if row is None:
        return None, None
    status, *columns = dict(row).items()
    return status[1], Lease(**dict(columns)) if row["lease_id"] is not None else None


async def of_virtual(tx: Connection, client_id: str, lease_id: str) -> Lease | None:
    """A lease of a client that is enrolled nowhere, with its last sign of life."""
    row = await tx.fetchrow(
        f"SELECT {_COLUMNS}, seen_at FROM leases LEFT JOIN heartbeats USING (lease_id)"
        " WHERE client_id = $1 AND lease_id = $2",
        client_id,
        lease_id,
    )
    return None if row is None else Lease(**dict(row))


async def of_client(tx: Connection, client_id: str) -> list[Lease]:
    rows = await tx.fetch(f"SELECT {_COLUMNS} FROM leases WHERE client_id = $1", client_id)
    return [Lease(**dict(row)) for row in rows]


async def open_in(tx: Connection, federation_id: str) -> list[Lease]:
    rows = await tx.fetch(
        f"SELECT {_COLUMNS} FROM leases WHERE federation_id = $1 AND status IN ('offered', 'held')",
        federation_id,
    )
    return [Lease(**dict(row)) for row in rows]


async def held_in(tx: Connection, federation_id: str) -> dict[str, Lease]:
    """The held leases of a federation, by id."""
    rows = await tx.fetch(
        f"SELECT {_COLUMNS} FROM leases WHERE federation_id = $1 AND status = 'held'",
        federation_id,
    )
    return {row["lease_id"]: Lease(**dict(row)) for row in rows}
