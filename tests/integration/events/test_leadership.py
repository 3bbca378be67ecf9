"""Roles that one replica holds at a time, as session locks of a real Postgres."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from flowerbed.events.database import Database, Fence, fence
from flowerbed.events.errors import Unavailable
from flowerbed.events.leadership import Leadership, RoleLost, Work, partition_role
from tests.support.servers import MakeDatabase, PostgresServer, eventually


@asynccontextmanager
async def campaigning(
    database: Database, heartbeat: float = 0.1, **options: Any
) -> AsyncIterator[Leadership]:
    leadership = Leadership(database, heartbeat=heartbeat, **options)
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


async def all_of(leadership: Leadership, leave: Work | None = None) -> list[asyncio.Task[None]]:
    """Wants every partition."""
    return [
        asyncio.create_task(leadership.lead(partition_role(number), forever, leave))
        for number in range(4)
    ]


async def test_partitions_are_shared_by_who_is_there_and_left_well(
    service_database: MakeDatabase,
) -> None:
    database = (await service_database("lease")).database
    left: list[str] = []

    async def leave() -> None:
        left.append("one")

    async with campaigning(database, shared=4) as first:
        mine = await all_of(first, leave)
        await eventually(lambda: first.partitions == [0, 1, 2, 3], "the first has all")
        async with campaigning(database, shared=4) as second:
            others = await all_of(second)
            await eventually(lambda: second.partitions == [2, 3], "they share")
            assert first.partitions == [0, 1]
            assert len(left) == 2, "work was not asked to end well"
            for task in others:
                task.cancel()
        await eventually(lambda: first.partitions == [0, 1, 2, 3], "the first has all again")
        for task in mine:
            task.cancel()


async def test_who_cannot_do_the_work_leaves_it_to_another(
    service_database: MakeDatabase,
) -> None:
    database = (await service_database("lease")).database
    cut_off: set[str] = set()

    def is_able(role: str) -> bool:
        return not any(role.startswith(one) for one in cut_off)

    async with (
        campaigning(database, shared=4, is_able=is_able) as first,
        campaigning(database, shared=4) as second,
    ):
        tasks = await all_of(first)
        tasks += [asyncio.create_task(first.lead(role, forever)) for role in ("relay", "timer")]
        await eventually(lambda: len(first.roles) == 6, "the first has everything")
        tasks += await all_of(second)
        tasks += [asyncio.create_task(second.lead(role, forever)) for role in ("relay", "timer")]
        await eventually(lambda: second.partitions == [2, 3], "the second has its half")
        cut_off |= {"partition ", "relay"}
        await eventually(lambda: len(second.roles) == 5, "the second has them, and relays")
        assert second.partitions == [0, 1, 2, 3]
        assert first.roles == ["timer"]
        cut_off.clear()
        await eventually(lambda: len(first.partitions) == 2, "they share again")
        for task in tasks:
            task.cancel()


async def test_what_was_begun_in_one_role_holds_up_no_other(
    service_database: MakeDatabase,
) -> None:
    database = (await service_database("lease")).database
    async with database.transaction("roses") as tx:
        epoch = await tx.fetchval("SELECT take_role('relay')")
    async with campaigning(database) as leadership:
        fence.set(Fence("relay", epoch))
        async with database.transaction("roses"):
            fence.set(None)
            tasks = [
                asyncio.create_task(leadership.lead(role, forever)) for role in ("relay", "timer")
            ]
            await eventually(lambda: leadership.roles == ["timer"], "another role is free")
            await asyncio.sleep(1)
            assert leadership.roles == ["timer"], "led while the last holder's work was under way"
        await eventually(lambda: leadership.roles == ["relay", "timer"], "then this too")
        for task in tasks:
            task.cancel()
