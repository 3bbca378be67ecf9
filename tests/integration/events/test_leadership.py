"""Roles that one replica holds at a time, as session locks of a real Postgres."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from flowerbed.events.database import Database
from flowerbed.events.errors import Unavailable
from flowerbed.events.leadership import Leadership, RoleLost
from tests.support.servers import MakeDatabase, PostgresServer, eventually


@asynccontextmanager
async def campaigning(database: Database, heartbeat: float = 0.1) -> AsyncIterator[Leadership]:
    leadership = Leadership(database, heartbeat=heartbeat)
    task = asyncio.create_task(leadership.run())
    try:
        yield leadership
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def forever() -> None:
    await asyncio.Event().wait()


async def test_role_is_held_by_one_and_passes_on_when_its_work_ends(
    service_database: MakeDatabase,
) -> None:
    database = (await service_database("lease")).database
    done = asyncio.Event()

    async def until_done() -> None:
        await done.wait()

    async with campaigning(database) as first, campaigning(database) as second:
        leading = asyncio.create_task(first.lead("relay", until_done))
        await eventually(lambda: first.holds("relay"), "the first leads")
        waiting = asyncio.create_task(second.lead("relay", forever))
        other = asyncio.create_task(second.lead("timer", forever))
        await eventually(lambda: second.roles == ["timer"], "another role is free")
        assert not second.holds("relay")
        done.set()
        await leading
        await eventually(lambda: second.holds("relay"), "it passed on")
        for task in (waiting, other):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        assert second.roles == []


async def test_role_moves_within_five_seconds_when_its_session_is_cut(
    service_database: MakeDatabase, postgres_server: PostgresServer
) -> None:
    database = (await service_database("lease")).database
    async with campaigning(database) as first, campaigning(database) as second:
        leading = asyncio.create_task(first.lead("relay", forever))
        await eventually(lambda: first.holds("relay"), "the first leads")
        waiting = asyncio.create_task(second.lead("relay", forever))
        admin = await postgres_server.connect(database.address.name)
        await admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted"
        )
        await admin.close()
        await eventually(lambda: second.holds("relay"), "it moved", timeout=5)
        with pytest.raises(RoleLost):
            await leading
        waiting.cancel()


async def test_role_moves_from_a_process_that_stands_still(
    service_database: MakeDatabase,
) -> None:
    """Postgres ends a session that shows no life, though its process and socket are there."""
    database = (await service_database("lease")).database
    async with campaigning(database, heartbeat=60) as still, campaigning(database) as second:
        leading = asyncio.create_task(still.lead("relay", forever))
        await eventually(lambda: still.holds("relay"), "the first leads")
        waiting = asyncio.create_task(second.lead("relay", forever))
        await eventually(lambda: second.holds("relay"), "it moved", timeout=5.5)
        for task in (leading, waiting):
            task.cancel()


async def test_error_of_the_work_passes_through_and_the_role_is_given_up(
    service_database: MakeDatabase,
) -> None:
    database = (await service_database("lease")).database

    async def fails() -> None:
        raise ValueError("a bug")

    async with campaigning(database) as leadership:
        for _ in range(2):
            with pytest.raises(ValueError, match="a bug"):
                await leadership.lead("relay", fails)
            assert leadership.roles == []


async def test_who_stops_waiting_for_a_role_does_not_get_it(
    service_database: MakeDatabase,
) -> None:
    database = (await service_database("lease")).database
    async with campaigning(database) as first, campaigning(database) as second:
        leading = asyncio.create_task(first.lead("relay", forever))
        await eventually(lambda: first.holds("relay"), "the first leads")
        waiting = asyncio.create_task(second.lead("relay", forever))
        await eventually(lambda: "relay" in second._wanted, "the second waits")
        waiting.cancel()
        with suppress(asyncio.CancelledError):
            await waiting
        leading.cancel()
        with suppress(asyncio.CancelledError):
            await leading
        again = asyncio.create_task(first.lead("relay", forever))
        await eventually(lambda: first.holds("relay"), "the role was free")
        again.cancel()


async def test_lock_that_cannot_be_let_go_takes_its_session_along(
    service_database: MakeDatabase,
) -> None:
    database = (await service_database("lease")).database
    async with campaigning(database, heartbeat=60) as leadership:
        leading = asyncio.create_task(leadership.lead("relay", forever))
        await eventually(lambda: leadership.holds("relay"), "it leads")
        leadership._connection.terminate()  # type: ignore[union-attr]
        leading.cancel()
        with suppress(asyncio.CancelledError, Unavailable):
            await leading
        assert leadership.roles == []
        assert leadership._connection is None
