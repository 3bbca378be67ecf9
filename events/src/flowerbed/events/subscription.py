"""A continuous pull: as events are used up more are asked for, long before it runs dry.

A subscription hands out every event of its durable in order, from the oldest that was not
acknowledged. It counts what arrives: should anything be missing, it ends with Unavailable,
and the next subscription starts again at the oldest.
"""

import asyncio
import json
import logging
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from flowerbed.events.errors import Unavailable
from flowerbed.events.message import Message
from flowerbed.events.wire import answers, send

logger = logging.getLogger(__name__)

REQUEST = 500
EXPIRES = 30.0
"""Seconds that one request stands; renewing it is most of what an idle consumer costs. That of a
replica that was stopped (not ended) stands until the server misses its pings."""

CLUSTER_EXPIRES = 5.0
"""The same with several servers: one that dies may take a request along without a word."""

GRACE = 2.0
"""How much later than that its end may arrive, before what was asked for counts as forgotten."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A message as handed to us: `sequence` in the JetStream stream, `attempt` from 1."""

    message: Message
    sequence: int
    attempt: int
    pending: int
    token: str
    """Where its acknowledgement goes."""


def delivered(reply: str) -> tuple[int, int, int, int]:
    """Of a reply subject (ADR-15): the attempt, the places in the JetStream stream and among this
    consumer's deliveries, and how many are still to come."""
    tokens = reply.split(".")
    # $JS.ACK.[domain.account.]stream.consumer.attempt.stream place.consumer place.time.pending[.…]
    start = 4 if len(tokens) == 9 else 6
    attempt, stream, consumer, _, pending = tokens[start : start + 5]
    return int(attempt), int(stream), int(consumer), int(pending)


class Deliveries(Protocol):
    """What the consumer runtime needs of a subscription."""

    async def next_batch(self, limit: int) -> Sequence[Delivery]: ...
    async def ack(self, deliveries: Sequence[Delivery]) -> None: ...
    def interrupt(self) -> None: ...


class Subscription:
    def __init__(
        self,
        jetstream: str,
        durable: str,
        client: Any,  # nats.aio.client.Client, which only jetstream.py may import
        closed: "asyncio.Future[None]",
        *,
        request: int = REQUEST,
        expires: float = EXPIRES,
    ) -> None:
        self._name = f"{jetstream}/{durable}"
        self._next = f"$JS.API.CONSUMER.MSG.NEXT.{jetstream}.{durable}"
        self._client = client
        self._closed = closed
        self._size = request
        self._expires = expires
        self._queue: deque[Delivery] = deque()
        self._unsettled: set[int] = set()
        self._asked = 0
        self._received = 0
        self._highest = 0
        self._arrived = asyncio.Event()
        self._is_interrupted = False
        self._trouble: str | None = None
        self._inbox = ""
        self._subscription: Any = None

    async def open(self) -> None:
        self._inbox = self._client.new_inbox()
        self._subscription = await self._client.subscribe(self._inbox, cb=self._on_message)
        self._closed.add_done_callback(self._on_closed)
        await self._ask(self._size)

    async def next_batch(self, limit: int) -> Sequence[Delivery]:
        """What has arrived, at most `limit`; waits for one. Empty once interrupted.

        Raises:
            Unavailable: the connection is over, or an event was missed.
        """
        while not self._queue and not self._is_interrupted:
            self._check()
            self._arrived.clear()
            try:
                async with asyncio.timeout(self._expires + GRACE):
                    await self._arrived.wait()
            except TimeoutError:  # the server has forgotten what we asked for
                self._asked = 0
                await self._ask(self._size)
        self._check()
        if self._is_interrupted:
            return ()
        batch = [self._queue.popleft() for _ in range(min(limit, len(self._queue)))]
        if self._asked < self._size // 2:
            await self._ask(self._size - self._asked)
        return batch

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        await self._answer(deliveries, b"+ACK")
        self._unsettled.difference_update(delivery.sequence for delivery in deliveries)

    def interrupt(self) -> None:
        """Let `next_batch` return at once, with nothing."""
        self._is_interrupted = True
        self._arrived.set()

    async def close(self) -> None:
        """Give back what was handed to us and not handled, so that nobody waits for it."""
        self._closed.remove_done_callback(self._on_closed)
        if self._closed.done():
            return
        if self._trouble is None:
            await self._subscription.unsubscribe()
        await self._answer(self._queue, b"-NAK")
        await self._client.flush(timeout=2)

    def _check(self) -> None:
        if self._trouble is not None:
            raise Unavailable(f"{self._name}: {self._trouble}")

    def _on_closed(self, closed: "asyncio.Future[None]") -> None:
        self._fail("nats closed the connection")

    def _fail(self, trouble: str) -> None:
        self._trouble = trouble
        self._arrived.set()

    async def _ask(self, count: int) -> None:
        self._asked += count
        request = {"batch": count, "expires": int(self._expires * 1e9)}
        await self._publish(self._next, json.dumps(request).encode(), self._inbox)

    async def _answer(self, deliveries: Iterable[Delivery], answer: bytes) -> None:
        self._check_open()
        await send(self._client, answers((one.token for one in deliveries), answer))

    async def _publish(self, subject: str, data: bytes, reply: str = "") -> None:
        self._check_open()
        await self._client.publish(subject, data, reply=reply)

    def _check_open(self) -> None:
        if self._closed.done():
            raise Unavailable(f"{self._name}: nats closed the connection")

    async def _on_message(self, msg: Any) -> None:
        status = (msg.headers or {}).get("Status")
        if status is not None and not msg.reply.startswith("$JS.ACK."):
            await self._on_status(status, msg)
            return
        if self._trouble is not None:
            return
        self._asked -= 1
        attempt, sequence, place, pending = delivered(msg.reply)
        self._received += 1
        if place != self._received:
            self._fail(f"expected delivery {self._received}, got {place}")
            await self._subscription.unsubscribe()  # leave the rest to whoever comes next
            return
        delivery = Delivery(
            message=Message(subject=msg.subject, headers=msg.headers or {}, data=msg.data),
            sequence=sequence,
            attempt=attempt,
            pending=pending,
            token=msg.reply,
        )
        if sequence > self._highest:
            self._highest = sequence
            self._unsettled.add(sequence)
            self._queue.append(delivery)
            self._arrived.set()
        elif sequence not in self._unsettled:
            await self.ack([delivery])  # done already; its acknowledgement was late or lost

    async def _on_status(self, status: str, msg: Any) -> None:
        """A request that ended: it expired (408), or the server refuses or goes (409, 503)."""
        headers = msg.headers or {}
        self._asked -= int(headers.get("Nats-Pending-Messages", "0"))
        if status == "408":
            if self._asked < self._size // 2 and self._trouble is None:
                await self._ask(self._size - self._asked)
        elif status != "100":
            self._fail(f"{status} {headers.get('Description', '')}".strip())
