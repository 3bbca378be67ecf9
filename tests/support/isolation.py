"""Row-level security, proved on every table of a service's database."""

from collections.abc import Collection

import asyncpg  # type: ignore[import-untyped]  # has no stubs

from flowerbed.events.connection import Connection
from tests.support.servers import ServiceDatabase

TENANTLESS = {"schema_migrations", "relay_marks", "roles", "release"}
"""Tables that belong to no tenant and say nothing of any."""
CURSORS = {"trace_cursor"}
"""The same, in some services."""


async def tenant_tables(made: ServiceDatabase) -> list[str]:
    """Every table but the tenantless ones; each has a tenant, and row-level security is forced."""
    async with made.database.read_all() as connection:
        rows = await connection.fetch(
            "SELECT c.relname, c.relrowsecurity AND c.relforcerowsecurity AS is_walled,"
            " EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid"
            " AND a.attname = 'tenant' AND a.attnotnull) AS has_tenant"
            " FROM pg_class c WHERE c.relkind IN ('r', 'p')"
            " AND c.relnamespace = 'public'::regnamespace"
        )
    tables = {row["relname"]: row for row in rows}
    assert tables.keys() >= TENANTLESS
    for name in tables.keys() - TENANTLESS - CURSORS:
        assert tables[name]["has_tenant"], f"{name} has no tenant"
        assert tables[name]["is_walled"], f"{name} has no forced row-level security"
    return sorted(tables.keys() - TENANTLESS - CURSORS)


async def assert_walled(
    made: ServiceDatabase, mine: str, other: str, empty: Collection[str]
) -> None:
    """`mine` has rows in every table but `empty` ones, and `other` can neither see, change nor
    forge one; nor can who says no tenant."""
    await _role_cannot_bypass(made)
    for table in await tenant_tables(made):
        assert await _count(made, table, mine) > 0 or table in empty, f"{table}: nothing to hide"
        rows = await _foreign_rows(made, table, other)
        assert rows == 0, f"{other} sees {rows} rows of {table}"
        assert await _count(made, table, "") == 0, f"without a tenant {table} shows rows"
        async with made.database.transaction(other) as tx:
            if table == "events":
                await _refused(made, "DELETE FROM events", other)
                await _refused(made, "UPDATE events SET data = '{}'", other)
            else:
                assert (
                    await tx.execute(f"DELETE FROM {table} WHERE tenant = '{mine}'") == "DELETE 0"
                )
        await _cannot_forge(made, table, mine, other)


async def _role_cannot_bypass(made: ServiceDatabase) -> None:
    async with made.database.transaction("_") as tx:
        role = await tx.fetchrow(
            "SELECT rolsuper, rolbypassrls, rolcreaterole FROM pg_roles"
            " WHERE rolname = current_user"
        )
        owned = await tx.fetchval("SELECT count(*) FROM pg_tables WHERE tableowner = current_user")
    assert role is not None and not any(dict(role).values())
    assert owned == 0, "the app role owns a table and could lift its walls"


async def _count(made: ServiceDatabase, table: str, tenant: str) -> int:
    async with made.database.transaction(tenant) as tx:
        return int(await tx.fetchval(f"SELECT count(*) FROM {table}"))


async def _foreign_rows(made: ServiceDatabase, table: str, tenant: str) -> int:
    async with made.database.transaction(tenant) as tx:
        return int(await tx.fetchval(f"SELECT count(*) FROM {table} WHERE tenant <> $1", tenant))


async def _refused(made: ServiceDatabase, statement: str, tenant: str) -> None:
    try:
        async with made.database.transaction(tenant) as tx:
            await tx.execute(statement)
    except asyncpg.InsufficientPrivilegeError:
        return
    raise AssertionError(f"allowed: {statement}")


async def _cannot_forge(made: ServiceDatabase, table: str, mine: str, other: str) -> None:
    """A row that says it is `mine`, copied from a real one, is refused to `other`."""
    async with made.database.read_all() as reader:
        columns = await _columns(reader, table)
        row = await reader.fetchrow(f"SELECT {columns} FROM {table} WHERE tenant = $1", mine)
    if row is None:
        return
    places = ", ".join(f"${place}" for place in range(1, len(row) + 1))
    try:
        async with made.database.transaction(other) as tx:
            await tx.execute(f"INSERT INTO {table} ({columns}) VALUES ({places})", *row.values())
    except asyncpg.InsufficientPrivilegeError:
        return
    raise AssertionError(f"{other} wrote a row of {mine} into {table}")


async def _columns(reader: Connection, table: str) -> str:
    rows = await reader.fetch(
        "SELECT quote_ident(attname) AS name FROM pg_attribute WHERE attrelid = $1::regclass"
        " AND attnum > 0 AND NOT attisdropped AND attidentity = ''"
        " AND attgenerated = '' ORDER BY attnum",
        table,
    )
    return ", ".join(row["name"] for row in rows)
