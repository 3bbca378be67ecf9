"""Work that only one replica of a service does at a time.

A session advisory lock a role, all on one direct connection of the process. Every second the
connection is used: to show life, and to try for the roles not held. Postgres ends a session
that was idle for `SESSION_TIMEOUT` (a stopped process) or whose peer is gone, so a role moves
to another replica within 5 s.

Partitions are roles that replicas share out: each holds at most its share of them, and passes on
what is more when another replica has come. A role has an epoch that rises when it is taken; the
work's transactions carry it (`database.fence`), so what a replica begins in a role that it lost
without noticing is not committed.
"""

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from contextvars import copy_context
from dataclasses import dataclass, field
from typing import TypeAlias

from asyncpg import LockNotAvailableError  # type: ignore[import-untyped]  # has no stubs

from flowerbed.events.connection import Connection
from flowerbed.events.database import Database, Fence, fence, translated
from flowerbed.events.errors import RoleLost, Unavailable
from flowerbed.events.wakeup import Wakeup

__all__ = ["Leadership", "RoleLost", "partition_role"]

logger = logging.getLogger(__name__)

Work: TypeAlias = Callable[[], Awaitable[None]]

HEARTBEAT = 1.0
SESSION_TIMEOUT = "4s"
SURE_SECONDS = 3.0
"""After the last sign of life the session lives at least so long, so nobody else can lead."""

LOCK_TIMEOUT = "500ms"
"""How long to wait, at one go, for what a role's last holder has not ended yet."""

LEAVING_SECONDS = 5.0
"""How long work may take to end well when its role is passed on."""

_PREFIX = "partition "
_PRESENT = (20_741, 1)

_LIVE = """
SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted
AND classid = $1::int::oid AND objid = $2::int::oid AND objsubid = 2
AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""

_TRY = """
SELECT name FROM unnest($1::text[]) AS name
WHERE pg_try_advisory_lock(hashtextextended('flowerbed.' || name, 0)) LIMIT $2
"""


def partition_role(number: int) -> str:
    return f"{_PREFIX}{number}"


@dataclass(slots=True)
class Held:
    """`over` is set when the role is lost, or is to be passed on."""

    fence: Fence
    is_passed_on: bool = False
    over: "asyncio.Future[None]" = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    def lose(self) -> None:
        if not self.over.done():
            self.over.set_result(None)

    def pass_on(self) -> None:
        if not self.over.done():
            self.is_passed_on = True
            self.over.set_result(None)


def _always(role: str) -> bool:
    return True


class Leadership:
    """
    `shared`: how many partitions there are to share out among the replicas.
    `is_able`: whether this replica can do a role's work now; if not, another one may have it.
    """

    def __init__(
        self,
        database: Database,
        *,
        heartbeat: float = HEARTBEAT,
        shared: int = 0,
        is_able: Callable[[str], bool] = _always,
    ) -> None:
        self._database = database
        self._heartbeat = heartbeat
        self._shared = shared
        self._is_able = is_able
        self._connection: Connection | None = None
        self._using = asyncio.Lock()
        self._poke = Wakeup()
        self._wanted: dict[str, asyncio.Future[Held]] = {}
        self._held: dict[str, Held] = {}
        self._is_present = False
        self._confirmed_at = -math.inf

    def holds(self, role: str) -> bool:
        """Held, and nobody else can hold it yet, even if this process was stopped meanwhile."""
        return role in self._held and time.monotonic() - self._confirmed_at < SURE_SECONDS

    @property
    def roles(self) -> list[str]:
        return sorted(self._held)

    @property
    def partitions(self) -> list[int]:
        return [int(role.removeprefix(_PREFIX)) for role in self._partitions()]

    async def lead(self, role: str, work: Work, leave: Work | None = None) -> None:
        """Run `work` whenever this replica leads, and give the role up when it ends or fails.

        `leave` lets the work end well when the role is passed on; without it, it is cancelled.

        Raises:
            RoleLost: the role was lost meanwhile; the work has been cancelled.
        """
        while await self._is_to_lead_again(role, work, leave):
            logger.info("passed on the role of %r", role)

    async def _is_to_lead_again(self, role: str, work: Work, leave: Work | None) -> bool:
        held = await self._acquire(role)
        context = copy_context()
        context.run(fence.set, held.fence)
        task = asyncio.get_running_loop().create_task(_awaited(work), context=context)
        try:
            await asyncio.wait((task, held.over), return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                task.result()
                return False
            if not held.is_passed_on:
                raise RoleLost(f"lost the role of {role!r}")
            if leave is not None:
                with suppress(TimeoutError):
                    await asyncio.wait_for(leave(), LEAVING_SECONDS)
            return True
        finally:
            await _ended(task)
            await self._release(role)

    async def run(self) -> None:
        """Keep the connection and the roles, until cancelled."""
        try:
            while True:
                try:
                    await self._beat()
                except Unavailable as error:
                    if self._held:
                        logger.warning("lost %s: %s", ", ".join(self.roles), error)
                    self._drop()
                await self._poke.wait(self._heartbeat)
        finally:
            self._drop()

    async def _beat(self) -> None:
        if not self._wanted and not self._held:
            return
        async with self._using:
            with translated():
                connection = await self._connected()
                share = await self._share(connection)
                for role in await self._try(connection, share):
                    await self._take(connection, role)
        self._pass_on_beyond(share)

    async def _share(self, connection: Connection) -> int:
        """How many partitions this replica may hold; none if it can do nothing for them now."""
        is_able = self._is_able(_PREFIX)
        if is_able != self._is_present:
            lock = "pg_advisory_lock_shared" if is_able else "pg_advisory_unlock_shared"
            await connection.execute(f"SELECT {lock}($1, $2)", *_PRESENT, timeout=3)
            self._is_present = is_able
        began = time.monotonic()
        n_live = await connection.fetchval(_LIVE, *_PRESENT, timeout=3)
        self._confirmed_at = began
        return math.ceil(self._shared / max(1, n_live)) if is_able else 0

    async def _connected(self) -> Connection:
        if self._connection is not None and not self._connection.is_closed():
            return self._connection
        self._drop()
        self._connection = connection = await self._database.connect_app(
            idle_session_timeout=SESSION_TIMEOUT,
            tcp_keepalives_idle="1",
            tcp_keepalives_interval="1",
            tcp_keepalives_count="3",
            tcp_user_timeout="4000",
            lock_timeout=LOCK_TIMEOUT,
        )
        return connection

    async def _try(self, connection: Connection, share: int) -> Sequence[str]:
        """Roles whose lock is ours now: any of the single ones, of partitions up to our share."""
        wanted = [role for role in self._wanted if self._is_able(role)]
        single = [role for role in wanted if not role.startswith(_PREFIX)]
        shared = [role for role in wanted if role.startswith(_PREFIX)]
        room = max(0, share - len(self._partitions()))
        taken: list[str] = []
        for roles, most in ((single, len(single)), (shared, room)):
            if roles and most:
                rows = await connection.fetch(_TRY, roles, most, timeout=3)
                taken += [row["name"] for row in rows]
        return taken

    async def _take(self, connection: Connection, role: str) -> None:
        began = time.monotonic()
        try:
            epoch = await connection.fetchval("SELECT take_role($1)", role, timeout=3)
        except LockNotAvailableError:  # at the next beat again
            logger.info("what was begun in the role of %r has not ended yet", role)
            await self._unlock_on(connection, role)
            return
        self._confirmed_at = began
        wanted = self._wanted.pop(role, None)
        if wanted is None or wanted.done():  # nobody waits any more
            await self._unlock_on(connection, role)
            return
        self._held[role] = held = Held(Fence(role, epoch))
        wanted.set_result(held)

    def _partitions(self) -> list[str]:
        return sorted(role for role in self._held if role.startswith(_PREFIX))

    def _pass_on_beyond(self, share: int) -> None:
        unable = [role for role in self._held if not self._is_able(role)]
        for role in {*unable, *self._partitions()[share:]}:
            self._held[role].pass_on()

    async def _acquire(self, role: str) -> Held:
        while role not in self._held:
            wanted = asyncio.get_running_loop().create_future()
            self._wanted[role] = wanted
            self._poke.wake()
            try:
                await wanted
            except asyncio.CancelledError:
                self._wanted.pop(role, None)
                if role in self._held:
                    await self._release(role)
                raise
        return self._held[role]

    async def _release(self, role: str) -> None:
        if self._held.pop(role, None) is not None:
            await self._unlock(role)

    async def _unlock(self, role: str) -> None:
        try:
            async with self._using:
                if self._connection is not None:
                    with translated():
                        await self._unlock_on(self._connection, role)
        except Unavailable:
            self._drop()  # the lock has gone with its session, and so have the others
        except asyncio.CancelledError:
            self._drop()  # whether it was let go is not known, so the session ends
            raise

    async def _unlock_on(self, connection: Connection, role: str) -> None:
        await connection.execute(
            "SELECT pg_advisory_unlock(hashtextextended('flowerbed.' || $1, 0))", role, timeout=3
        )

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None
        self._is_present = False
        held, self._held = self._held, {}
        for lost in held.values():
            lost.lose()


async def _awaited(work: Callable[[], Awaitable[None]]) -> None:
    await work()


async def _ended(task: "asyncio.Task[None]") -> None:
    """Cancel `task` if it still runs, and wait until it has ended."""
    if task.done():
        return
    task.cancel()
    await asyncio.wait((task,))
    if not task.cancelled() and task.exception() is not None:
        logger.warning("ended with %r", task.exception())
