"""Deliver the feed to every webhook: in order, each at its own pace, at least once.

    feed ──> event ──> POST ── 2xx ──> cursor moves (committed) ──> next event
                         └── else ──> wait, longer each time ──> the same event again

One replica does this (`leader=True`). Whatever it was doing when it died is done again by the next
one, so a receiver may see an event twice, with the same webhook-id.
"""

import asyncio
import logging
import time
from contextlib import AsyncExitStack, aclosing
from datetime import UTC, datetime, timedelta

import aiohttp
from prometheus_client import Counter

from flowerbed.events.wakeup import Wakeup
from flowerbed.gateway.feed import Feed, FeedEvent
from flowerbed.gateway.webhooks.pace import Pace
from flowerbed.gateway.webhooks.sending import Failed, Gone, Outcome, Taken, opened, send
from flowerbed.gateway.webhooks.store import Active, Webhooks

logger = logging.getLogger(__name__)

LOOK_AGAIN = 10.0
"""Seconds. Changes are nudged; one whose nudge was lost takes so long."""
PASS_AFTER, PASS_SECONDS = 1000, 60.0
"""So many events that are not meant are passed over, looked for so often."""

deliveries = Counter(
    "webhook_deliveries", "Attempts to deliver an event to a webhook.", ["outcome"]
)


class Deliveries:
    def __init__(self, webhooks: Webhooks, feed: Feed, pace: Pace, stopping: asyncio.Event) -> None:
        self._webhooks = webhooks
        self._feed = feed
        self._pace = pace
        self._stopping = stopping
        self._wakeup = Wakeup()

    def wake(self) -> None:
        """Somebody changed a webhook."""
        self._wakeup.wake()

    async def run(self) -> None:
        """A task for each webhook that is active, until the service stops.

        Raises:
            Unavailable: Postgres is away, or another replica leads.
        """
        working: dict[tuple[str, int], asyncio.Task[None]] = {}
        async with AsyncExitStack() as stack:
            session = await stack.enter_async_context(opened(self._pace.timeout))
            stack.push_async_callback(_end, working)
            while not self._stopping.is_set():
                active = {hook.key: hook for hook in await self._webhooks.active()}
                await _end(working, set(working) - set(active))
                for key in [key for key, task in working.items() if task.done()]:
                    working.pop(key).result()
                for key in active.keys() - working.keys():
                    working[key] = asyncio.create_task(
                        self._serve(session, active[key], working), name=f"webhook {key[0]}"
                    )
                await self._wakeup.wait(LOOK_AGAIN)

    async def _serve(
        self,
        session: aiohttp.ClientSession,
        hook: Active,
        working: dict[tuple[str, int], "asyncio.Task[None]"],
    ) -> None:
        try:
            await self._follow(session, hook)
        finally:
            if hook.key in working:  # ended by itself: `run` looks why
                self._wakeup.wake()

    async def _follow(self, session: aiohttp.ClientSession, hook: Active) -> None:
        if hook.next_attempt_at is not None:
            await asyncio.sleep((hook.next_attempt_at - datetime.now(UTC)).total_seconds())
        position, failures = hook.position, _Failures(hook.n_failures, hook.failing_since)
        looked_at = time.monotonic()
        async with aclosing(self._feed.follow(hook.wanted, position)) as batches:
            async for batch in batches:
                for event in batch:
                    if not await self._deliver(session, hook, event, failures):
                        return
                    position = event.position
                if not batch and time.monotonic() - looked_at > PASS_SECONDS:
                    position = await self._pass_over(hook, position)
                    looked_at = time.monotonic()

    async def _deliver(
        self, session: aiohttp.ClientSession, hook: Active, event: FeedEvent, failures: "_Failures"
    ) -> bool:
        """Try until the receiver has it. False: nothing is to be done for `hook` any more."""
        while True:
            outcome: Outcome = await send(session, hook, event)
            deliveries.labels(type(outcome).__name__.lower()).inc()
            match outcome:
                case Taken():
                    failures.clear()
                    return await self._webhooks.delivered(hook, event.position)
                case Gone():
                    await self._webhooks.disable(hook, "the receiver answered 410 Gone")
                    return False
                case Failed(error, retry_after):
                    failures.add()
                    if failures.seconds > self._pace.patience:
                        await self._webhooks.disable(hook, failures.told(error))
                        return False
                    wait = max(self._pace.wait(failures.n), retry_after)
                    at = datetime.now(UTC) + timedelta(seconds=wait)
                    if not await self._webhooks.failed(hook, error, at):
                        return False
                    await asyncio.sleep(wait)

    async def _pass_over(self, hook: Active, position: int) -> int:
        """What is not meant is not to be looked through again for ever."""
        last = await self._feed.last()
        if last - position < PASS_AFTER or await self._feed.page(hook.wanted, position, 1):
            return position
        await self._webhooks.passed(hook, last)
        return last


class _Failures:
    """In a row, those before a restart too."""

    def __init__(self, n: int, since: datetime | None) -> None:
        self.n = n
        self._since = None if since is None else since.timestamp()

    @property
    def seconds(self) -> float:
        return 0.0 if self._since is None else time.time() - self._since

    def add(self) -> None:
        self.n += 1
        if self._since is None:
            self._since = time.time()

    def clear(self) -> None:
        self.n, self._since = 0, None

    def told(self, error: str) -> str:
        since = datetime.fromtimestamp(self._since or time.time(), UTC)
        return f"{self.n} attempts failed since {since:%Y-%m-%d %H:%M:%S} UTC; the last: {error}"


async def _end(
    working: dict[tuple[str, int], "asyncio.Task[None]"],
    keys: set[tuple[str, int]] | None = None,
) -> None:
    ended = [working.pop(key) for key in (set(working) if keys is None else keys)]
    for task in ended:
        task.cancel()
    await asyncio.gather(*ended, return_exceptions=True)
