"""A database and three roles a service, and the migrations. On every start; idempotent."""

import asyncio
import base64
import hashlib
import hmac
import os
from collections.abc import AsyncIterable, Awaitable, Callable, Collection, Sequence
from importlib import import_module
from pathlib import Path
from typing import Protocol

import asyncpg  # type: ignore[import-untyped]  # has no stubs

from flowerbed.contracts.topology import SERVICES
from flowerbed.embedded.errors import ComponentFailed
from flowerbed.embedded.postgres import SUPERUSER, Place
from flowerbed.embedded.setup import Setup
from flowerbed.events.connection import Connection, Row
from flowerbed.events.errors import FlowerbedError
from flowerbed.events.migrate import Step, migrate
from flowerbed.events.provision import RolePasswords, provision


class Session(Connection, Protocol):
    """A connection that also moves whole tables."""

    def cursor(self, query: str, *, prefetch: int = 50) -> AsyncIterable[Row]: ...

    async def copy_from_query(
        self, query: str, *, output: Callable[[bytes], Awaitable[None]]
    ) -> str: ...

    async def copy_to_table(
        self,
        table_name: str,
        *,
        source: AsyncIterable[bytes],
        columns: Sequence[str],
        schema_name: str,
    ) -> str: ...


SPEAKS_FIRST = "orchestrator"
"""Whose new facts the other services must be ready for."""


async def provision_databases(setup: Setup, place: Place) -> None:
    """For all services, whichever of them run: that may change."""
    connection = await connect(setup, SUPERUSER, "postgres")
    try:
        await _refuse_another_server(connection, place)
        for service in SERVICES:
            await provision(connection, service, _verifiers(setup, service))
    finally:
        await connection.close()


async def migrate_databases(setup: Setup, services: tuple[str, ...]) -> None:
    """What comes before the services start; those of the release before could still run."""
    await asyncio.gather(*(_migrate(setup, service, "before") for service in services))


async def finish_migrations(setup: Setup, services: tuple[str, ...]) -> None:
    """What comes after: every replica runs this release, and its facts may be recorded."""
    others = [service for service in services if service != SPEAKS_FIRST]
    await asyncio.gather(*(_migrate(setup, service, "after") for service in others))
    if SPEAKS_FIRST in services:
        await _migrate(setup, SPEAKS_FIRST, "after")


def scram_verifier(password: str, salt: bytes, iterations: int = 4096) -> str:
    """What Postgres stores of a password; sent in its place, it keeps the password out of logs."""
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, iterations)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    stored = base64.b64encode(hashlib.sha256(client_key).digest()).decode()
    server = base64.b64encode(hmac.digest(salted, b"Server Key", "sha256")).decode()
    return f"SCRAM-SHA-256${iterations}:{base64.b64encode(salt).decode()}${stored}:{server}"


async def _refuse_another_server(connection: Connection, place: Place) -> None:
    served = await connection.fetchval("SHOW data_directory")
    if not await asyncio.to_thread(os.path.samefile, served, place.data):
        raise ComponentFailed("postgres", f"the server that answers serves {served}")


def _verifiers(setup: Setup, service: str) -> RolePasswords:
    def verifier(role: str) -> str:
        return scram_verifier(setup.credentials.postgres[f"{service}_{role}"], os.urandom(16))

    return RolePasswords(owner=verifier("owner"), app=verifier("app"), reader=verifier("reader"))


async def migrate_as_of(setup: Setup, service: str, names: Collection[str]) -> None:
    """Of a service's migrations those that are named: the tables of an earlier day."""
    await _migrate(setup, service, "both", names)


async def _migrate(
    setup: Setup, service: str, step: Step, only: Collection[str] | None = None
) -> None:
    """The library's migrations and, where the service has some, its own."""
    package = import_module(f"flowerbed.{service}")
    own: list[Path] = [package.MIGRATIONS] if hasattr(package, "MIGRATIONS") else []
    connection = await connect(setup, f"{service}_owner", service)
    try:
        await migrate(connection, service, own, step=step, only=only)
    except (asyncpg.PostgresError, FlowerbedError) as error:
        raise ComponentFailed(service, f"its migrations failed: {error}") from error
    finally:
        await connection.close()


async def connect(setup: Setup, user: str, database: str) -> Session:
    """Raises: ComponentFailed: Postgres is away, or does not know that user."""
    try:
        connection: Session = await asyncpg.connect(
            host="127.0.0.1",
            port=setup.ports["postgres"],
            user=user,
            password=setup.credentials.postgres[user],
            database=database,
            ssl=False,
            timeout=10,
        )
    except (OSError, asyncpg.PostgresError) as error:
        raise ComponentFailed("postgres", f"{user} cannot connect: {error}") from error
    return connection
