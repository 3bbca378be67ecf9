"""Migrations before and after, and the number of the release whose facts may be recorded."""

from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg  # type: ignore[import-untyped]  # has no stubs
import pytest

from flowerbed.events import release
from flowerbed.events.connection import Connection
from flowerbed.events.declare import retire_durables
from flowerbed.events.errors import FlowerbedError
from flowerbed.events.jetstream import Bus
from flowerbed.events.migrate import MIGRATIONS as LIBRARY
from flowerbed.events.migrate import migrate
from flowerbed.events.provision import provision
from flowerbed.events.release import RELEASE, NewerRelease
from tests.support.servers import PostgresServer

FIRST = ("0001_events.sql",)


@pytest.fixture
async def owner(postgres_server: PostgresServer) -> AsyncIterator[Connection]:
    """Of a database in which nothing was ever migrated."""
    name = postgres_server.new_name("lease")
    admin = await postgres_server.connect()
    passwords = postgres_server.passwords("lease")
    await provision(admin, "lease", passwords, database=name)
    login = {**postgres_server.login(name), "user": "lease_owner", "password": passwords.owner}
    connection = await asyncpg.connect(**login)
    yield connection
    await connection.close()
    await admin.execute(f"DROP DATABASE {name}")
    await admin.close()


@pytest.fixture
def own(tmp_path: Path) -> Path:
    (tmp_path / "0101_beds.sql").write_text("CREATE TABLE beds (a int PRIMARY KEY, b int);")
    (tmp_path / "0102_wide.sql").write_text("ALTER TABLE beds ADD COLUMN c int;")
    (tmp_path / "0102_wide.after.sql").write_text("ALTER TABLE beds DROP COLUMN b;")
    return tmp_path


async def columns(owner: Connection) -> list[str]:
    rows = await owner.fetch(
        "SELECT attname FROM pg_attribute WHERE attrelid = 'beds'::regclass"
        " AND attnum > 0 AND NOT attisdropped ORDER BY attname"
    )
    return [row["attname"] for row in rows]


async def the_release_before(owner: Connection, own: Path) -> None:
    await migrate(owner, "lease", [own], only=(*FIRST, "0101_beds.sql"))


async def test_what_comes_after_waits_for_its_step(owner: Connection, own: Path) -> None:
    await the_release_before(owner, own)
    before = [path.name for path in sorted(LIBRARY.glob("*.sql"))][1:]
    applied = await migrate(owner, "lease", [own], step="before")
    assert applied == [*before, "0102_wide.sql"]
    assert await columns(owner) == ["a", "b", "c"]
    assert (await release.current(owner), await release.reached(owner)) == (1, False)
    assert await migrate(owner, "lease", [own], step="before") == []

    assert await migrate(owner, "lease", [own], step="after") == ["0102_wide.after.sql"]
    assert await columns(owner) == ["a", "c"]
    assert (await release.current(owner), await release.reached(owner)) == (RELEASE, True)
    assert await migrate(owner, "lease", [own], step="after") == []


async def test_a_new_database_gets_everything_at_once(owner: Connection, own: Path) -> None:
    await migrate(owner, "lease", [own], step="before")
    assert await columns(owner) == ["a", "c"]
    assert await release.current(owner) == RELEASE


async def test_the_number_never_falls_and_a_later_one_is_refused(
    owner: Connection, own: Path
) -> None:
    await migrate(owner, "lease", [own])
    await release.raise_to(owner, RELEASE - 1)
    assert await release.current(owner) == RELEASE
    await release.raise_to(owner, RELEASE + 1)
    (own / "0103_more.sql").write_text("CREATE TABLE more (a int);")
    with pytest.raises(NewerRelease, match=f"of release {RELEASE + 1}, this is release {RELEASE}"):
        await migrate(owner, "lease", [own])
    assert await owner.fetchval("SELECT to_regclass('more')") is None


async def test_a_service_cannot_raise_the_number(
    owner: Connection, own: Path, postgres_server: PostgresServer
) -> None:
    await migrate(owner, "lease", [own])
    name = await owner.fetchval("SELECT current_database()")
    password = postgres_server.passwords("lease").app
    login = {**postgres_server.login(name), "user": "lease_app", "password": password}
    app = await asyncpg.connect(**login)
    try:
        assert await release.reached(app)
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await release.raise_to(app, RELEASE + 1)
    finally:
        await app.close()


async def test_an_earlier_day_needs_files_that_are_known(owner: Connection, own: Path) -> None:
    with pytest.raises(FlowerbedError, match=r"0199_other\.sql is not known here"):
        await migrate(owner, "lease", [own], only=(*FIRST, "0199_other.sql"))


async def test_durables_of_an_earlier_release_go_and_those_of_today_stay(
    fresh_streams: Bus,
) -> None:
    async def durables() -> set[str]:
        return set((await fresh_streams.api("CONSUMER.NAMES.FL_LEASE", {}))["consumers"])

    today = await durables()
    config = {"durable_name": "orchestrator", "ack_policy": "explicit"}
    await fresh_streams.api(
        "CONSUMER.DURABLE.CREATE.FL_LEASE.orchestrator",
        {"stream_name": "FL_LEASE", "config": config},
    )
    assert await durables() == today | {"orchestrator"}
    for _ in range(2):
        await retire_durables(fresh_streams)
        assert await durables() == today
