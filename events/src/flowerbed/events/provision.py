"""Create a service's database and its three roles; a superuser does it once.

`<service>_owner` runs migrations, `<service>_app` is the service, `<service>_reader` only
reads. None may bypass row-level security. Running it again sets the passwords anew.
"""

from dataclasses import dataclass, field

from flowerbed.events.connection import Connection


@dataclass(frozen=True, slots=True, kw_only=True)
class RolePasswords:
    owner: str = field(repr=False)
    app: str = field(repr=False)
    reader: str = field(repr=False)


async def provision(
    admin: Connection, service: str, passwords: RolePasswords, *, database: str | None = None
) -> None:
    """Make sure that `database` (named as the service by default) and the roles exist."""
    name = database or service
    for role, password in (
        ("owner", passwords.owner),
        ("app", passwords.app),
        ("reader", passwords.reader),
    ):
        await _role(admin, f"{service}_{role}", password)
    if not await admin.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", name):
        await _formatted(admin, "CREATE DATABASE %I OWNER %I", name, f"{service}_owner")
    await _formatted(admin, "REVOKE ALL ON DATABASE %I FROM PUBLIC", name)
    for role in ("app", "reader"):
        await _formatted(admin, "GRANT CONNECT ON DATABASE %I TO %I", name, f"{service}_{role}")


async def _role(admin: Connection, role: str, password: str) -> None:
    if not await admin.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", role):
        await _formatted(admin, "CREATE ROLE %I", role)
    await _formatted(
        admin,
        "ALTER ROLE %I LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOBYPASSRLS PASSWORD %L",
        role,
        password,
    )


async def _formatted(admin: Connection, template: str, *names: str) -> None:
    """DDL takes no parameters, so Postgres itself quotes the names."""
    places = ", ".join(f"${number}::text" for number in range(2, len(names) + 2))
    statement = await admin.fetchval(f"SELECT format($1, {places})", template, *names)
    await admin.execute(statement)
