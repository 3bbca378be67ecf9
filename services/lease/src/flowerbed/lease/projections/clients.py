"""clients: one row per client, invited, enrolled or revoked."""

from dataclasses import dataclass
from typing import Any

from flowerbed.contracts.client import (
    ClientCertificateRenewed,
    ClientEnrolled,
    ClientInvited,
    ClientRevoked,
)
from flowerbed.events.database import Connection
from flowerbed.events.projection import Projection
from flowerbed.events.store import Recorded


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    client_id: str
    status: str
    tags: tuple[str, ...]


async def apply(tx: Connection, recorded: Recorded[Any]) -> None:
    match recorded.event:
        case ClientInvited() as invited:
            await tx.execute(
                "INSERT INTO clients (client_id, tenant, status, tags)"
                " VALUES ($1, $2, 'invited', $3)",
                invited.client_id,
                recorded.context.tenant,
                list(invited.tags),
            )
        case ClientEnrolled() | ClientCertificateRenewed() as certified:
            await tx.execute(
                "UPDATE clients SET status = 'enrolled', public_key_sha256 = $2,"
                " certificate_expires_at = $3 WHERE client_id = $1",
                certified.client_id,
                certified.public_key_sha256,
                certified.certificate_expires_at,
            )
        case ClientRevoked() as revoked:
            await tx.execute(
                "UPDATE clients SET status = 'revoked' WHERE client_id = $1", revoked.client_id
            )


clients = Projection("clients", ("clients",), apply)


async def find(tx: Connection, client_id: str) -> Client | None:
    row = await tx.fetchrow(
        "SELECT client_id, status, tags FROM clients WHERE client_id = $1", client_id
    )
    if row is None:
        return None
    return Client(client_id=row["client_id"], status=row["status"], tags=tuple(row["tags"]))
