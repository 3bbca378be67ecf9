"""A service's Postgres database: transactions of one tenant, and reads over all of them.

Two pools, two roles: `<service>_app` sees one tenant at a time (row-level security) and may
not change events; `<service>_reader` may only read, over all tenants.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import asyncpg  # type: ignore[import-untyped]  # has no stubs

from flowerbed.events.connection import Connection
from flowerbed.events.errors import RoleLost, Unavailable
from flowerbed.events.states import States

__all__ = [
    "Address",
    "Connection",
    "Database",
    "Fence",
    "after_commit",
    "fence",
    "known_states",
    "mark_appended",
    "set_tenant",
    "translated",
]

_AWAY = (
    OSError,
    asyncio.TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InternalClientError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.TooManyConnectionsError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
    asyncpg.IdleInTransactionSessionTimeoutError,
)

# A long transaction holds the relay back (it waits for everything older), so none may idle.
_SERVER_SETTINGS = {
    "statement_timeout": "30s",
    "idle_in_transaction_session_timeout": "5s",
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "3",
}


@dataclass(frozen=True, slots=True)
class Fence:
    """A role as it is held: whoever takes it next has a higher epoch."""

    role: str
    epoch: int


fence: ContextVar[Fence | None] = ContextVar("fence", default=None)
"""The role in which this task works; its transactions commit only while the role is held."""

_appended: ContextVar[list[bool] | None] = ContextVar("appended", default=None)
_committed: ContextVar[list[Callable[[], None]] | None] = ContextVar("committed", default=None)
_states: ContextVar[States | None] = ContextVar("states", default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where the database is, and the two roles that a service connects as."""

    host: str
    port: int
    name: str
    user: str
    password: str
    reader_user: str
    reader_password: str

    def app(self) -> dict[str, Any]:
        return self._login(self.user, self.password)

    def reader(self) -> dict[str, Any]:
        return self._login(self.reader_user, self.reader_password)

    def _login(self, user: str, password: str) -> dict[str, Any]:
        return {
            "host": self.host,
            "port": self.port,
            "database": self.name,
            "user": user,
            "password": password,
        }

    def __repr__(self) -> str:
        return f"Address({self.user}@{self.host}:{self.port}/{self.name})"


def mark_appended() -> None:
    """Say that the current transaction recorded events, so the relay is woken on commit."""
    flag = _appended.get()
    if flag is not None:
        flag[0] = True


def after_commit(wake: Callable[[], None]) -> None:
    """Call `wake` when the current transaction has committed; never if it rolls back.

    For signals inside this process, such as waking a long poll. Losing one costs time, no fact.
    """
    waiting = _committed.get()
    if waiting is None:
        raise RuntimeError("after_commit outside of Database.transaction")
    waiting.append(wake)


def known_states() -> States:
    """What the streams of the current transaction's database have come to."""
    states = _states.get()
    if states is None:
        raise RuntimeError("known_states outside of Database.transaction")
    return states


async def set_tenant(tx: Connection, tenant: str) -> None:
    """From here to the end of the transaction, rows of `tenant` are seen and written."""
    await tx.execute("SELECT set_config('flowerbed.tenant', $1, true)", tenant)


async def _enter(tx: Connection, tenant: str) -> None:
    held = fence.get()
    if held is None:
        await set_tenant(tx, tenant)
        return
    is_held = await tx.fetchval(
        "SELECT enter_role($2, $3) FROM set_config('flowerbed.tenant', $1, true)",
        tenant,
        held.role,
        held.epoch,
    )
    if not is_held:
        raise RoleLost(f"another replica has taken the role of {held.role!r}")


@contextmanager
def translated() -> Iterator[None]:
    """Whatever says that Postgres is away becomes Unavailable."""
    try:
        yield
    except _AWAY as error:
        raise _unavailable(type(error).__name__) from error
    except asyncpg.InterfaceError as error:
        if "clos" not in str(error) and "another operation" not in str(error):
            raise
        raise _unavailable("connection closed") from error


def _unavailable(reason: str) -> BaseException:
    """A rollback that fails while its task is being cancelled must not hide the cancellation."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        return asyncio.CancelledError()
    return Unavailable(f"postgres did not answer: {reason}")


class Database:
    """Opens without I/O; the first query connects, and every later one if it must."""

    def __init__(
        self,
        address: Address,
        *,
        size: int = 10,
        reader_size: int = 4,
        timeout: float = 5.0,
        on_append: Callable[[], None] | None = None,
    ) -> None:
        self.address = address
        self.on_append = on_append
        self.states = States()
        self._timeout = timeout
        self._sizes = (size, reader_size)
        self._pool: Any = None
        self._reader: Any = None

    @property
    def pool(self) -> Any:
        """The app role's asyncpg.Pool."""
        return self._pool

    @property
    def reader(self) -> Any:
        """The reader role's asyncpg.Pool."""
        return self._reader

    async def open(self) -> None:
        self._pool = await _pool(self.address.app(), self._sizes[0], self._timeout, {})
        self._reader = await _pool(
            self.address.reader(),
            self._sizes[1],
            self._timeout,
            # A plan made for other bounds of a window could read the whole table.
            {"default_transaction_read_only": "on", "plan_cache_mode": "force_custom_plan"},
        )

    async def close(self, timeout: float = 5.0) -> None:
        for pool in (self._pool, self._reader):
            if pool is None:
                continue
            try:
                await asyncio.wait_for(pool.close(), timeout)
            except (TimeoutError, OSError):
                pool.terminate()

    @asynccontextmanager
    async def transaction(self, tenant: str) -> AsyncIterator[Connection]:
        """One transaction as the app role, on rows of `tenant`.

        Raises:
            RoleLost: this task works in a role that another replica has taken.
            Unavailable: Postgres is away; whether a commit under way was made is not known.
        """
        flag, wakes = [False], list[Callable[[], None]]()
        tokens = _appended.set(flag), _committed.set(wakes), _states.set(self.states)
        try:
            with translated():
                async with self._acquired(self._pool) as tx, tx.transaction():
                    await _enter(tx, tenant)
                    yield tx
        finally:
            _reset(*tokens)
        for wake in wakes:
            wake()
        if flag[0] and self.on_append is not None:
            self.on_append()

    @asynccontextmanager
    async def read_all(self) -> AsyncIterator[Connection]:
        """A connection that only reads, over all tenants."""
        with translated():
            async with self._acquired(self._reader) as connection:
                yield connection

    @asynccontextmanager
    async def _acquired(self, pool: Any) -> AsyncIterator[Connection]:
        async with pool.acquire(timeout=self._timeout) as connection:
            try:
                yield connection
            except asyncpg.InternalClientError:  # it broke while being told so
                connection.terminate()
                raise

    async def connect_app(self, **settings: str) -> Connection:
        """A connection of its own, outside the pools: for session locks."""
        with translated():
            connection: Connection = await asyncpg.connect(
                **self.address.app(), timeout=self._timeout, server_settings=settings
            )
        return connection


def _reset(appended: Any, committed: Any, states: Any) -> None:
    try:
        _appended.reset(appended)
        _committed.reset(committed)
        _states.reset(states)
    except ValueError:  # a generator that is closed from another context
        _appended.set(None)
        _committed.set(None)
        _states.set(None)


async def _pool(login: dict[str, Any], size: int, timeout: float, more: dict[str, str]) -> Any:
    return await asyncpg.create_pool(
        **login,
        min_size=0,
        max_size=size,
        timeout=timeout,
        command_timeout=35,
        reset=_nothing_to_reset,
        server_settings={**_SERVER_SETTINGS, **more},
    )


async def _nothing_to_reset(connection: Connection) -> None:
    """Settings are local to transactions, so the usual round trip on release is saved."""
