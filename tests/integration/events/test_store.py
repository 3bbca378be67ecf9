"""The event store on a real Postgres."""

import asyncio
from dataclasses import replace
from typing import Any
from uuid import uuid4

import asyncpg  # type: ignore[import-untyped]  # has no stubs
import pytest

from flowerbed.contracts.trace import of_federation
from flowerbed.events.commands import execute, handle
from flowerbed.events.connection import Connection
from flowerbed.events.context import Context
from flowerbed.events.database import after_commit, known_states
from flowerbed.events.errors import Conflict, FlowerbedError, Unavailable
from flowerbed.events.store import EventStore
from tests.support.garden import ROSES, TULIPS, Sow, Sown, Water, Watered, bed, codec, store
from tests.support.servers import MakeDatabase, PostgresServer


async def test_events_are_read_back_as_they_were_recorded(service_database: MakeDatabase) -> None:
    database = (await service_database("lease")).database
    async with database.transaction("roses") as tx:
        written = await store.append(
            tx, "bed-1", [Sown(seed="a"), Watered(litres=2)], expected=0, context=ROSES
        )
        assert await store.read(tx, "bed-1") == written
        assert await store.read(tx, "bed-1", after=1) == written[1:]
    assert [one.version for one in written] == [1, 2]
    assert written[0].position < written[1].position
    assert written[0].recorded_at.tzinfo is not None
    assert replace(written[1].context, traceparent=None) == ROSES
    assert written[1].context.traceparent == of_federation(ROSES.correlation_id)


async def test_writer_who_is_late_gets_a_conflict(service_database: MakeDatabase) -> None:
    database = (await service_database("lease")).database
    async with database.transaction("roses") as tx:
        await store.append(tx, "bed-1", [Sown(seed="a")], expected=0, context=ROSES)
    for expected in (0, 2):
        with pytest.raises(Conflict, match=f"'bed-1' has moved past version {expected}"):
            async with database.transaction("roses") as tx:
                await store.append(
                    tx, "bed-1", [Watered(litres=1)], expected=expected, context=ROSES
                )


async def test_of_two_concurrent_writers_one_gets_a_conflict(
    service_database: MakeDatabase,
) -> None:
    database = (await service_database("lease")).database

    async def write() -> bool:
        try:
            async with database.transaction("roses") as tx:
                await store.append(tx, "bed-1", [Sown(seed="a")], expected=0, context=ROSES)
                return True
        except Conflict:
            return False

    assert sorted(await asyncio.gather(*(write() for _ in range(8)))) == [False] * 7 + [True]


async def test_concurrent_commands_all_succeed_by_trying_again(
    service_database: MakeDatabase,
) -> None:
    database = (await service_database("lease")).database
    await handle(database, store, bed, "bed-1", Sow(seed="a"), ROSES)
    await asyncio.gather(
        *(handle(database, store, bed, "bed-1", Water(litres=1), ROSES) for _ in range(4))
    )
    async with database.transaction("roses") as tx:
        state = bed.replay(one.event for one in await store.read(tx, "bed-1"))
    assert state.litres == 4


async def test_command_that_always_conflicts_gives_up(service_database: MakeDatabase) -> None:
    database = (await service_database("lease")).database
    rival = EventStore(codec)

    class Racing(EventStore):
        async def append(self, *args, **options):  # type: ignore[no-untyped-def]
            raise Conflict("bed-1", 0)

    with pytest.raises(Conflict):
        await handle(database, Racing(codec), bed, "bed-1", Sow(seed="a"), ROSES)
    async with database.transaction("roses") as tx:
        assert await rival.read(tx, "bed-1") == []


async def test_command_reads_only_what_is_new(
    service_database: MakeDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = (await service_database("lease")).database
    read: list[int] = []

    async def counted(tx: Connection, stream: str, *, after: int = 0) -> Any:
        found = await EventStore.read(store, tx, stream, after=after)
        read.append(len(found))
        return found

    monkeypatch.setattr(store, "read", counted)
    await handle(database, store, bed, "bed-1", Sow(seed="a"), ROSES)
    await handle(database, store, bed, "bed-1", Water(litres=1), ROSES)
    async with database.transaction("roses") as tx:  # another replica
        await store.append(tx, "bed-1", [Watered(litres=2)], expected=2, context=ROSES)
    await handle(database, store, bed, "bed-1", Water(litres=3), ROSES)
    async with database.transaction("roses") as tx:
        for _ in range(2):  # the second one finds what the first has not committed yet
            await execute(tx, store, bed, "bed-1", Water(litres=4), ROSES)
    assert read == [0, 0, 1, 0, 1]
    async with database.transaction("roses") as tx:
        version, state = known_states().find((id(bed), "roses", "bed-1")) or (0, None)
        events = [one.event for one in await EventStore.read(store, tx, "bed-1")]
    assert (version, state) == (6, bed.replay(events))


async def test_state_of_a_failed_transaction_is_not_kept(service_database: MakeDatabase) -> None:
    database = (await service_database("lease")).database
    await handle(database, store, bed, "bed-1", Sow(seed="a"), ROSES)
    with pytest.raises(ValueError, match="no"):
        async with database.transaction("roses") as tx:
            await execute(tx, store, bed, "bed-1", Water(litres=9), ROSES)
            raise ValueError("no")
    (written,) = await handle(database, store, bed, "bed-1", Water(litres=1), ROSES)
    assert written.version == 2


async def test_nothing_is_recorded_when_the_transaction_fails(
    service_database: MakeDatabase,
) -> None:
    database = (await service_database("lease")).database
    woken: list[None] = []
    database.on_append = lambda: woken.append(None)
    with pytest.raises(RuntimeError):
        async with database.transaction("roses") as tx:
            await execute(tx, store, bed, "bed-1", Sow(seed="a"), ROSES)
            raise RuntimeError
    assert woken == []
    await handle(database, store, bed, "bed-1", Sow(seed="a"), ROSES)
    await handle(database, store, bed, "bed-1", Sow(seed="a"), ROSES)  # changes nothing
    assert woken == [None]


async def test_service_role_may_not_change_or_delete_events(
    service_database: MakeDatabase,
) -> None:
    database = (await service_database("lease")).database
    await handle(database, store, bed, "bed-1", Sow(seed="a"), ROSES)
    for statement in (
        "UPDATE events SET tenant = 'roses'",
        "DELETE FROM events",
        "TRUNCATE events",
        "ALTER TABLE events DISABLE ROW LEVEL SECURITY",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with database.transaction("roses") as tx:
                await tx.execute(statement)
    with pytest.raises(asyncpg.PostgresError):
        async with database.read_all() as connection:
            await connection.execute("INSERT INTO relay_marks VALUES ('x', '0:0:0', 1)")


async def test_tenant_sees_and_writes_only_its_own_rows_on_every_table(
    service_database: MakeDatabase,
) -> None:
    made = await service_database("lease")
    owner, database = await made.owner(), made.database
    tables = [
        row["table_name"]
        for row in await owner.fetch(
            "SELECT table_name FROM information_schema.columns"
            " WHERE table_schema = 'public' AND column_name = 'tenant'"
        )
    ]
    assert sorted(tables) == ["cursors", "dead_letters", "events"]
    for tenant in ("roses", "tulips"):
        async with database.transaction(tenant) as tx:
            await _a_row_everywhere(tx, tenant)
    for tenant in ("roses", "tulips", ""):
        async with database.transaction(tenant) as tx:
            for table in tables:
                seen = await tx.fetch(f"SELECT tenant FROM {table}")
                assert {row["tenant"] for row in seen} == ({tenant} if tenant else set()), table
    for table in tables:
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="row-level security"):
            async with database.transaction("roses") as tx:
                await _a_row_everywhere(tx, "tulips", only=table)
    async with database.read_all() as connection:
        for table in tables:
            assert await connection.fetchval(f"SELECT count(DISTINCT tenant) FROM {table}") == 2


async def _a_row_everywhere(tx: object, tenant: str, only: str | None = None) -> None:
    statements = {
        "events": "INSERT INTO events (stream, version, id, type, schema_version, tenant, data,"
        f" meta) VALUES ('{uuid4()}', 1, '{uuid4()}', 't', 1, '{tenant}', '{{}}', '{{}}')",
        "cursors": f"INSERT INTO cursors VALUES ('c', '{uuid4()}', 1, '{tenant}')",
        "dead_letters": "INSERT INTO dead_letters (consumer, lane, tenant, stream, version,"
        " event_id, subject, headers, data, error, attempts) VALUES"
        f" ('c', 'l', '{tenant}', '{uuid4()}', 1, 'i', 's', '{{}}', '', 'e', 1)",
    }
    for table, statement in statements.items():
        if only in (None, table):
            await tx.execute(statement)  # type: ignore[attr-defined]


async def test_transaction_without_a_tenant_sees_nothing(service_database: MakeDatabase) -> None:
    database = (await service_database("lease")).database
    await handle(database, store, bed, "bed-1", Sow(seed="a"), ROSES)
    async with database.pool.acquire() as connection:
        assert await connection.fetch("SELECT * FROM events") == []


async def test_other_tenants_stream_is_not_readable_and_not_writable(
    service_database: MakeDatabase,
) -> None:
    database = (await service_database("lease")).database
    await handle(database, store, bed, "bed-1", Sow(seed="a"), ROSES)
    async with database.transaction("tulips") as tx:
        assert await store.read(tx, "bed-1") == []
    with pytest.raises(Conflict):
        async with database.transaction("tulips") as tx:
            await store.append(tx, "bed-1", [Sown(seed="b")], expected=0, context=TULIPS)


async def test_copy_of_an_event_is_kept_once(service_database: MakeDatabase) -> None:
    owner_side = (await service_database("lease")).database
    reader_side = (await service_database("gateway")).database
    recorded = (await handle(owner_side, store, bed, "bed-1", Sow(seed="a"), ROSES))[0]
    for first in (True, False):
        async with reader_side.transaction("roses") as tx:
            assert await store.record(tx, recorded) is first
            assert [one.id for one in await store.read(tx, "bed-1")] == [recorded.id]
    other = (await handle(owner_side, store, bed, "bed-2", Sow(seed="b"), ROSES))[0]
    clashing = type(other)(
        **{name: getattr(other, name) for name in other.__slots__} | {"stream": "bed-1"}
    )
    with pytest.raises(FlowerbedError, match="already holds event"):
        async with reader_side.transaction("roses") as tx:
            await store.record(tx, clashing)


async def test_event_that_no_message_could_carry_is_refused(
    service_database: MakeDatabase,
) -> None:
    database = (await service_database("lease")).database
    with pytest.raises(FlowerbedError, match="at most"):
        async with database.transaction("roses") as tx:
            await store.append(tx, "bed-1", [Sown(seed="a" * 900_000)], expected=0, context=ROSES)


@pytest.mark.parametrize("tenant", ["two words", "a.b", ""])
async def test_tenant_that_no_subject_could_name_is_refused(
    service_database: MakeDatabase, tenant: str
) -> None:
    database = (await service_database("lease")).database
    with pytest.raises(ValueError, match="not a subject token"):
        async with database.transaction(tenant) as tx:
            await store.append(
                tx, "bed-1", [Sown(seed="a")], expected=0, context=Context(tenant=tenant)
            )


async def test_lost_connection_is_unavailable_and_the_next_transaction_works(
    service_database: MakeDatabase, postgres_server: PostgresServer
) -> None:
    database = (await service_database("lease")).database
    admin = await postgres_server.connect()
    with pytest.raises(Unavailable):
        async with database.transaction("roses") as tx:
            pid = await tx.fetchval("SELECT pg_backend_pid()")
            await admin.execute("SELECT pg_terminate_backend($1)", pid)
            await execute(tx, store, bed, "bed-1", Sow(seed="a"), ROSES)
    await handle(database, store, bed, "bed-1", Sow(seed="a"), ROSES)
    await admin.close()


async def test_deadlock_is_something_to_try_again(service_database: MakeDatabase) -> None:
    database = (await service_database("lease")).database
    both = asyncio.Barrier(2)

    async def crossing(first: int, second: int) -> str:
        try:
            async with database.transaction("roses") as tx:
                await tx.execute("SELECT pg_advisory_xact_lock($1)", first)
                await both.wait()
                await tx.execute("SELECT pg_advisory_xact_lock($1)", second)
        except Unavailable:
            return "again"
        return "done"

    outcomes = await asyncio.gather(crossing(1, 2), crossing(2, 1))
    assert sorted(outcomes) == ["again", "done"]


async def test_what_waits_for_a_commit_is_woken_by_it_alone(
    service_database: MakeDatabase,
) -> None:
    database = (await service_database("lease")).database
    woken: list[str] = []
    with pytest.raises(RuntimeError, match="rolled back"):
        async with database.transaction("roses"):
            after_commit(lambda: woken.append("never"))
            raise RuntimeError("rolled back")
    async with database.transaction("roses"):
        after_commit(lambda: woken.append("then"))
        assert woken == []
    assert woken == ["then"]
    with pytest.raises(RuntimeError, match=r"outside of Database\.transaction"):
        after_commit(lambda: None)


async def test_database_closes_though_a_transaction_is_open(
    service_database: MakeDatabase,
) -> None:
    database = (await service_database("lease")).database
    entered = asyncio.Event()

    async def hang() -> None:
        async with database.transaction("roses") as tx:
            entered.set()
            await tx.execute("SELECT pg_sleep(60)")

    hanging = asyncio.create_task(hang())
    await entered.wait()
    await database.close(timeout=0.1)
    with pytest.raises(Unavailable):
        await hanging
    with pytest.raises(Unavailable):
        async with database.transaction("roses"):
            pass


async def test_cancelled_transaction_stays_cancelled_when_its_connection_is_gone(
    service_database: MakeDatabase,
) -> None:
    database = (await service_database("lease")).database
    entered = asyncio.Event()

    async def hang() -> None:
        async with database.transaction("roses") as tx:
            entered.set()
            try:
                await asyncio.Event().wait()
            finally:
                tx.terminate()

    hanging = asyncio.create_task(hang())
    await entered.wait()
    hanging.cancel()
    with pytest.raises(asyncio.CancelledError):
        await hanging


async def test_misuse_of_a_connection_is_not_taken_for_an_outage(
    service_database: MakeDatabase,
) -> None:
    database = (await service_database("lease")).database
    with pytest.raises(asyncpg.InterfaceError, match="the server expects 1 argument"):
        async with database.transaction("roses") as tx:
            await tx.fetchval("SELECT $1::int")
