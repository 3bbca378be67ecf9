"""The durable feed: every event that this service keeps, from any position on, for ever.

    Postgres ──> tail (one a replica) ──> ring of the newest ──> whoever follows
        └───────────── pages ── of what lies before the ring ──────┘

Positions become visible in their own order (`consumers.take_turns`), so who has seen all up to
one skips nothing behind it. Following costs no query where the ring reaches back far enough, and
nothing is read while nobody follows.
"""

import asyncio
import json
import logging
from bisect import bisect_right
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from flowerbed.events.context import NO_FEDERATION
from flowerbed.events.database import Database
from flowerbed.events.errors import Unavailable
from flowerbed.events.wakeup import Wakeup
from flowerbed.gateway.views import HistoryEvent

logger = logging.getLogger(__name__)

RING = 4000
PAGE = 500
POLL = 1.0
"""Seconds. A wake that was lost costs as much."""

_PAGE = """
SELECT gpos AS position, id::text, type, stream, version, tenant, recorded_at, data, meta
FROM events
WHERE gpos > $1 AND ($2::text IS NULL OR tenant = $2)
    AND ($3::text IS NULL OR meta ->> 'correlation_id' = $3)
    AND ($4::text[] IS NULL OR type = ANY ($4))
ORDER BY gpos LIMIT $5
"""


class FeedEvent(HistoryEvent):
    """An event with where it belongs; `federation_id` is None of one about no federation."""

    tenant: str
    federation_id: str | None
    traceparent: str | None = None

    @cached_property
    def frame(self) -> bytes:
        """As a server-sent event; made once, however many read it."""
        head = f"id: {self.position}\nevent: {self.type}\ndata: "
        return head.encode() + self.model_dump_json().encode() + b"\n\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """What of the feed is meant; each that is left out means all."""

    tenant: str | None = None
    federation_id: str | None = None
    types: frozenset[str] | None = None

    def matches(self, event: FeedEvent) -> bool:
        return (
            self.tenant in (None, event.tenant)
            and self.federation_id in (None, event.federation_id)
            and (self.types is None or event.type in self.types)
        )


class Feed:
    """`stopping`: ends whoever follows, so that a service can stop."""

    def __init__(self, database: Database, stopping: asyncio.Event, ring: int = RING) -> None:
        self._database = database
        self._stopping = stopping
        self._size = ring
        self._ring: list[FeedEvent] = []
        self._floor: int | None = None
        self._head = 0
        """The ring holds every event behind `_floor`, up to `_head`; None: nothing is read yet."""
        self._followers = 0
        self._tail: asyncio.Task[None] | None = None
        self._wakeup = Wakeup()
        self._moved = asyncio.Condition()

    def wake(self) -> None:
        """Events were committed, here or by another replica."""
        self._wakeup.wake()

    async def last(self) -> int:
        """The position of the newest event; 0 if there is none."""
        async with self._database.read_all() as connection:
            return int(await connection.fetchval("SELECT coalesce(max(gpos), 0) FROM events"))

    async def page(self, wanted: Filter, after: int, limit: int = PAGE) -> list[FeedEvent]:
        """The first events behind position `after`, oldest first."""
        types = None if wanted.types is None else sorted(wanted.types)
        async with self._database.read_all() as connection:
            rows = await connection.fetch(
                _PAGE, after, wanted.tenant, wanted.federation_id, types, limit
            )
        return [_event(row) for row in rows]

    async def follow(self, wanted: Filter, after: int) -> AsyncGenerator[list[FeedEvent], None]:
        """Every event behind `after`, in order, as it comes; an empty list when none came for a
        while, so that who follows can show a sign of life. Ends when the service stops."""
        self._enter()
        try:
            cursor = after
            while not self._stopping.is_set():
                try:
                    found, cursor = await self._behind(wanted, cursor)
                except Unavailable as error:
                    logger.info("the feed waits: %s", error)
                    found = []
                    await asyncio.sleep(POLL)
                yield found
                if not found:
                    await self._until_moved(cursor)
        finally:
            self._leave()

    async def _behind(self, wanted: Filter, cursor: int) -> tuple[list[FeedEvent], int]:
        """What is known behind the cursor, and up to where all of it is now known."""
        if self._floor is not None and cursor >= self._floor:
            start = bisect_right(self._ring, cursor, key=lambda event: event.position)
            found = [event for event in self._ring[start:] if wanted.matches(event)]
            return found, max(cursor, self._head)
        head = self._head
        found = await self.page(wanted, cursor)
        if len(found) == PAGE:
            return found, found[-1].position
        # Nothing that is meant lies between the last that was found and what the tail had read.
        return found, max(head, found[-1].position if found else cursor)

    async def _until_moved(self, cursor: int, patience: float = 10.0) -> None:
        try:
            async with asyncio.timeout(patience), self._moved:
                await self._moved.wait_for(lambda: self._head > cursor or self._stopping.is_set())
        except TimeoutError:
            return

    def _enter(self) -> None:
        self._followers += 1
        if self._tail is None or self._tail.done():
            self._tail = asyncio.create_task(self._read(), name="feed")

    def _leave(self) -> None:
        self._followers -= 1
        if self._followers == 0 and self._tail is not None:
            self._tail.cancel()
            self._tail = None
            self._ring, self._floor, self._head = [], None, 0

    async def _read(self) -> None:
        while not self._stopping.is_set():
            try:
                await self._advance()
            except Unavailable as error:
                logger.info("the feed waits: %s", error)
            await self._wakeup.wait(POLL)
        async with self._moved:
            self._moved.notify_all()

    async def _advance(self) -> None:
        if self._floor is None:
            self._floor = self._head = await self.last()
            await self._tell()
        while new := await self.page(Filter(), self._head):
            self._ring += new
            self._head = new[-1].position
            if (surplus := len(self._ring) - self._size) > 0:
                self._floor = self._ring[surplus - 1].position
                del self._ring[:surplus]
            await self._tell()

    async def _tell(self) -> None:
        async with self._moved:
            self._moved.notify_all()


def _event(row: Any) -> FeedEvent:
    meta = json.loads(row["meta"])
    federation = meta.get("correlation_id", NO_FEDERATION)
    return FeedEvent(
        position=row["position"],
        id=row["id"],
        type=row["type"],
        stream=row["stream"],
        version=row["version"],
        recorded_at=row["recorded_at"],
        causation_id=meta.get("causation_id"),
        actor=meta.get("actor"),
        data=json.loads(row["data"]),
        tenant=row["tenant"],
        federation_id=None if federation == NO_FEDERATION else federation,
        traceparent=meta.get("traceparent"),
    )
