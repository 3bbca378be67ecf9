"""All databases of a stack as they were at one moment.

A service changes something by recording an event or by moving a cursor. With both tables of every
database locked against writers, nothing is under way; snapshots begun now belong together. The
locks are held for as long as it takes to begin them; what is read, is read later.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import asyncpg  # type: ignore[import-untyped]  # has no stubs

from flowerbed.contracts.topology import SERVICES
from flowerbed.embedded.databases import Session, connect
from flowerbed.embedded.errors import EmbeddedError
from flowerbed.embedded.postgres import SUPERUSER
from flowerbed.embedded.setup import Setup

ATTEMPTS = 60
PATIENCE = "500ms"
"""Below Postgres' deadlock_timeout: whoever waits for us in the other order never has to end."""


@asynccontextmanager
async def cut(
    setup: Setup, services: Sequence[str] = SERVICES
) -> AsyncIterator[Mapping[str, Session]]:
    """A connection to each service's database, in a transaction that sees that moment.

    Raises:
        EmbeddedError: writers did not leave the tables free for long enough.
    """
    async with AsyncExitStack() as stack:
        reading = {one: await _connection(stack, setup, one) for one in services}
        locking = [await _connection(stack, setup, one) for one in services]
        for attempt in range(1, ATTEMPTS + 1):
            try:
                await _begin_together(list(reading.values()), locking)
                break
            except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError) as error:
                if attempt == ATTEMPTS:
                    raise EmbeddedError("the event stores were busy all the time") from error
                await asyncio.sleep(0.1)
        yield reading


async def _begin_together(reading: Sequence[Session], locking: Sequence[Session]) -> None:
    try:
        await asyncio.gather(*(_lock(one) for one in locking))
        await asyncio.gather(*(_begin(one) for one in reading))
    finally:
        await asyncio.gather(*(one.execute("ROLLBACK") for one in locking))


async def _lock(connection: Session) -> None:
    await connection.execute("BEGIN")
    await connection.execute(f"SET LOCAL lock_timeout = '{PATIENCE}'")
    await connection.execute("LOCK TABLE public.events, public.cursors IN SHARE MODE")


async def _begin(connection: Session) -> None:
    await connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
    await connection.execute("SELECT FROM public.events LIMIT 0")  # from here on it sees this


async def _connection(stack: AsyncExitStack, setup: Setup, service: str) -> Session:
    connection = await connect(setup, SUPERUSER, service)
    stack.push_async_callback(connection.close)
    return connection
