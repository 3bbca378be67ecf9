"""memberships: a client in a federation, by its newest lease.

issued -> joined -> released | dropped, and from dropped to issued again with the next epoch.
A client that declines stays where it is; `reason` says why it does.
"""

from typing import Any

from flowerbed.contracts.client import (
    ClientDeclined,
    ClientDropped,
    ClientJoined,
    ClientLeaseIssued,
    ClientReleased,
    LeaseEvent,
)
from flowerbed.events.connection import Connection
from flowerbed.events.projection import Projection
from flowerbed.events.recorded import Recorded
from flowerbed.gateway.projections.upsert import update, upsert


async def apply(tx: Connection, recorded: Recorded[Any]) -> None:
    event, at = recorded.event, recorded.recorded_at
    if not isinstance(event, LeaseEvent):
        return
    key = {
        "tenant": recorded.context.tenant,
        "federation_id": event.federation_id,
        "client_id": event.client_id,
    }
    lease = {"lease_id": event.lease_id, "epoch": event.epoch, "updated_at": at}
    # A client declines what it was offered: its row is there.
    write = update if isinstance(event, ClientDeclined) else upsert
    await write(tx, "memberships", key, lease | _values(event, recorded))


def _values(event: LeaseEvent, recorded: Recorded[Any]) -> dict[str, Any]:
    at = recorded.recorded_at
    match event:
        case ClientLeaseIssued():
            return {"status": "issued", "reason": "", "issued_at": at, "ended_at": None}
        case ClientJoined():
            return {
                "status": "joined",
                "dataset": event.dataset.label,
                "dataset_sha256": event.dataset.sha256,
                "joined_at": at,
                "reason": "",
            }
        case ClientDeclined():
            return {"reason": f"{event.code}: {event.detail}" if event.detail else event.code}
        case ClientDropped():
            return {"status": "dropped", "reason": event.reason, "ended_at": at}
        case ClientReleased():
            return {"status": "released", "reason": event.reason, "ended_at": at}
        case _:
            raise AssertionError("unreachable")


memberships = Projection("memberships", ("memberships",), apply)
