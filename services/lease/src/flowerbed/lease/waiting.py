"""Long polls: who waits for what, and the signal that it may be there.

A signal is only a hint: the waiter looks into the database again. Losing one costs a look-up
every `LOOK_AGAIN` seconds, never an answer.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

T = TypeVar("T")

LOOK_AGAIN = 20.0
"""Seconds. Another replica may have written what this one waits for, and its word been lost."""

AT_ONCE = 4
"""Looks. When all wait for the same thing, who brings something need not queue behind them."""

SHORTEST = 0.8
"""Of the time asked for: who came together is sent away apart, and does not come again together."""

TOGETHER = 1000


class Waiting:
    """Waiters by key: a lease id, a tenant for those who wait for a lease, or a federation's id for
    those who carry its work.

    `tell`: passes keys on to the other replicas, which `hear` them.
    """

    def __init__(
        self, stopping: asyncio.Event, tell: Callable[[bytes], None] = lambda keys: None
    ) -> None:
        self._stopping = stopping
        self._tell = tell
        self._untold: set[str] = set()
        self._events: dict[str, set[asyncio.Event]] = {}
        self._turns = asyncio.Semaphore(AT_ONCE)

    def wake(self, key: str) -> None:
        """Whoever waits for `key`, here and in the other replicas."""
        self._wake(key)
        if not self._untold:
            asyncio.get_running_loop().call_soon(self._tell_all)
        self._untold.add(key)

    def hear(self, keys: bytes) -> None:
        for key in keys.decode().split("\n"):
            self._wake(key)

    def _wake(self, key: str) -> None:
        for event in self._events.get(key, ()):
            event.set()

    def _tell_all(self) -> None:
        """All keys of this turn of the loop in as few messages as they fit in."""
        keys, self._untold = sorted(self._untold), set()
        for start in range(0, len(keys), TOGETHER):
            self._tell("\n".join(keys[start : start + TOGETHER]).encode())

    async def until(
        self, key: str, look: Callable[[], Awaitable[T | None]], seconds: float
    ) -> T | None:
        """What `look` finds, at once or within about `seconds`; None if there was nothing."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds * random.uniform(SHORTEST, 1.0)
        with self._waiter(key) as event:
            while True:
                event.clear()
                async with self._turns:
                    found = await look()
                left = end - loop.time()
                if found is not None or left <= 0 or self._stopping.is_set():
                    return found
                await self._signal(event, min(left, LOOK_AGAIN))

    @contextmanager
    def _waiter(self, key: str) -> Iterator[asyncio.Event]:
        event = asyncio.Event()
        self._events.setdefault(key, set()).add(event)
        try:
            yield event
        finally:
            waiters = self._events[key]
            waiters.discard(event)
            if not waiters:
                del self._events[key]

    @staticmethod
    async def _signal(event: asyncio.Event, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(event.wait(), seconds)
