"""Ends leases that nobody may hold any more: of a revoked client, or of a silent one."""

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime, timedelta

from flowerbed.events.context import Context
from flowerbed.events.database import Connection, Database
from flowerbed.events.logs import about
from flowerbed.events.store import EventStore
from flowerbed.lease import heartbeats
from flowerbed.lease.leases import DropClient
from flowerbed.lease.leaving import leave
from flowerbed.lease.projections import leases
from flowerbed.lease.writing import retried

logger = logging.getLogger(__name__)

SWEEP_EVERY = 5.0
"""Seconds: a silent client is dropped this much after its ttl at the latest."""


async def drop_leases(
    database: Database, store: EventStore, tenant: str, client_id: str, actor: str | None
) -> None:
    """In one transaction: all of a client's leases."""
    async with database.transaction(tenant) as tx:
        for one in await leases.of_client(tx, client_id):
            context = Context(tenant=tenant, correlation_id=one.federation_id, actor=actor)
            command = DropClient(epoch=None, reason="client revoked")
            await leave(tx, store, one.lease_id, command, context)


async def drop_silent(database: Database, store: EventStore, one: heartbeats.Silent) -> None:
    command = DropClient(epoch=one.epoch, reason=f"silent since {one.seen_at:%H:%M:%S}")
    context = Context(tenant=one.tenant, correlation_id=one.federation_id)

    async def act(tx: Connection) -> None:
        await leave(tx, store, one.lease_id, command, context)

    await retried(database, one.tenant, act)


async def sweep(database: Database, store: EventStore, now: Callable[[], datetime]) -> None:
    """For ever: drop who was not heard for a ttl. After a pause of ours, silence counts anew."""
    awake_since, last = now(), now()
    while True:
        at = now()
        if at - last > timedelta(seconds=4 * SWEEP_EVERY):
            awake_since = at  # we slept: nobody could be heard
        last = at
        async with database.read_all() as reader:
            silent = await heartbeats.silent(reader, at, awake_since)
        for one in silent:
            with about(one.federation_id):
                logger.warning("client %s is silent since %s", one.client_id, one.seen_at)
                await drop_silent(database, store, one)
        await asyncio.sleep(SWEEP_EVERY)
