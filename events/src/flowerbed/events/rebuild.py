"""Rebuild a projection beside the live one, then switch, while the service goes on writing.

    rebuild.<table> created like public.<table>  <── the whole history, window by window
    lock events for writing  ──>  the last few  ──>  drop the old, move the new, commit

Writers wait only for the last part. Readers see the old rows until the switch.
"""

from typing import Any

import asyncpg  # type: ignore[import-untyped]  # has no stubs

from flowerbed.events.connection import Connection
from flowerbed.events.database import set_tenant
from flowerbed.events.errors import FlowerbedError
from flowerbed.events.message import Mark
from flowerbed.events.outbox import horizon, page
from flowerbed.events.projection import Projection
from flowerbed.events.store import EventStore

PAGE = 1000
NEARLY_THERE = 200
SWITCHES = 5


class _Rebuild:
    def __init__(self, owner: Connection, projection: Projection, store: EventStore) -> None:
        self._owner = owner
        self._projection = projection
        self._store = store
        self._mark = Mark()
        self.applied = 0

    async def prepare(self) -> None:
        async with self._owner.transaction():
            await self._owner.execute("CREATE SCHEMA IF NOT EXISTS rebuild")
            for table in self._projection.tables:
                await self._create_like(table)

    async def catch_up(self) -> None:
        """Apply what can be read in closed windows, until little is left."""
        while True:
            edge = await horizon(self._owner, self._mark.hi)
            if not edge.is_ready:
                return
            before = self.applied
            await self._window(edge.hi)
            if self.applied - before <= NEARLY_THERE:
                return

    async def switch(self) -> None:
        """As `_switch`, again if a transaction that reads, then appends, stood in the way."""
        mark, applied = self._mark, self.applied
        for attempt in range(1, SWITCHES + 1):
            try:
                return await self._switch()
            except asyncpg.DeadlockDetectedError:
                self._mark, self.applied = mark, applied
                if attempt == SWITCHES:
                    raise

    async def _switch(self) -> None:
        """Apply the rest while nobody can append, and put the new tables in place."""
        async with self._owner.transaction():
            await self._owner.execute("LOCK TABLE public.events IN SHARE ROW EXCLUSIVE MODE")
            # Whoever appended has ended, so everything is there and nothing can come.
            highest = await self._owner.fetchval(
                "SELECT coalesce(max(xid)::text::bigint, 0) FROM public.events"
            )
            await self._window(max(int(highest) + 1, self._mark.hi), is_last=True)
            for table in self._projection.tables:
                await self._owner.execute(f'DROP TABLE public."{table}"')
                await self._owner.execute(f'ALTER TABLE rebuild."{table}" SET SCHEMA public')

    async def _window(self, hi: int, *, is_last: bool = False) -> None:
        mark = Mark(self._mark.hi, hi, 0)
        while rows := await page(self._owner, mark, PAGE):
            if is_last:
                await self._apply(rows)
            else:
                async with self._owner.transaction():
                    await self._apply(rows)
            mark = Mark(mark.lo, mark.hi, rows[-1]["gpos"])
        self._mark = mark

    async def _apply(self, rows: list[Any]) -> None:
        await self._owner.execute("SET LOCAL search_path = rebuild, public")
        tenant = None
        for row in rows:
            if row["tenant"] != tenant:
                tenant = row["tenant"]
                await set_tenant(self._owner, tenant)
            await self._projection.apply(self._owner, self._store.recorded(row))
        self.applied += len(rows)
        await self._owner.execute("SET LOCAL search_path = public")

    async def _create_like(self, table: str) -> None:
        exists = await self._owner.fetchval("SELECT to_regclass($1)", f'public."{table}"')
        if exists is None:
            raise FlowerbedError(f"projection {self._projection.name!r} has no table {table!r}")
        await self._owner.execute(f'DROP TABLE IF EXISTS rebuild."{table}"')
        await self._owner.execute(
            f'CREATE TABLE rebuild."{table}" (LIKE public."{table}" INCLUDING ALL)'
        )
        grants = await self._owner.fetch(
            "SELECT format('GRANT %s ON rebuild.%I TO %I', privilege_type, $1::text, grantee)"
            " AS ddl"
            " FROM information_schema.role_table_grants"
            " WHERE table_schema = 'public' AND table_name = $1 AND grantee <> current_user",
            table,
        )
        for grant in grants:
            await self._owner.execute(grant["ddl"])
        if await self._owner.fetchval(
            "SELECT relrowsecurity FROM pg_class WHERE oid = to_regclass($1)", f'public."{table}"'
        ):
            await self._owner.execute("SELECT protect_tenants($1)", f'rebuild."{table}"')


async def rebuild(owner: Connection, projection: Projection, store: EventStore) -> int:
    """Fold the whole history into new tables and switch to them; the number of events."""
    work = _Rebuild(owner, projection, store)
    await work.prepare()
    await work.catch_up()
    await work.switch()
    return work.applied
