"""Work that only one replica of a service does at a time.

A session advisory lock a role, all on one direct connection of the process. Every second the
connection is used: to show life, and to try for the roles not held. Postgres ends a session
that was idle for `SESSION_TIMEOUT` (a stopped process) or whose peer is gone, so a role moves
to another replica within 5 s.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from flowerbed.events.connection import Connection
from flowerbed.events.database import Database, translated
from flowerbed.events.errors import Unavailable
from flowerbed.events.wakeup import Wakeup

logger = logging.getLogger(__name__)

HEARTBEAT = 1.0
SESSION_TIMEOUT = "4s"

_TRY = """
SELECT name FROM unnest($1::text[]) AS name
WHERE pg_try_advisory_lock(hashtextextended('flowerbed.' || name, 0))
"""


class RoleLost(Unavailable):
    """The session that held the lock is over; another replica may lead now."""


class Leadership:
    def __init__(self, database: Database, *, heartbeat: float = HEARTBEAT) -> None:
        self._database = database
        self._heartbeat = heartbeat
        self._connection: Connection | None = None
        self._using = asyncio.Lock()
        self._poke = Wakeup()
        self._wanted: dict[str, asyncio.Future[None]] = {}
        self._held: dict[str, asyncio.Future[None]] = {}

    def holds(self, role: str) -> bool:
        return role in self._held

    @property
    def roles(self) -> list[str]:
        return sorted(self._held)

    async def lead(self, role: str, work: Callable[[], Awaitable[None]]) -> None:
        """Run `work` as the leader, and give the role up when it ends or fails.

        Raises:
            RoleLost: the role was lost meanwhile; the work has been cancelled.
        """
        lost = await self._acquire(role)
        task = asyncio.ensure_future(work())
        try:
            await asyncio.wait((task, lost), return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                task.result()
            else:
                raise RoleLost(f"lost the role of {role!r}")
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
                if self._connection is None or self._connection.is_closed():
                    self._drop()
                    self._connection = await self._database.connect_app(
                        idle_session_timeout=SESSION_TIMEOUT,
                        tcp_keepalives_idle="1",
                        tcp_keepalives_interval="1",
                        tcp_keepalives_count="3",
                        tcp_user_timeout="4000",
                    )
                rows = await self._connection.fetch(_TRY, list(self._wanted), timeout=3)
        for row in rows:
            wanted = self._wanted.pop(row["name"], None)
            if wanted is None or wanted.done():  # nobody waits any more
                await self._unlock(row["name"])
                continue
            self._held[row["name"]] = asyncio.get_running_loop().create_future()
            wanted.set_result(None)

    async def _acquire(self, role: str) -> asyncio.Future[None]:
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
                        await self._connection.execute(
                            "SELECT pg_advisory_unlock(hashtextextended('flowerbed.' || $1, 0))",
                            role,
                            timeout=3,
                        )
        except Unavailable:
            self._drop()  # the lock has gone with its session, and so have the others
        except asyncio.CancelledError:
            self._drop()  # whether it was let go is not known, so the session ends
            raise

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None
        held, self._held = self._held, {}
        for lost in held.values():
            if not lost.done():
                lost.set_result(None)


async def _ended(task: "asyncio.Future[None]") -> None:
    """Cancel `task` if it still runs, and wait until it has ended."""
    if task.done():
        return
    task.cancel()
    await asyncio.wait((task,))
    if not task.cancelled() and task.exception() is not None:
        logger.warning("ended with %r", task.exception())
