"""What follows when a client leaves: an evaluation that it owes is not waited for.

Training is: another client takes its place, or it comes back with what it had done.
"""

from flowerbed.contracts.update import CLIENT_LEFT
from flowerbed.events.commands import execute
from flowerbed.events.context import Context
from flowerbed.events.database import Connection
from flowerbed.events.store import EventStore
from flowerbed.lease import metrics, reports, work
from flowerbed.lease.leases import DropClient, MissWork, ReleaseLease, lease
from flowerbed.lease.projections import leases


async def leave(
    tx: Connection,
    store: EventStore,
    lease_id: str,
    command: DropClient | ReleaseLease,
    context: Context,
) -> None:
    """End a lease, and what is asked of it alone."""
    one = await leases.find(tx, lease_id)
    if one is not None:
        metrics.count(await execute(tx, store, lease, one.stream, command, context))
        await miss(tx, store, lease_id, context)


async def miss(tx: Connection, store: EventStore, lease_id: str, context: Context) -> None:
    """Fail what nobody does in a lease's place, if nobody holds it; otherwise change nothing.

    An evaluation may be ordered while the lease ends: the later of the two sees the other.
    """
    one = await leases.find(tx, lease_id, lock=True)
    if one is None or one.status == "held":
        return
    for owed in await work.not_waited_for(tx, lease_id):
        failure = reports.failed(one, owed, one.epoch, CLIENT_LEFT, f"its lease is {one.status}")
        await execute(tx, store, lease, one.stream, MissWork(failure=failure), context)
        await work.answered(tx, lease_id, owed.work_id)
