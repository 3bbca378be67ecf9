"""Rebuilding a projection beside the live table, and applying migrations."""

import asyncio
from pathlib import Path

import asyncpg  # type: ignore[import-untyped]  # has no stubs
import pytest

from flowerbed.events.commands import execute, handle
from flowerbed.events.connection import Connection
from flowerbed.events.context import Context
from flowerbed.events.database import set_tenant
from flowerbed.events.errors import Conflict, FlowerbedError, Unavailable
from flowerbed.events.migrate import MigrationChanged, migrate
from flowerbed.events.projection import Projection
from flowerbed.events.provision import provision
from flowerbed.events.rebuild import rebuild
from flowerbed.events.store import EventStore
from tests.support.garden import MIGRATIONS, ROSES, TULIPS, Sow, Water, bed, beds, codec
from tests.support.servers import MakeDatabase, PostgresServer, ServiceDatabase, eventually

store = EventStore(codec, [beds])


async def rows(made: ServiceDatabase) -> list[tuple[str, str, int]]:
    async with made.database.read_all() as connection:
        found = await connection.fetch("SELECT stream, tenant, litres FROM beds ORDER BY stream")
    return [tuple(row) for row in found]


async def fill(made: ServiceDatabase, beds_of_each: int = 3) -> None:
    for context in (ROSES, TULIPS):
        for number in range(beds_of_each):
            stream = f"{context.tenant}-{number}"
            await handle(made.database, store, bed, stream, Sow(seed="a"), context)
            await handle(made.database, store, bed, stream, Water(litres=number), context)


async def test_projection_is_applied_in_the_transaction_of_the_append(
    service_database: MakeDatabase,
) -> None:
    made = await service_database("lease", [MIGRATIONS])
    await fill(made, 1)
    assert await rows(made) == [("roses-0", "roses", 0), ("tulips-0", "tulips", 0)]


async def test_rebuilt_table_equals_the_live_one_and_keeps_its_guards(
    service_database: MakeDatabase,
) -> None:
    made = await service_database("lease", [MIGRATIONS])
    await fill(made)
    before = await rows(made)
    owner = await made.owner()
    await set_tenant_and(owner, "roses", "UPDATE beds SET litres = 99")
    assert await rows(made) != before
    assert await rebuild(owner, beds, store) == 12
    assert await rows(made) == before
    async with made.database.transaction("roses") as tx:
        assert {row["tenant"] for row in await tx.fetch("SELECT tenant FROM beds")} == {"roses"}
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        async with made.database.transaction("roses") as tx:
            await tx.execute("INSERT INTO beds VALUES ('x', 'tulips', 'a')")
    await handle(made.database, store, bed, "roses-0", Water(litres=5), ROSES)
    assert ("roses-0", "roses", 5) in await rows(made)
    assert await rebuild(owner, beds, store) == 13


async def test_rebuild_goes_on_beside_writers(service_database: MakeDatabase) -> None:
    made = await service_database("lease", [MIGRATIONS])
    await fill(made)
    stop = asyncio.Event()
    written = 0

    async def write(stream: str) -> None:
        nonlocal written
        while not stop.is_set():
            await handle(made.database, store, bed, stream, Water(litres=1), ROSES)
            written += 1

    writers = [asyncio.create_task(write(f"roses-{number}")) for number in range(3)]
    slowly = Projection(beds.name, beds.tables, _slower)
    folded = await rebuild(await made.owner(), slowly, store)
    at_switch = written
    stop.set()
    await asyncio.gather(*writers)
    assert at_switch > 0
    assert folded >= 12
    async with made.database.read_all() as connection:
        events = await connection.fetchval("SELECT count(*) FROM events")
    assert events == 12 + written
    litres = {stream: total for stream, _, total in await rows(made)}
    async with made.database.transaction("roses") as tx:
        for number in range(3):
            stream = f"roses-{number}"
            state = bed.replay(one.event for one in await store.read(tx, stream))
            assert litres[stream] == state.litres, stream


async def test_switch_is_tried_again_when_it_met_a_reader_that_appends(
    service_database: MakeDatabase,
) -> None:
    made = await service_database("lease", [MIGRATIONS])
    await fill(made)
    owner = await made.owner()

    async def locked() -> bool:
        async with made.database.read_all() as connection:
            waiting: int = await connection.fetchval(
                "SELECT count(*) FROM pg_locks WHERE locktype = 'relation' AND NOT granted"
            )
        return waiting > 0

    for _ in range(5):
        try:
            async with made.database.transaction("roses") as tx:
                await tx.fetch("SELECT * FROM beds")
                rebuilding = asyncio.create_task(rebuild(owner, beds, store))
                await eventually(locked, "the rebuild waits for the reader")
                # It has waited longest, so of the two it is the one that Postgres turns down.
                await execute(tx, store, bed, "roses-0", Water(litres=5), ROSES)
            break
        except Unavailable:  # so long that Postgres had looked at it before; once more
            assert await rebuilding == 12
    assert await rebuilding == 13
    assert ("roses-0", "roses", 5) in await rows(made)


async def _slower(tx: Connection, recorded: object) -> None:
    await beds.apply(tx, recorded)  # type: ignore[arg-type]
    await tx.execute("SELECT pg_sleep(0.01)")


async def test_projection_without_its_table_cannot_be_rebuilt(
    service_database: MakeDatabase,
) -> None:
    made = await service_database("lease", [MIGRATIONS])
    wrong = Projection("roots", ("roots",), beds.apply)
    with pytest.raises(FlowerbedError, match="'roots' has no table 'roots'"):
        await rebuild(await made.owner(), wrong, store)


async def test_migrations_are_applied_once_in_order(
    service_database: MakeDatabase, tmp_path: Path
) -> None:
    made = await service_database("lease", [MIGRATIONS])
    owner = await made.owner()
    assert await migrate(owner, "lease", [MIGRATIONS]) == []
    new = tmp_path / "0102_more.sql"
    new.write_text(
        "CREATE TABLE more (tenant text); SELECT protect_tenants('more');"
        " GRANT ALL ON more TO :app;"
    )
    try:
        assert await migrate(owner, "lease", [MIGRATIONS, tmp_path]) == ["0102_more.sql"]
        assert await migrate(_dsn(made), "lease", [MIGRATIONS, tmp_path]) == []
        new.write_text("DROP TABLE events;")
        with pytest.raises(MigrationChanged, match=r"0102_more\.sql was changed"):
            await migrate(owner, "lease", [MIGRATIONS, tmp_path])
        (tmp_path / "oops.sql").touch()
        with pytest.raises(FlowerbedError, match=r"'oops\.sql' is not named"):
            await migrate(owner, "lease", [tmp_path])
    finally:
        await owner.execute("DROP TABLE IF EXISTS more")
        await owner.execute("DELETE FROM schema_migrations WHERE name = '0102_more.sql'")


async def test_migration_that_fails_leaves_nothing(
    service_database: MakeDatabase, tmp_path: Path
) -> None:
    owner = await (await service_database("lease")).owner()
    (tmp_path / "0199_broken.sql").write_text("CREATE TABLE half (x int); SELECT nonsense;")
    with pytest.raises(asyncpg.PostgresError):
        await migrate(owner, "lease", [tmp_path])
    assert await owner.fetchval("SELECT to_regclass('half')") is None


async def test_migrating_without_postgres_is_unavailable(postgres_server: PostgresServer) -> None:
    with pytest.raises(Unavailable):
        await migrate("postgresql://nobody:x@127.0.0.1:1/none", "lease")


async def test_provisioning_again_sets_the_passwords_anew(
    postgres_server: PostgresServer, service_database: MakeDatabase
) -> None:
    made = await service_database("lease")
    admin = await postgres_server.connect()
    await provision(admin, "lease", postgres_server.passwords("lease"), database=made.address.name)
    bypassing = await admin.fetchval(
        "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'lease%'"
        " AND (rolbypassrls OR rolsuper OR rolcreaterole)"
    )
    assert bypassing == 0
    await admin.close()
    assert str(made.address).endswith(f"/{made.address.name})")
    assert made.address.password not in repr(made.address)
    try:
        await store.append(await made.owner(), "s", [], expected=0, context=Context(tenant="roses"))
    except Conflict:
        pytest.fail("appending nothing cannot conflict")


def _dsn(made: ServiceDatabase) -> str:
    login = made.owner_login
    return (
        f"postgresql://{login['user']}:{login['password']}@{login['host']}:{login['port']}"
        f"/{login['database']}"
    )


async def set_tenant_and(owner: Connection, tenant: str, statement: str) -> None:
    async with owner.transaction():
        await set_tenant(owner, tenant)
        await owner.execute(statement)
