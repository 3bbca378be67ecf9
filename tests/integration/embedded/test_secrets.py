"""Secrets lie in files that only their owner reads, and are seen nowhere else."""

import asyncio
import stat
from pathlib import Path

import asyncpg  # type: ignore[import-untyped]
import pytest

from flowerbed.contracts.topology import SERVICES
from flowerbed.embedded import probes
from flowerbed.embedded.credentials import read_credentials
from flowerbed.embedded.stack import Stack
from tests.integration.embedded.observing import command_and_environment, processes


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_every_secret_is_readable_by_its_owner_only(servers: Stack) -> None:
    directory = servers.layout.secrets
    files = [path for path in directory.rglob("*") if path.is_file()]

    assert mode(directory) == 0o700
    assert len(files) > 8
    assert {mode(path) for path in files} == {0o600}
    assert {mode(path) for path in directory.rglob("*") if path.is_dir()} == {0o700}


def test_no_secret_outside_that_directory(servers: Stack) -> None:
    """Postgres keeps only verifiers; the password that made it is gone."""
    secrets = [value.encode() for value in read_credentials(servers.layout).values()]
    root, hidden = servers.state_dir, servers.layout.secrets
    files = [path for path in root.rglob("*") if path.is_file() and hidden not in path.parents]
    files += [path for path in servers.layout.postgres.rglob("*") if path.is_file()]

    found = {path for path in files for value in secrets if value in path.read_bytes()}

    assert len(files) > 100
    assert not found


def test_no_secret_in_an_argument_or_an_environment(servers: Stack) -> None:
    secrets = [value.encode() for value in read_credentials(servers.layout).values()]
    seen = {item.pid: command_and_environment(item.pid) for item in processes(servers)}

    assert all(seen.values())
    assert not [pid for pid, text in seen.items() if any(value in text for value in secrets)]


def test_credentials_do_not_show_when_printed(servers: Stack) -> None:
    credentials = read_credentials(servers.layout)

    assert not [value for value in credentials.values() if value in repr(credentials)]


def test_wrong_s3_key_is_refused(servers: Stack) -> None:
    port, access = servers.port("s3"), servers.s3

    assert probes.s3_call("GET", port, "/", access.access_key, "guessed")[0] == 403
    assert probes.http_status(port, "/flowerbed")[0] == 403


def test_s3_parts_give_nothing_to_those_without_a_key(servers: Stack) -> None:
    """The filer would serve every object, had it no key of its own."""
    access = servers.s3
    probes.s3_call("PUT", servers.port("s3"), "/flowerbed/x", access.access_key, access.secret_key)

    assert probes.http_status(servers.port("s3_filer"), "/buckets/flowerbed/x")[0] == 401
    for path in ("/", "/admin", "/object-store/users", "/api/config"):
        assert probes.http_status(servers.port("s3_admin"), path)[0] == 404


def test_postgres_wants_the_password(servers: Stack) -> None:
    async def connect(password: str) -> None:
        port = servers.port("postgres")
        connection = await asyncpg.connect(
            host="127.0.0.1", port=port, user="lease_app", password=password, database="lease"
        )
        await connection.close()

    with pytest.raises(asyncpg.InvalidPasswordError):
        asyncio.run(connect("guessed"))
    asyncio.run(connect(read_credentials(servers.layout).postgres["lease_app"]))


@pytest.mark.parametrize("service", SERVICES)
def test_role_of_a_service_has_no_power_beyond_its_database(servers: Stack, service: str) -> None:
    async def ask() -> None:
        connection = await asyncpg.connect(servers.postgres_dsn(service, "app"))
        role = await connection.fetchrow("SELECT * FROM pg_roles WHERE rolname = current_user")
        powers = ("rolsuper", "rolbypassrls", "rolcreaterole", "rolcreatedb", "rolreplication")
        assert not any(role[power] for power in powers)
        await connection.close()
        other = next(name for name in SERVICES if name != service)
        dsn = servers.postgres_dsn(service, "app").rsplit("/", 1)[0]
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await asyncpg.connect(f"{dsn}/{other}")

    asyncio.run(ask())
