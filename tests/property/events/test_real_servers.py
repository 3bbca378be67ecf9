"""The same rule with a real Postgres and a real JetStream, in fewer examples."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flowerbed.events.connection import Connection
from flowerbed.events.consumer import Consumer, Retry
from flowerbed.events.context import Context
from flowerbed.events.errors import Unavailable
from flowerbed.events.intake import Intake
from flowerbed.events.jetstream import Bus
from flowerbed.events.message import Message
from flowerbed.events.outbox import Outbox
from flowerbed.events.recorded import Recorded
from flowerbed.events.relay import Fenced, Progress, Relay
from tests.support.garden import MIGRATIONS, Sown, Watered, codec, store
from tests.support.servers import MakeBus, MakeDatabase, ServiceDatabase, eventually

STREAM = "FL_LEASE"
examples = count()

place = st.integers(0, 2)
bed = st.sampled_from(["bed-1", "bed-2", "bed-3"])
steps = st.one_of(
    st.tuples(st.just("begin")),
    st.tuples(st.just("append"), place, bed),
    st.tuples(st.just("commit"), place),
    st.tuples(st.just("abort"), place),
    st.tuples(st.just("write"), bed, st.integers(1, 6)),
    st.tuples(st.just("pump"), st.sampled_from(["", "", "deaf", "rival"])),
    st.tuples(st.just("consume"), st.sampled_from(["", "", "before", "after"])),
)


@dataclass(slots=True)
class Open:
    connection: Connection
    streams: set[str] = field(default_factory=set)


class Deaf:
    """Stores what it is given and does not hear the answer."""

    def __init__(self, bus: Bus) -> None:
        self.tail = bus.tail
        self._bus = bus

    async def publish(self, message: Message, expected: int) -> int:
        await self._bus.publish(message, expected)
        raise Unavailable("no answer")

    async def publish_batch(self, messages: Any, expected: int) -> int:
        await self._bus.publish_batch(messages, expected)
        raise Unavailable("no answer")


class Example:
    """One script of steps, in streams of its own."""

    def __init__(self, lease: ServiceDatabase, gateway: ServiceDatabase, buses: list[Bus]) -> None:
        self.lease, self.gateway = lease, gateway
        self.bus, self.readers = buses
        self.name = f"e{next(examples)}"
        self.context = Context(tenant="roses", correlation_id=self.name)
        self.open: list[Open] = []
        self.consumer = Consumer(
            "notes", STREAM, {Sown: self.note, Watered: self.note}, codec, Retry(first=0.01)
        )
        self.relay = self.new_relay(self.bus)

    def new_relay(self, sink: Any) -> Relay:
        return Relay("lease", STREAM, Outbox(self.lease.database), sink, page=5)

    async def note(self, tx: Connection, recorded: Recorded[Any]) -> None:
        await tx.execute(
            "INSERT INTO notes (stream, version, tenant) VALUES ($1, $2, $3)",
            recorded.stream, recorded.version, recorded.context.tenant,
        )  # fmt: skip

    async def begin(self) -> None:
        if len(self.open) < 3:
            connection = await self.lease.database.pool.acquire()
            await connection.execute("BEGIN; SELECT pg_current_xact_id()")
            await connection.execute("SELECT set_config('flowerbed.tenant', 'roses', true)")
            self.open.append(Open(connection))

    async def append(self, at: int, stream: str) -> None:
        if not self.open:
            return
        mine = self.open[at % len(self.open)]
        if any(stream in other.streams for other in self.open if other is not mine):
            return  # it would wait for the other transaction
        mine.streams.add(stream)
        await self.record(mine.connection, stream, 1)

    async def record(self, tx: Connection, stream: str, number: int) -> None:
        name = f"{self.name}-{stream}"
        head = len(await store.read(tx, name))
        events = [Watered(litres=litres) for litres in range(number)]
        await store.append(tx, name, events, expected=head, context=self.context)

    async def commit(self, at: int, statement: str = "COMMIT") -> None:
        if self.open:
            ending = self.open.pop(at % len(self.open))
            await ending.connection.execute(statement)
            await self.lease.database.pool.release(ending.connection)

    async def abort(self, at: int) -> None:
        await self.commit(at, "ROLLBACK")

    async def write(self, stream: str, number: int) -> None:
        if not any(stream in other.streams for other in self.open):
            async with self.lease.database.transaction("roses") as tx:
                await self.record(tx, stream, number)

    async def pump(self, how: str) -> None:
        try:
            if how == "deaf":
                await self.new_relay(Deaf(self.bus)).pump()
            elif how == "rival":
                await self.new_relay(self.bus).pump()
            else:
                await self.relay.pump()
        except (Fenced, Unavailable):
            self.relay = self.new_relay(self.bus)

    async def consume(self, dies: str) -> None:
        """One batch, and the process may die before its commit or before its acknowledgement."""
        intake = Intake("gateway", self.consumer, self.gateway.database, None)  # type: ignore[arg-type]
        if await self.readers.pending(STREAM, "gateway") == 0:
            return
        async with self.readers.subscription(STREAM, "gateway") as deliveries:
            try:
                batch = await asyncio.wait_for(deliveries.next_batch(3), 2)
            except TimeoutError:
                # Acknowledgements of the last session were still under way.
                assert await self.readers.pending(STREAM, "gateway") == 0, "not delivered"
                return
            if dies == "before":
                return
            if dies == "after":
                deliveries.ack = _forget  # type: ignore[method-assign]
            await intake.process(deliveries, batch)

    async def finish(self) -> None:
        while self.open:
            await self.commit(0)
        self.relay = self.new_relay(self.bus)

        async def is_idle() -> bool:
            return await self.relay.pump() is Progress.IDLE

        await eventually(is_idle, "everything is relayed")
        while await self.readers.pending(STREAM, "gateway"):
            await self.consume("")
        async with self.lease.database.read_all() as connection:
            recorded = await connection.fetch(
                "SELECT stream, version FROM events WHERE stream LIKE $1", f"{self.name}-%"
            )
        async with self.gateway.database.read_all() as connection:
            notes = await connection.fetch(
                "SELECT stream, version FROM notes WHERE stream LIKE $1 ORDER BY id",
                f"{self.name}-%",
            )
        applied = [tuple(row) for row in notes]
        assert sorted(applied) == sorted(tuple(row) for row in recorded)
        last: dict[str, int] = {}
        for stream, version in applied:
            assert version == last.get(stream, 0) + 1
            last[stream] = version


async def _forget(deliveries: Any) -> None:
    return None


@pytest.fixture
async def make_example(service_database: MakeDatabase, bus: MakeBus) -> Callable[[], Example]:
    lease = await service_database("lease")
    gateway = await service_database("gateway", [MIGRATIONS])
    buses = [await bus("lease"), await bus("gateway")]
    return lambda: Example(lease, gateway, buses)


@settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(script=st.lists(steps, min_size=15, max_size=40))
async def test_each_event_is_applied_once_in_order_and_none_is_lost(
    make_example: Callable[[], Example], script: list[tuple[Any, ...]]
) -> None:
    example = make_example()
    for name, *arguments in script:
        step: Callable[..., Awaitable[None]] = getattr(example, name)
        await asyncio.wait_for(step(*arguments), 20)
    await example.finish()
