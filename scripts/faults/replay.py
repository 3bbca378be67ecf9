"""Fold a service's whole history into scratch tables and compare them with the live ones.

The one place of the checker that uses the services' own code, for a read model is by definition
what its projection makes of the events. All of it happens in one transaction that is rolled back.
"""

from collections.abc import Sequence

import asyncpg  # type: ignore[import-untyped]  # has no stubs

from flowerbed.aggregator.projections.answers import answers
from flowerbed.aggregator.projections.outcomes import outcomes
from flowerbed.artifact.projections.artifacts import artifacts
from flowerbed.artifact.projections.channels import channels
from flowerbed.contracts.catalogue import EVENTS
from flowerbed.embedded.stack import Stack
from flowerbed.events.codec import Codec
from flowerbed.events.connection import Connection
from flowerbed.events.database import set_tenant
from flowerbed.events.projection import Projection
from flowerbed.events.store import COLUMNS, EventStore
from flowerbed.gateway.projections import PROJECTIONS
from flowerbed.lease.projections.clients import clients
from flowerbed.lease.projections.leases import leases
from flowerbed.orchestrator.projections.deadlines import deadlines
from scripts.faults.evidence import TableDiff

READ_MODELS: dict[str, Sequence[Projection]] = {
    "orchestrator": [deadlines],
    "lease": [clients, leases],
    "aggregator": [answers, outcomes],
    "artifact": [artifacts, channels],
    "gateway": PROJECTIONS,
}
SCRATCH = "checked"


async def table_diffs(stack: Stack, service: str) -> list[TableDiff]:
    owner = await asyncpg.connect(stack.postgres_dsn(service, "owner"))
    transaction = owner.transaction(isolation="repeatable_read")
    await transaction.start()
    try:
        return await _compared(owner, service)
    finally:
        await transaction.rollback()
        await owner.close()


async def _compared(owner: Connection, service: str) -> list[TableDiff]:
    projections = READ_MODELS[service]
    tables = [table for projection in projections for table in projection.tables]
    await owner.execute(f"CREATE SCHEMA {SCRATCH}")
    for table in tables:
        await owner.execute(
            f'CREATE TABLE {SCRATCH}."{table}" (LIKE public."{table}" INCLUDING ALL)'
        )
    store = EventStore(Codec(EVENTS), projections)
    rows = await owner.fetch(f"SELECT {COLUMNS} FROM public.events ORDER BY gpos")
    await owner.execute(f"SET LOCAL search_path = {SCRATCH}, public")
    for row in rows:
        await set_tenant(owner, row["tenant"])
        await store.project(owner, store.recorded(row))
    return [
        TableDiff(
            service=service,
            table=table,
            only_live=await _only(owner, f'public."{table}"', f'{SCRATCH}."{table}"'),
            only_replayed=await _only(owner, f'{SCRATCH}."{table}"', f'public."{table}"'),
        )
        for table in tables
    ]


async def _only(owner: Connection, these: str, those: str) -> list[str]:
    rows = await owner.fetch(
        f"SELECT t::text FROM {these} t EXCEPT ALL SELECT t::text FROM {those} t"
    )
    return [row[0] for row in rows]
