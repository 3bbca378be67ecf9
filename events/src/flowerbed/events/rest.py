"""A pause in which events gather, where nobody waits for what a consumer makes of them.

Fewer, larger transactions cost less. Whoever has just said something looks at once whether it was
heard: `hurry` ends the pauses under way, and none is taken for a while.
"""

import asyncio
import time

HURRY_SECONDS = 5.0


class Rest:
    """`seconds`: how long a pause is. `hurry_seconds`: how long `hurry` lasts."""

    def __init__(self, seconds: float, hurry_seconds: float = HURRY_SECONDS) -> None:
        self._seconds = seconds
        self._hurry_seconds = hurry_seconds
        self._hurried_until = 0.0
        self._hurried = asyncio.Event()

    def hurry(self) -> None:
        """Somebody waits for what comes next."""
        self._hurried_until = time.monotonic() + self._hurry_seconds
        self._hurried.set()
        self._hurried.clear()  # those that wait now have been woken

    async def take(self) -> None:
        """Pause, unless or until somebody is in a hurry."""
        if time.monotonic() < self._hurried_until:
            return
        try:
            async with asyncio.timeout(self._seconds):
                await self._hurried.wait()
        except TimeoutError:
            return
