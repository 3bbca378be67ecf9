"""Time travel: the read models of one federation as they were at a position.

Its events up to there are folded again, by the very projections, into temporary tables of the
same names; a temporary table stands before another of its name, so the same queries answer.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from flowerbed.events.connection import Connection
from flowerbed.events.database import Database, set_tenant, translated
from flowerbed.events.store import COLUMNS, EventStore
from flowerbed.gateway.consumers import codec
from flowerbed.gateway.projections import PROJECTIONS

_ABOUT_FEDERATIONS = tuple(one for one in PROJECTIONS if one.name not in ("clients", "apps"))
"""Clients and apps are of no federation: they are shown as they are now."""

_COPY = f"""
INSERT INTO pg_temp.events (xid, {COLUMNS}) OVERRIDING SYSTEM VALUE
SELECT xid, {COLUMNS} FROM public.events
WHERE meta ->> 'correlation_id' = $1 AND tenant = $2 AND gpos <= $3
"""

_store = EventStore(codec)


@asynccontextmanager
async def as_of(
    database: Database, tenant: str, federation_id: str, position: int
) -> AsyncIterator[Connection]:
    """A transaction in which the federation's tables are those of `position`; it leaves nothing.

    On a connection of its own: a plan that was kept for the lasting tables would be used again.
    """
    connection = await database.connect_app()
    try:
        with translated():
            async with connection.transaction():
                await set_tenant(connection, tenant)
                await _fold(connection, tenant, federation_id, position)
                yield connection
    finally:
        await connection.close()


async def _fold(connection: Connection, tenant: str, federation_id: str, position: int) -> None:
    tables = [table for one in _ABOUT_FEDERATIONS for table in one.tables]
    for table in ("events", *tables):
        await connection.execute(
            f"CREATE TEMPORARY TABLE {table} (LIKE public.{table} INCLUDING ALL) ON COMMIT DROP"
        )
    await connection.execute(_COPY, federation_id, tenant, position)
    rows: list[Any] = await connection.fetch(f"SELECT {COLUMNS} FROM events ORDER BY gpos")
    for row in rows:
        recorded = _store.recorded(row)
        for projection in _ABOUT_FEDERATIONS:
            await projection.apply(connection, recorded)
