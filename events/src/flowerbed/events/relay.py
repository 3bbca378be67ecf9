"""The relay: tails the event table and publishes to the service's JetStream stream.

    resume from the stream's last message ──> window ──> page ──> publish ──┐
         ^                                       ^                          │ acked
         └── outcome unknown, or fenced          └──────────────────────────┘

One query finds all there is, if that is little and nothing is held back, as it nearly always is.

Nothing is written to Postgres per event. Each publish names the last sequence that the relay
knows (the fence), so a relay that is no longer the leader is refused and stores nothing.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

from flowerbed.events import failpoints
from flowerbed.events.errors import FlowerbedError, Unavailable
from flowerbed.events.message import Mark, Message, outgoing
from flowerbed.events.outbox import Horizon, Window
from flowerbed.events.wakeup import Wakeup

logger = logging.getLogger(__name__)

IDLE_POLL = 1.0
AWAY_POLL = 0.02
HELD_POLL = 0.002
"""Seconds, doubled each time: most transactions end within a few milliseconds."""
SAVE_EVERY = 10.0
BUSY_RATE = 1000.0
"""Events a second, above which they gather before they are relayed: a batch costs four syncs of a
disk and a query, whatever is in it, and writers want both."""
GATHER = 0.05
"""Seconds for which they gather then."""


class Fenced(FlowerbedError):
    """Somebody else wrote to the stream: this relay is not its leader."""


class KnownMessage(FlowerbedError):
    """The batch was refused because the stream already holds one of its messages."""


@dataclass(frozen=True, slots=True)
class Tail:
    """A stream's last sequence, and the last message's mark if the message is still there."""

    sequence: int
    mark: Mark | None


class Source(Protocol):
    """The event table (`outbox.Outbox`)."""

    async def all_from(self, lo: int, limit: int) -> Window | None: ...
    async def horizon(self, lo: int) -> Horizon: ...
    async def page(self, mark: Mark, limit: int) -> Sequence[Any]: ...
    async def saved(self, jetstream: str) -> tuple[Mark, int] | None: ...
    async def save(self, jetstream: str, mark: Mark, sequence: int) -> None: ...


class Sink(Protocol):
    """The JetStream stream (`jetstream.Bus`). Both publish fenced, and answer the new tail."""

    async def tail(self, jetstream: str) -> Tail: ...
    async def publish(self, message: Message, expected: int) -> int: ...
    async def publish_batch(self, messages: Sequence[Message], expected: int) -> int: ...


@dataclass(frozen=True, slots=True)
class _Page:
    """Rows of one window, and what is said of them; `marks[-1]` is where the next page begins."""

    rows: Sequence[Any]
    marks: Sequence[Mark]
    messages: Sequence[Message]


class _Pace:
    """How many events were relayed lately."""

    WINDOW = 0.1
    """Seconds. What is decided on is the last whole one."""

    def __init__(self) -> None:
        self._began = 0.0
        self._count = self._last = 0

    def relayed(self, count: int, now: float) -> None:
        self._turn(now)
        self._count += count

    def is_busy(self, now: float) -> bool:
        self._turn(now)
        return max(self._last, self._count) >= BUSY_RATE * self.WINDOW

    def _turn(self, now: float) -> None:
        passed = now - self._began
        if passed >= self.WINDOW:
            self._last = self._count if passed < 2 * self.WINDOW else 0
            self._began, self._count = now, 0


class Progress(Enum):
    RELAYED = "relayed"
    HELD = "held"
    IDLE = "idle"


class Relay:
    def __init__(
        self,
        service: str,
        jetstream: str,
        source: Source,
        sink: Sink,
        *,
        wakeup: Wakeup | None = None,
        may_publish: Callable[[], bool] = lambda: True,
        page: int = 500,
        batch_above: int = 4,
    ) -> None:
        self.service = service
        self.jetstream = jetstream
        self.mark: Mark | None = None
        self.sequence = 0
        self.wakeup = wakeup or Wakeup()
        self._source = source
        self._sink = sink
        self._may_publish = may_publish
        self._page = page
        self._batch_above = batch_above
        self._is_drained = False
        self._is_caught_up = False
        self._ahead: _Page | None = None
        self._pace = _Pace()
        self._saved: Mark | None = None
        self._saved_at = 0.0

    async def run(self) -> None:
        """Relay until cancelled; call it only as the leader.

        Raises:
            Fenced: another relay has written; leadership must be given up.
        """
        away = AWAY_POLL
        self.mark = None
        while True:
            try:
                await self._until_trouble()
            except Unavailable as error:
                # Whether the last publish was stored is not known: ask the stream again.
                logger.warning("relay of %s waits: %s", self.jetstream, error)
                self.mark = None
                away = min(away * 2, IDLE_POLL)
                await asyncio.sleep(away)

    async def _until_trouble(self) -> None:
        held = HELD_POLL
        while True:
            progress = await self.pump()
            if progress is Progress.RELAYED and not self._is_caught_up:
                if self._is_drained and self._pace.is_busy(time.monotonic()):
                    await asyncio.sleep(GATHER)  # open transactions cut windows short
                continue
            await self._save_now_and_then()
            # An open transaction that held events back need not wake us when it ends.
            is_woken = await self.wakeup.wait(held if progress is Progress.HELD else IDLE_POLL)
            if is_woken and self._pace.is_busy(time.monotonic()):
                await asyncio.sleep(GATHER)
            is_held = progress is Progress.HELD and not is_woken
            held = min(held * 2, IDLE_POLL) if is_held else HELD_POLL

    async def pump(self) -> Progress:
        """Publish at most one page."""
        if self.mark is None:
            await self._resume()
        assert self.mark is not None
        self._is_caught_up = False
        if self._ahead is not None:
            await self._publish(self._ahead)
            return Progress.RELAYED
        rows: Sequence[Any] = ()
        if not self._is_drained:
            rows = await self._source.page(self.mark, self._page)
        if not rows:
            window = await self._source.all_from(self.mark.hi, self._page)
            if window is None:
                return await self._pump_some()
            self._is_drained = True
            if not window.rows:
                return Progress.IDLE
            self.mark, rows = Mark(self.mark.hi, window.hi, 0), window.rows
            await self._publish(self._said(self.mark, rows), is_last=True)
            self._is_caught_up = True
            return Progress.RELAYED
        await self._publish(self._said(self.mark, rows))
        return Progress.RELAYED

    async def _pump_some(self) -> Progress:
        """The same where there is much, or where an open transaction holds some of it back."""
        assert self.mark is not None
        horizon = await self._source.horizon(self.mark.hi)
        if not horizon.is_ready:
            self._is_drained = True
            return Progress.HELD if horizon.is_held else Progress.IDLE
        self.mark = Mark(self.mark.hi, horizon.hi, 0)
        rows = await self._source.page(self.mark, self._page)
        await self._publish(self._said(self.mark, rows))
        return Progress.RELAYED

    async def save(self) -> None:
        """Remember the mark, for when the stream's last message has aged out."""
        if self.mark is not None and self.mark != self._saved:
            await self._source.save(self.jetstream, self.mark, self.sequence)
            self._saved = self.mark

    async def _save_now_and_then(self) -> None:
        if time.monotonic() - self._saved_at >= SAVE_EVERY:
            self._saved_at = time.monotonic()
            await self.save()

    async def _resume(self) -> None:
        tail = await self._sink.tail(self.jetstream)
        mark = tail.mark
        if mark is None:
            saved = await self._source.saved(self.jetstream)
            # A stream that is shorter than it was has been lost: everything is said again,
            # and consumers drop what they have seen.
            mark = saved[0] if saved is not None and saved[1] <= tail.sequence else Mark()
        self.mark, self.sequence, self._is_drained = mark, tail.sequence, False
        self._ahead = None
        logger.info("relay of %s resumes at %s, sequence %d", self.jetstream, mark, tail.sequence)

    def _said(self, mark: Mark, rows: Sequence[Any]) -> _Page:
        marks = [Mark(mark.lo, mark.hi, row["gpos"]) for row in rows]
        pairs = zip(rows, marks, strict=True)
        return _Page(rows, marks, [outgoing(row, self.service, one) for row, one in pairs])

    async def _publish(self, page: _Page, *, is_last: bool = False) -> None:
        """Publish the page; while JetStream stores a full one, the next is read. `is_last`: its
        window holds no more, though it is full."""
        if not self._may_publish():
            raise Fenced("it is not sure that this relay still leads")
        self._ahead = None
        self._pace.relayed(len(page.rows), time.monotonic())
        self._is_drained = is_last or len(page.rows) < self._page
        if len(page.messages) > self._batch_above:
            types = [row["type"] for row in page.rows]
            try:
                failpoints.reach("publish-before", *types)
                await self._publish_at_once(page)
                failpoints.reach("publish-after", *types)
                return
            except KnownMessage:
                logger.warning("%s already holds part of a batch", self.jetstream)
        for row, message, mark in zip(page.rows, page.messages, page.marks, strict=True):
            failpoints.reach("publish-before", row["type"])
            self.sequence = await self._sink.publish(message, self.sequence)
            failpoints.reach("publish-after", row["type"])
            self.mark = mark

    async def _publish_at_once(self, page: _Page) -> None:
        publishing = asyncio.ensure_future(self._sink.publish_batch(page.messages, self.sequence))
        try:
            ahead = None
            if not self._is_drained:
                await asyncio.sleep(0)  # what is published is on its way first
                rows = await self._source.page(page.marks[-1], self._page)
                ahead = self._said(page.marks[-1], rows) if rows else None
            self.sequence = await publishing
        finally:
            publishing.cancel()
        self.mark, self._ahead = page.marks[-1], ahead
        self._is_drained = ahead is None
