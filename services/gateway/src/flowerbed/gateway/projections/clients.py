"""clients: one row each, from its invite to its revocation."""

from typing import Any

from flowerbed.contracts.client import (
    ClientCertificateRenewed,
    ClientEnrolled,
    ClientInvited,
    ClientRevoked,
)
from flowerbed.events.connection import Connection
from flowerbed.events.projection import Projection
from flowerbed.events.recorded import Recorded
from flowerbed.gateway.projections.upsert import update, upsert


async def apply(tx: Connection, recorded: Recorded[Any]) -> None:
    event, at = recorded.event, recorded.recorded_at
    match event:
        case ClientInvited():
            values = {
                "status": "invited",
                "tags": list(event.tags),
                "invited_at": at,
                "invite_expires_at": event.expires_at,
            }
        case ClientEnrolled():
            values = {
                "status": "enrolled",
                "tags": list(event.tags),
                "enrolled_at": at,
                "certificate_expires_at": event.certificate_expires_at,
            }
        case ClientCertificateRenewed():
            values = {"certificate_expires_at": event.certificate_expires_at}
        case ClientRevoked():
            values = {"status": "revoked", "reason": event.reason, "revoked_at": at}
        case _:
            return
    key = {"tenant": recorded.context.tenant, "client_id": event.client_id}
    write = upsert if "status" in values else update
    await write(tx, "clients", key, {**values, "updated_at": at})


clients = Projection("clients", ("clients",), apply)
