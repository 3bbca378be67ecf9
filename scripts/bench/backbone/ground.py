"""The servers: Postgres and NATS as an embedded stack starts them, and nothing else of it.

fsync is on, and JetStream syncs before it acknowledges. Everything lies in a directory of its own
and is deleted at the end.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from flowerbed.embedded.child import Child
from flowerbed.embedded.databases import connect, provision_databases
from flowerbed.embedded.layout import Layout
from flowerbed.embedded.nats_server import nats_specs
from flowerbed.embedded.postgres import SUPERUSER, postgres_spec, prepare_postgres
from flowerbed.embedded.removal import remove
from flowerbed.embedded.setup import Setup
from flowerbed.embedded.shape import Shape
from flowerbed.embedded.stack import Stack
from flowerbed.embedded.streams import declare_streams
from flowerbed.events.connection import Connection
from flowerbed.events.jetstream import Bus
from flowerbed.events.migrate import migrate
from scripts.bench.backbone.peers import make_outbox
from scripts.bench.backbone.sample import DURABLE, JETSTREAM, READER, TABLES, WRITER

_LIBRARY_TABLES = "events, cursors, dead_letters, relay_marks"
_TABLES = {WRITER: f"{_LIBRARY_TABLES}, outbox", READER: f"{_LIBRARY_TABLES}, sums, handled"}


@dataclass(slots=True)
class Ground:
    """The servers while they run, emptied before each measurement."""

    setup: Setup
    bus: Bus
    """As the user who may administer JetStream."""
    admin: Connection
    owners: dict[str, Connection] = field(default_factory=dict)

    @property
    def state_dir(self) -> Path:
        return self.setup.layout.root

    async def reset(self) -> None:
        """No events, in no table and no stream."""
        for service, tables in _TABLES.items():
            await self.owners[service].execute(f"TRUNCATE {tables} RESTART IDENTITY")
        await self.bus.api(f"STREAM.DELETE.{JETSTREAM}", {})
        await declare_streams(self.setup)
        await self.admin.execute("CHECKPOINT")

    async def reset_reader(self) -> None:
        """The stream stays, and is read from its beginning."""
        await self.owners[READER].execute(f"TRUNCATE {_TABLES[READER]} RESTART IDENTITY")
        await self.bus.api(f"CONSUMER.DELETE.{JETSTREAM}.{DURABLE}", {})
        await declare_streams(self.setup)

    async def tend(self, table: str) -> None:
        """What autovacuum does some time after so many rows have come."""
        await self.owners[WRITER].execute(f"VACUUM (ANALYZE) {table}")

    async def wal(self) -> int:
        """How many bytes of WAL were ever written."""
        return int(
            await self.admin.fetchval(
                "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint"
            )
        )

    async def value(self, service: str, query: str) -> Any:
        return await self.owners[service].fetchval(query)

    async def until_value(self, service: str, query: str, wanted: int, seconds: float) -> None:
        async with asyncio.timeout(seconds):
            while True:
                if await self.value(service, query) == wanted:
                    return
                await asyncio.sleep(0.1)

    async def until_stored(self, count: int, seconds: float) -> float:
        """When the stream's last message was stored, once it has `count`."""
        async with asyncio.timeout(seconds):
            while True:
                state = (await self.bus.api(f"STREAM.INFO.{JETSTREAM}", {}))["state"]
                if state["messages"] >= count:
                    return datetime.fromisoformat(state["last_ts"]).timestamp()
                await asyncio.sleep(0.1)

    async def until_read(self, seconds: float = 30.0) -> None:
        """Until a reader waits for more."""
        async with asyncio.timeout(seconds):
            while True:
                info = await self.bus.api(f"CONSUMER.INFO.{JETSTREAM}.{DURABLE}", {})
                if info.get("num_waiting"):
                    return
                await asyncio.sleep(0.02)


@asynccontextmanager
async def ground(state_dir: Path) -> AsyncIterator[Ground]:
    setup = await asyncio.to_thread(Setup.prepare, Layout.at(state_dir), Shape())
    children: list[Child] = []
    try:
        place = await prepare_postgres(setup)
        for spec in (postgres_spec(setup, place), *nats_specs(setup)):
            children.append(Child(spec, lambda: None))
            await children[-1].start()
        await provision_databases(setup, place)
        await declare_streams(setup)
        access = Stack(state_dir).nats_user("admin")
        bus = Bus(access.url, access.user, access.password)
        await bus.start()
        await bus.wait_connected(10)
        ready = Ground(setup, bus, await connect(setup, SUPERUSER, "postgres"))
        try:
            await _make_tables(ready)
            yield ready
        finally:
            await bus.close()
            for connection in (ready.admin, *ready.owners.values()):
                await connection.close()
    finally:
        for child in reversed(children):
            await child.stop()
        await asyncio.to_thread(remove, state_dir)


async def _make_tables(ready: Ground) -> None:
    for service in (WRITER, READER):
        ready.owners[service] = owner = await connect(ready.setup, f"{service}_owner", service)
        await migrate(owner, service)
    await ready.owners[READER].execute(TABLES)
    await make_outbox(Stack(ready.state_dir))
