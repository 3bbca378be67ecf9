"""Which leases a certificate reaches: its client's own."""

from flowerbed.events.database import Connection
from flowerbed.events.errors import NotFound
from flowerbed.lease.clients import ClientNotAdmitted
from flowerbed.lease.pki import Peer
from flowerbed.lease.projections import leases
from flowerbed.lease.projections.leases import Lease


async def own_lease(tx: Connection, peer: Peer, lease_key: str) -> Lease:
    """The lease, with its last sign of life.

    Row-level security hides other tenants' leases; this hides other clients'.

    Raises:
        ClientNotAdmitted: the client is not enrolled, or revoked.
        NotFound: there is no such lease, or it is another client's.
    """
    if peer.is_virtual:
        one = await leases.of_virtual(tx, peer.client_id, lease_key)
    else:
        client_status, one = await leases.asked_for(tx, peer.client_id, lease_key)
        if client_status != "enrolled":
            raise ClientNotAdmitted(f"client {peer.client_id} is not enrolled")
    if one is None:
        raise NotFound(f"no lease {lease_key}")
    return one
