"""Several commands in one transaction, tried again when someone else wrote first.

A client whose first call is not answered yet asks again, and the sweeper or the end of the
federation may write to the same lease meanwhile: none of them hears of a conflict.
"""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from flowerbed.events.commands import ATTEMPTS
from flowerbed.events.database import Connection, Database
from flowerbed.events.errors import Conflict

T = TypeVar("T")


async def retried(database: Database, tenant: str, act: Callable[[Connection], Awaitable[T]]) -> T:
    for attempt in range(1, ATTEMPTS + 1):
        try:
            async with database.transaction(tenant) as tx:
                return await act(tx)
        except Conflict:
            if attempt == ATTEMPTS:
                raise
    raise AssertionError("unreachable")
