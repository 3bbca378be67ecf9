"""The consumer runtime: what has arrived becomes one transaction, then it is acknowledged.

    pull ──> transaction: drop what the cursors have seen, handle, move the cursors ──> ack
                 │ fails
                 └──> each event alone, with backoff ──> still fails ──> dead letter, lane parked

A cursor is the last version applied of one event stream, so an event has its effect once and
in the order of its stream. Postgres or NATS being away is nobody's fault: the session ends,
and the next one starts again at the oldest event that was not acknowledged.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TypeAlias

from pydantic import ValidationError

from flowerbed.contracts.topology import partition_of_subject
from flowerbed.events import dead_letters, failpoints, metrics
from flowerbed.events.connection import Connection
from flowerbed.events.consumer import Consumer
from flowerbed.events.database import Database, set_tenant
from flowerbed.events.dead_letters import describe
from flowerbed.events.errors import Rejected, Unavailable, UnknownEvent
from flowerbed.events.message import Envelope, Malformed, envelope
from flowerbed.events.subscription import Deliveries, Delivery

logger = logging.getLogger(__name__)

BATCH = 500
SAY_AGAIN = 30.0
HOPELESS = (Rejected, UnknownEvent, Malformed, ValidationError)
"""Trying again would end the same way."""

Subscribe: TypeAlias = Callable[[], AbstractAsyncContextManager[Deliveries]]

_KNOWN = """
SELECT 'cursor' AS kind, stream AS name, version FROM cursors
WHERE consumer = $1 AND stream = ANY($2)
UNION ALL
SELECT DISTINCT 'lane', lane, 0 FROM dead_letters WHERE consumer = $1 AND lane = ANY($3)
"""

_MOVE = """
INSERT INTO cursors (consumer, stream, version, tenant)
SELECT $1, moved.stream, moved.version, $2
FROM unnest($3::text[], $4::int[], $5::int[]) AS moved (stream, version, before)
ORDER BY moved.stream
ON CONFLICT (consumer, stream) DO UPDATE SET version = EXCLUDED.version
WHERE cursors.version = (
    SELECT before FROM unnest($3::text[], $5::int[]) AS was (stream, before)
    WHERE was.stream = cursors.stream
)
"""


class CursorMoved(Unavailable):
    """Another session of this consumer applied events meanwhile; start over."""


@dataclass(frozen=True, slots=True)
class Item:
    """`is_readable`: the envelope is the message's own."""

    delivery: Delivery
    envelope: Envelope
    is_readable: bool = True


class Intake:
    """Runs one consumer, of one partition or of all. Only the replica that leads it may."""

    def __init__(
        self,
        service: str,
        consumer: Consumer,
        database: Database,
        subscribe: Subscribe,
        *,
        partition: int | None = None,
    ) -> None:
        self.consumer = consumer
        self.partition = partition
        self.is_idle = asyncio.Event()
        """Nothing is under way: it does not run, or not any more."""
        self.is_idle.set()
        self.handled = 0
        self.waits_for: str | None = None
        """What is away, as long as nothing can be handled."""
        self._service = service
        self._database = database
        self._subscribe = subscribe
        self._stopping = asyncio.Event()
        self._is_passed_on = False
        self._current: Deliveries | None = None
        self._redelivered = metrics.redeliveries.labels(service, consumer.name)
        self._dead = metrics.dead_letters.labels(service, consumer.name)

    async def run(self) -> None:
        """Consume until `stop` or `pass_on`."""
        self._is_passed_on = False
        self.is_idle.clear()
        try:
            await self._sessions()
        finally:
            self.is_idle.set()

    async def _sessions(self) -> None:
        wait, quiet_until = 0.05, 0.0
        while not self._is_over:
            before = self.handled
            try:
                await self._session()
            except Unavailable as error:
                self.waits_for = describe(error)
                if self.handled > before:
                    wait = 0.05
                if time.monotonic() >= quiet_until:
                    quiet_until = time.monotonic() + SAY_AGAIN
                    logger.warning("consumer %s waits: %s", self.consumer.name, error)
                await self._pause(wait)
                wait = min(wait * 2, 2.0)

    def stop(self) -> None:
        """Finish the batch under way, give back the rest, end."""
        self._stopping.set()
        self.pass_on()

    def pass_on(self) -> None:
        """The same for now: another replica goes on, and this one may run again later."""
        self._is_passed_on = True
        if self._current is not None:
            self._current.interrupt()
        if self.consumer.rest is not None:
            self.consumer.rest.hurry()

    @property
    def _is_over(self) -> bool:
        return self._is_passed_on or self._stopping.is_set()

    async def _session(self) -> None:
        async with self._database.read_all() as connection:
            await connection.fetchval("SELECT 1")
        async with self._subscribe() as deliveries:
            self._current = deliveries
            try:
                while not self._is_over:
                    batch = await deliveries.next_batch(BATCH)
                    if batch:
                        await self.process(deliveries, batch)
                    if 0 < len(batch) < BATCH and self.consumer.rest is not None:
                        await self.consumer.rest.take()
            finally:
                self._current = None

    async def process(self, deliveries: Deliveries, batch: Sequence[Delivery]) -> None:
        """Apply a batch and acknowledge it; what belongs to another partition is not applied."""
        items = [_item(delivery) for delivery in batch if self._is_ours(delivery)]
        self._redelivered.inc(sum(1 for delivery in batch if delivery.attempt > 1))
        try:
            if items:
                await self._apply(items)
        except Unavailable:
            raise
        except Exception as error:
            logger.info("consumer %s: %s; each event alone", self.consumer.name, describe(error))
            for item in items:
                if not await self._settle(item):
                    return
                await deliveries.ack([item.delivery])
            await deliveries.ack([one for one in batch if not self._is_ours(one)])
        else:
            failpoints.reach("consume-after", *(item.envelope.type for item in items))
            await deliveries.ack(batch)
        self.handled += len(items)
        self.waits_for = None

    def _is_ours(self, delivery: Delivery) -> bool:
        return self.partition in (None, partition_of_subject(delivery.message.subject))

    async def _settle(self, item: Item) -> bool:
        """Apply one event, or make it a dead letter; False if stopped before either."""
        retry = self.consumer.retry
        for attempt in range(1, retry.attempts + 1):
            try:
                await self._apply([item])
                return True
            except Unavailable:
                raise
            except Exception as error:
                if isinstance(error, HOPELESS) or attempt == retry.attempts:
                    await self._bury(item, error, attempt)
                    return True
                self._redelivered.inc()
                await self._pause(retry.delay(attempt))
                if self._is_over:
                    return False
        raise AssertionError("unreachable")

    async def _bury(self, item: Item, error: Exception, attempts: int) -> None:
        name, read = self.consumer.name, item.envelope
        async with self._database.transaction(read.tenant) as tx:
            known, _ = await self._known(tx, [item])
            before = known.get(read.stream, 0)
            if read.version <= before:
                return
            await dead_letters.lock_lane(tx, name, read.lane)
            await dead_letters.park(
                tx, name, read, item.delivery.message, describe(error), attempts
            )
            await self._move(tx, read.tenant, {read.stream: read.version}, known)
        self._dead.inc()
        logger.error(
            "consumer %s: event %s is a dead letter, %s is parked: %s",
            name, read.id, read.lane, describe(error), exc_info=error,
        )  # fmt: skip

    async def _apply(self, items: Sequence[Item]) -> None:
        """Every item in one transaction; tenant by tenant, for each sees only its own rows."""
        tenants: dict[str, list[Item]] = {}
        for item in items:
            tenants.setdefault(item.envelope.tenant, []).append(item)
        parked = 0
        async with self._database.transaction(next(iter(tenants))) as tx:
            if self.consumer.begin is not None:
                await self.consumer.begin(tx)
            for place, (tenant, group) in enumerate(tenants.items()):
                if place:
                    await set_tenant(tx, tenant)
                parked += await self._apply_tenant(tx, tenant, group)
        self._dead.inc(parked)

    async def _apply_tenant(self, tx: Connection, tenant: str, items: Sequence[Item]) -> int:
        known, lanes = await self._known(tx, items)
        moved: dict[str, int] = {}
        parked = 0
        ready: list[Item] = []
        for item in items:
            read, message = item.envelope, item.delivery.message
            if read.version <= moved.get(read.stream, known.get(read.stream, 0)):
                continue  # seen before
            if read.lane in lanes and await self._still_parked(tx, read.lane):
                behind = "behind a dead letter of its lane"
                await dead_letters.park(tx, self.consumer.name, read, message, behind, 0)
                parked += 1
            else:
                lanes.discard(read.lane)
                ready.append(item)
            moved[read.stream] = read.version
        await self._handle(tx, ready)
        await self._move(tx, tenant, moved, known)
        return parked

    async def _handle(self, tx: Connection, items: Sequence[Item]) -> None:
        if self.consumer.handle_all is not None and all(item.is_readable for item in items):
            for item in items:
                failpoints.reach("consume-before", item.envelope.type)
            batch = ((item.delivery.message, item.envelope) for item in items)
            await self.consumer.handle_batch(tx, batch)
            return
        for item in items:
            failpoints.reach("consume-before", item.envelope.type)
            read = item.envelope if item.is_readable else None
            await self.consumer.handle(tx, item.delivery.message, read)

    async def _still_parked(self, tx: Connection, lane: str) -> bool:
        """A replay may have unparked it since; with the lock, what is read here stays true."""
        await dead_letters.lock_lane(tx, self.consumer.name, lane)
        return await dead_letters.is_parked(tx, self.consumer.name, lane)

    async def _known(
        self, tx: Connection, items: Sequence[Item]
    ) -> tuple[dict[str, int], set[str]]:
        streams = list({item.envelope.stream for item in items})
        lanes = list({item.envelope.lane for item in items})
        rows = await tx.fetch(_KNOWN, self.consumer.name, streams, lanes)
        versions = {row["name"]: row["version"] for row in rows if row["kind"] == "cursor"}
        return versions, {row["name"] for row in rows if row["kind"] == "lane"}

    async def _move(
        self, tx: Connection, tenant: str, moved: dict[str, int], known: dict[str, int]
    ) -> None:
        if not moved:
            return
        before = [known.get(stream, 0) for stream in moved]
        done = await tx.execute(
            _MOVE, self.consumer.name, tenant, list(moved), list(moved.values()), before
        )
        if int(done.rsplit(" ", 1)[1]) != len(moved):
            raise CursorMoved(f"cursors of {self.consumer.name!r} moved meanwhile")

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return


def _item(delivery: Delivery) -> Item:
    try:
        return Item(delivery, envelope(delivery.message))
    except Malformed:
        # It has no place in any stream, so it gets one of its own; handling it will fail.
        return Item(
            delivery,
            Envelope(
                id=delivery.message.headers.get("ce-id", "unknown"),
                type="malformed",
                schema_version=0,
                stream=f"malformed-{delivery.sequence}",
                version=1,
                tenant="_",
                correlation_id="_",
            ),
            is_readable=False,
        )
