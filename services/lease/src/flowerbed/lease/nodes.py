"""The SuperNodes of leases: which are to be registered, and when each was last without work."""

from datetime import datetime

from flowerbed.contracts.relay import RelayNode
from flowerbed.events.connection import Connection
from flowerbed.events.errors import Rejected
from flowerbed.lease.federations import OpenFederation


class NodeMissing(Rejected):
    """The federation runs over a SuperLink, and the claim names no SuperNode."""

    code = "no-supernode"
    status = 422


def check_named(federation: OpenFederation, node_key: str | None) -> None:
    """Raises: NodeMissing: a claim of its leases needs one."""
    if federation.is_over_superlink and node_key is None:
        raise NodeMissing("the federation runs over a SuperLink: claim with a node_key")


async def was_idle(tx: Connection, lease_id: str, at: datetime) -> None:
    """The lease's SuperNode asked for a message then, and there was none."""
    await tx.execute(
        "UPDATE heartbeats SET idle_at = greatest(idle_at, $2) WHERE lease_id = $1", lease_id, at
    )


async def held_in(tx: Connection, federation_id: str) -> list[RelayNode]:
    """Of the leases that are held."""
    rows = await tx.fetch(
        "SELECT l.client_id, l.lease_id, l.node_key, h.idle_at FROM leases l"
        " LEFT JOIN heartbeats h USING (lease_id)"
        " WHERE l.federation_id = $1 AND l.status = 'held' AND l.node_key IS NOT NULL"
        " ORDER BY l.client_id",
        federation_id,
    )
    return [RelayNode(**dict(row)) for row in rows]
