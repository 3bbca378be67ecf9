"""One federation as it happens: what is to be shown of it, made once for all who look.

    feed ──> events ──┐
                      ├──> frames, numbered ──> each follower: first all of it, then what changed
    reads ──> view ───┘

A view is made at most every `PACE` seconds, whoever looks and however many. Between two views
goes what changed, as a JSON merge patch (RFC 7386).
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, suppress
from typing import Any, TypeAlias

from flowerbed.events.errors import FlowerbedError
from flowerbed.gateway.feed import Feed, FeedEvent, Filter
from flowerbed.gateway.sse import ALIVE, frame

logger = logging.getLogger(__name__)

PACE = 0.25
KEPT = 200

Show: TypeAlias = Callable[[str, str, bool], Awaitable[dict[str, Any]]]
"""(tenant, federation id, whether nothing has happened for a while) -> the view."""


def merge_patch(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """What makes `after` of `before` (RFC 7386): a value of None says that the key is gone."""
    patch: dict[str, Any] = {key: None for key in before if key not in after}
    for key, value in after.items():
        was = before.get(key)
        if isinstance(was, dict) and isinstance(value, dict):
            if inner := merge_patch(was, value):
                patch[key] = inner
        elif key not in before or was != value:
            patch[key] = value
    return patch


class Channel:
    """The frames of one federation. Runs while it is followed."""

    def __init__(self, feed: Feed, tenant: str, federation_id: str, show: Show) -> None:
        self._feed = feed
        self._wanted = Filter(tenant=tenant, federation_id=federation_id)
        self._show = show
        self._tenant, self._federation_id = tenant, federation_id
        self._view: dict[str, Any] | None = None
        self._position = 0
        self._number = 0
        self._frames: deque[tuple[int, int, bytes]] = deque(maxlen=KEPT)
        """Each with its number and the position up to which all was told with it."""
        self._moved = asyncio.Condition()
        self._task: asyncio.Task[None] | None = None
        self.n_followers = 0

    async def follow(self, after: int | None) -> AsyncIterator[bytes]:
        """All of it, the events behind position `after` (None: those to come), then changes."""
        self.n_followers += 1
        if self._task is None or self._task.done():
            self._view = None
            self._task = asyncio.create_task(self._run(), name=f"live {self._federation_id}")
        try:
            seen = -1
            while self._task is not None and not self._task.done():
                if not self._is_kept(seen):
                    await self._until(lambda: self._view is not None)
                    if self._view is None:
                        continue
                    seen, position = self._number, self._position
                    yield frame("view", {"position": position, **self._view})
                    async for missed in self._missed(after, position):
                        yield missed
                    # Not before: who goes on from here has seen everything up to here.
                    yield frame("caught-up", {"position": position}, position)
                    after = position
                if waiting := [one for one in self._frames if one[0] > seen]:
                    seen, after, _ = waiting[-1]
                    yield b"".join(sent for _, _, sent in waiting)
                await self._until(lambda seen=seen: self._number > seen)  # type: ignore[misc]
        finally:
            self.n_followers -= 1
            if self.n_followers == 0 and self._task is not None:
                self._task.cancel()
                self._task = None

    def _is_kept(self, seen: int) -> bool:
        return seen >= 0 and (not self._frames or self._frames[0][0] <= seen + 1)

    async def _missed(self, after: int | None, position: int) -> AsyncIterator[bytes]:
        while after is not None and after < position:
            events = await self._feed.page(self._wanted, after)
            events = [event for event in events if event.position <= position]
            if not events:
                return
            after = events[-1].position
            yield _events(events)

    async def _until(self, holds: Callable[[], bool]) -> None:
        async with self._moved:
            with suppress(TimeoutError):
                async with asyncio.timeout(15.0):
                    await self._moved.wait_for(
                        lambda: holds() or self._task is None or self._task.done()
                    )

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            self._position = await self._feed.last()
            await self._look(is_quiet=True)
            async with aclosing(self._feed.follow(self._wanted, self._position)) as following:
                async for events in following:
                    shown_at = loop.time()
                    await self._show_more(events)
                    await asyncio.sleep(max(0.0, shown_at + PACE - loop.time()))
        except FlowerbedError as error:  # who follows connects again
            logger.info("%s is not shown any more: %s", self._federation_id, error)
        finally:
            await self._tell()

    async def _show_more(self, events: list[FeedEvent]) -> None:
        if events:
            self._position = events[-1].position
            self._add(_events(events))
        await self._look(is_quiet=not events)
        if not events:
            self._add(ALIVE)
            await self._tell()

    async def _look(self, *, is_quiet: bool) -> None:
        view = await self._show(self._tenant, self._federation_id, is_quiet)
        if self._view is not None and (patch := merge_patch(self._view, view)):
            self._add(frame("patch", {"position": self._position, **patch}, self._position))
        self._view = view
        await self._tell()

    def _add(self, one: bytes) -> None:
        self._number += 1
        self._frames.append((self._number, self._position, one))

    async def _tell(self) -> None:
        async with self._moved:
            self._moved.notify_all()


class Live:
    """The channels that are followed now."""

    def __init__(self, feed: Feed, show: Show) -> None:
        self._feed = feed
        self._show = show
        self._channels: dict[tuple[str, str], Channel] = {}

    async def follow(
        self, tenant: str, federation_id: str, after: int | None
    ) -> AsyncIterator[bytes]:
        key = tenant, federation_id
        channel = self._channels.get(key)
        if channel is None:
            channel = Channel(self._feed, tenant, federation_id, self._show)
            self._channels[key] = channel
        try:
            async for one in channel.follow(after):
                yield one
        finally:
            if channel.n_followers == 0 and self._channels.get(key) is channel:
                del self._channels[key]


def _events(events: list[FeedEvent]) -> bytes:
    listed = [event.model_dump(mode="json") for event in events]
    return frame("events", {"events": listed}, events[-1].position)
