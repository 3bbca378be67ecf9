"""Consumers on a real JetStream and a real Postgres: from one service's store to another's."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from flowerbed.contracts.trace import of_federation
from flowerbed.events import dead_letters, metrics
from flowerbed.events.commands import execute, handle
from flowerbed.events.consumer import Consumer, Handler, Retry
from flowerbed.events.context import Context
from flowerbed.events.database import Connection
from flowerbed.events.errors import Rejected, Unavailable
from flowerbed.events.intake import Intake
from flowerbed.events.jetstream import Bus
from flowerbed.events.message import Message
from flowerbed.events.outbox import Outbox
from flowerbed.events.recorded import Recorded
from flowerbed.events.relay import Progress, Relay
from flowerbed.events.rest import Rest
from tests.support.garden import (
    MIGRATIONS,
    ROSES,
    TULIPS,
    Sow,
    Sown,
    Water,
    Watered,
    bed,
    codec,
    store,
)
from tests.support.servers import (
    MakeBus,
    MakeDatabase,
    NatsServer,
    PostgresServer,
    ServiceDatabase,
    eventually,
)

STREAM = "FL_LEASE"
QUICK = Retry(attempts=3, first=0.01)


@dataclass(slots=True)
class Garden:
    """The lease service that records, and the gateway that consumes."""

    lease: ServiceDatabase
    gateway: ServiceDatabase
    relay: Relay
    bus: Bus
    broken: dict[str, Exception] = field(default_factory=dict)
    """By stream: what its handler raises."""

    async def record(self, stream: str, *events: Sown | Watered, context: Context = ROSES) -> None:
        async with self.lease.database.transaction(context.tenant) as tx:
            history = await store.read(tx, stream)
            await store.append(tx, stream, events, expected=len(history), context=context)
        await self.relayed()

    async def relayed(self) -> None:
        """Relay all there is; wait for transactions that hold something back."""

        async def is_idle() -> bool:
            return await self.relay.pump() is Progress.IDLE

        await eventually(is_idle, "everything is relayed")

    async def note(self, tx: Connection, recorded: Recorded[Any]) -> None:
        await tx.execute(
            "INSERT INTO notes (stream, version, tenant) VALUES ($1, $2, $3)",
            recorded.stream, recorded.version, recorded.context.tenant,
        )  # fmt: skip
        if recorded.stream in self.broken:
            raise self.broken[recorded.stream]

    def consumer(self, handler: Handler | None = None, name: str = "notes") -> Consumer:
        one = handler or self.note
        return Consumer(name, STREAM, {Sown: one, Watered: one}, codec, QUICK)

    def intake(self, consumer: Consumer | None = None, bus: Bus | None = None) -> Intake:
        own = consumer or self.consumer()
        connected = bus or self.bus
        return Intake(
            "gateway",
            own,
            self.gateway.database,
            lambda: connected.subscription(own.stream, "gateway"),
        )

    async def notes(self) -> list[tuple[str, int]]:
        """What the handlers wrote, in order; once Postgres answers."""
        async with self.gateway.database.read_all() as connection:
            rows = await connection.fetch("SELECT stream, version FROM notes ORDER BY id")
        return [(row["stream"], row["version"]) for row in rows]

    async def letters(self) -> list[tuple[str, int, str]]:
        listed = await dead_letters.listed(self.gateway.database)
        return [(one["stream"], one["version"], one["error"]) for one in listed]

    async def noted(self, *expected: tuple[str, int]) -> None:
        async def there() -> bool:
            try:
                return len(await self.notes()) >= len(expected)
            except Unavailable:
                return False

        await eventually(there, f"{len(expected)} notes")
        assert await self.notes() == list(expected)

    async def acknowledged(self) -> None:
        async def none() -> bool:
            return await self.bus.pending(STREAM, "gateway") == 0

        await eventually(none, "everything is acknowledged")


@pytest.fixture
async def garden(service_database: MakeDatabase, bus: MakeBus) -> Garden:
    lease = await service_database("lease")
    gateway = await service_database("gateway", [MIGRATIONS])
    relay = Relay("lease", STREAM, Outbox(lease.database), await bus("lease"))
    return Garden(lease, gateway, relay, await bus("gateway"))


@asynccontextmanager
async def running(intake: Intake) -> AsyncIterator[Intake]:
    task = asyncio.create_task(intake.run())
    try:
        yield intake
    finally:
        intake.stop()
        await asyncio.wait_for(task, 10)


async def test_each_event_is_handled_once_in_order(garden: Garden) -> None:
    await garden.record("bed-1", Sown(seed="a"), Watered(litres=1))
    async with running(garden.intake()):
        await garden.noted(("bed-1", 1), ("bed-1", 2))
        await garden.record("bed-1", Watered(litres=2))
        await garden.noted(("bed-1", 1), ("bed-1", 2), ("bed-1", 3))
        await garden.acknowledged()


async def test_events_gather_during_a_rest_and_are_one_transaction(garden: Garden) -> None:
    rest = Rest(60.0, hurry_seconds=0.0)
    await garden.record("bed-1", Sown(seed="a"))
    async with running(garden.intake(replace(garden.consumer(), rest=rest))) as intake:
        await garden.acknowledged()
        await garden.record("bed-1", Watered(litres=1))
        await garden.record("bed-1", Watered(litres=2))
        await asyncio.sleep(0.2)
        assert await garden.notes() == [("bed-1", 1)]
        assert not intake.is_idle.is_set()
        rest.hurry()
        await garden.noted(("bed-1", 1), ("bed-1", 2), ("bed-1", 3))
    async with garden.gateway.database.read_all() as connection:
        rows = await connection.fetch("SELECT DISTINCT xmin::text FROM notes WHERE version > 1")
    assert len(rows) == 1


async def test_batch_may_hold_several_tenants(garden: Garden) -> None:
    for number in range(3):
        await garden.record(f"rose-{number}", Sown(seed="a"))
        await garden.record(f"tulip-{number}", Sown(seed="a"), context=TULIPS)
    async with running(garden.intake()):
        await garden.acknowledged()
    assert len(await garden.notes()) == 6
    for tenant in ("roses", "tulips"):
        async with garden.gateway.database.transaction(tenant) as tx:
            cursors = await tx.fetch("SELECT tenant FROM cursors")
            assert [row["tenant"] for row in cursors] == [tenant] * 3


async def test_event_type_without_a_handler_is_passed_over(garden: Garden) -> None:
    only_watered = Consumer("notes", STREAM, {Watered: garden.note}, codec)
    await garden.record("bed-1", Sown(seed="a"), Watered(litres=1))
    async with running(garden.intake(only_watered)):
        await garden.noted(("bed-1", 2))


async def test_events_seen_before_are_dropped(garden: Garden) -> None:
    await garden.record("bed-1", Sown(seed="a"), Watered(litres=1))
    async with running(garden.intake()):
        await garden.acknowledged()
    await _start_over(garden)
    await garden.record("bed-1", Watered(litres=1))
    async with running(garden.intake()) as again:
        await garden.acknowledged()
        assert again.handled == 3
    assert await garden.notes() == [("bed-1", 1), ("bed-1", 2), ("bed-1", 3)]


async def test_events_left_unacknowledged_by_a_crash_come_before_newer_ones(
    garden: Garden,
) -> None:
    await garden.record("bed-1", Sown(seed="a"), Watered(litres=1))
    async with garden.bus.subscription(STREAM, "gateway") as crashed:
        assert len(await crashed.next_batch(10)) == 2
    await garden.record("bed-1", Watered(litres=2))
    async with running(garden.intake()):
        await garden.noted(("bed-1", 1), ("bed-1", 2), ("bed-1", 3))


async def test_prefetched_events_are_given_back_on_stop(garden: Garden) -> None:
    for number in range(20):
        await garden.record(f"bed-{number}", Sown(seed="a"))
    entered, leave = asyncio.Event(), asyncio.Event()

    async def slow(tx: Connection, recorded: Recorded[Any]) -> None:
        entered.set()
        await leave.wait()
        await garden.note(tx, recorded)

    intake = garden.intake(garden.consumer(slow))
    task = asyncio.create_task(intake.run())
    await entered.wait()
    intake.stop()
    leave.set()
    await asyncio.wait_for(task, 10)
    done = len(await garden.notes())
    assert done == intake.handled > 0, "the batch under way was finished"
    async with running(garden.intake()):
        await garden.acknowledged()
    assert len(await garden.notes()) == 20


async def test_effects_and_cursor_commit_together(garden: Garden) -> None:
    await garden.record("bed-1", Sown(seed="a"))
    garden.broken["bed-1"] = RuntimeError("not today")
    async with running(garden.intake()):
        await eventually(lambda: bool(garden.bus.is_connected), "connected")
        await garden.acknowledged()
    assert await garden.notes() == [], "what a failing handler wrote is not kept"


async def test_one_failing_federation_does_not_stop_the_others(garden: Garden) -> None:
    other = Context(tenant="roses", correlation_id="fed-9")
    before = metrics.dead_letters.labels("gateway", "notes")._value.get()
    garden.broken["bed-1"] = RuntimeError("not today")
    await garden.record("bed-1", Sown(seed="a"))
    await garden.record("bed-2", Sown(seed="a"), context=other)
    await garden.record("bed-3", Sown(seed="a"))
    async with running(garden.intake()):
        await garden.noted(("bed-2", 1))
        await garden.acknowledged()
        assert await garden.letters() == [
            ("bed-1", 1, "RuntimeError: not today"),
            ("bed-3", 1, "behind a dead letter of its lane"),
        ]
        await garden.record("bed-2", Watered(litres=1), context=other)
        await garden.record("bed-3", Watered(litres=1))
        await garden.noted(("bed-2", 1), ("bed-2", 2))
        await garden.acknowledged()
    assert len(await garden.letters()) == 3
    assert metrics.dead_letters.labels("gateway", "notes")._value.get() == before + 3


async def test_replay_handles_dead_letters_in_order_and_unparks(garden: Garden) -> None:
    garden.broken["bed-1"] = RuntimeError("not today")
    await garden.record("bed-1", Sown(seed="a"))
    await garden.record("bed-2", Sown(seed="a"), Watered(litres=1))
    await garden.record("bed-1", Watered(litres=1))
    consumer = garden.consumer()
    async with running(garden.intake(consumer)):
        await garden.acknowledged()
        with pytest.raises(RuntimeError):
            await dead_letters.replay(garden.gateway.database, consumer, "fed-1")
        assert len(await garden.letters()) == 4, "a replay that fails changes nothing"
        garden.broken.clear()
        replayed = await dead_letters.replay(garden.gateway.database, consumer, "fed-1")
        assert replayed == 4
        await garden.record("bed-1", Watered(litres=2))
        await garden.noted(("bed-1", 1), ("bed-2", 1), ("bed-2", 2), ("bed-1", 2), ("bed-1", 3))
    assert await garden.letters() == []


async def test_failed_replay_counts_the_attempt_and_keeps_the_new_error(garden: Garden) -> None:
    garden.broken["bed-1"] = RuntimeError("not today")
    await garden.record("bed-1", Sown(seed="a"))
    consumer = garden.consumer()
    async with running(garden.intake(consumer)):
        await garden.acknowledged()
    garden.broken["bed-1"] = RuntimeError("nor tomorrow")
    with pytest.raises(RuntimeError):
        await dead_letters.replay(garden.gateway.database, consumer, "fed-1")
    (letter,) = await dead_letters.listed(garden.gateway.database, "notes")
    assert (letter["attempts"], letter["error"]) == (4, "RuntimeError: nor tomorrow")


async def test_event_that_arrives_during_a_replay_is_not_left_behind(garden: Garden) -> None:
    garden.broken["bed-1"] = RuntimeError("not today")
    await garden.record("bed-1", Sown(seed="a"))
    async with running(garden.intake()):
        await garden.acknowledged()
    garden.broken.clear()
    await garden.record("bed-1", Watered(litres=1))
    entered, leave = asyncio.Event(), asyncio.Event()

    async def slow(tx: Connection, recorded: Recorded[Any]) -> None:
        entered.set()
        await leave.wait()

    replaying = asyncio.create_task(
        dead_letters.replay(garden.gateway.database, garden.consumer(slow), "fed-1")
    )
    await entered.wait()
    async with running(garden.intake()):
        await _waits_for_a_lock(garden)
        leave.set()
        assert await replaying == 1
        await garden.noted(("bed-1", 2))
    assert await garden.letters() == []


async def test_events_of_no_federation_are_parked_by_their_stream(garden: Garden) -> None:
    alone = Context(tenant="roses")
    garden.broken["bed-1"] = RuntimeError("not today")
    await garden.record("bed-1", Sown(seed="a"), context=alone)
    await garden.record("bed-2", Sown(seed="a"), context=alone)
    async with running(garden.intake()):
        await garden.noted(("bed-2", 1))
        await garden.acknowledged()
    garden.broken.clear()
    consumer = garden.consumer()
    assert await dead_letters.replay(garden.gateway.database, consumer, "bed-1") == 1


async def test_handler_that_works_the_second_time_leaves_no_dead_letter(garden: Garden) -> None:
    tries: list[int] = []
    before = metrics.redeliveries.labels("gateway", "notes")._value.get()

    async def twice(tx: Connection, recorded: Recorded[Any]) -> None:
        tries.append(recorded.version)
        if len(tries) < 3:
            raise RuntimeError("not yet")
        await garden.note(tx, recorded)

    await garden.record("bed-1", Sown(seed="a"))
    async with running(garden.intake(garden.consumer(twice))):
        await garden.noted(("bed-1", 1))
    assert await garden.letters() == []
    assert metrics.redeliveries.labels("gateway", "notes")._value.get() > before


async def test_event_that_is_being_tried_again_is_given_back_on_stop(garden: Garden) -> None:
    garden.broken["bed-1"] = RuntimeError("not today")
    failed = asyncio.Event()

    async def fails(tx: Connection, recorded: Recorded[Any]) -> None:
        failed.set()
        await garden.note(tx, recorded)

    await garden.record("bed-1", Sown(seed="a"))
    patient = Consumer("notes", STREAM, {Sown: fails}, codec, Retry(attempts=3, first=60))
    async with running(garden.intake(patient)):
        await failed.wait()
    assert await garden.letters() == []
    garden.broken.clear()
    async with running(garden.intake()):
        await garden.noted(("bed-1", 1))


async def test_rejection_is_a_dead_letter_at_once(garden: Garden) -> None:
    garden.broken["bed-1"] = Rejected("no")
    await garden.record("bed-1", Sown(seed="a"))
    async with running(garden.intake()):
        await garden.acknowledged()
    (letter,) = await dead_letters.listed(garden.gateway.database)
    assert (letter["attempts"], letter["lane"], letter["tenant"]) == (1, "fed-1", "roses")


async def test_dependency_that_is_away_is_never_a_dead_letter(garden: Garden) -> None:
    tries: list[None] = []

    async def away(tx: Connection, recorded: Recorded[Any]) -> None:
        tries.append(None)
        if len(tries) <= QUICK.attempts + 1:
            raise Unavailable("S3 did not answer")
        await garden.note(tx, recorded)

    await garden.record("bed-1", Sown(seed="a"))
    async with running(garden.intake(garden.consumer(away))):
        await garden.noted(("bed-1", 1))
    assert await garden.letters() == []


async def test_message_that_is_no_event_is_a_dead_letter(
    garden: Garden, fresh_streams: Bus
) -> None:
    stray = Message(subject="fl.client.enrolled.roses.fed-1", headers={}, data=b"{}")
    await fresh_streams.publish(stray)
    bad = Message(
        subject="fl.client.enrolled.roses.fed-1",
        headers={
            "ce-id": "not-a-uuid", "ce-type": "fl.client.enrolled", "ce-subject": "bed-7",
            "schemaversion": "1", "streamversion": "1", "tenant": "roses", "correlationid": "fed-1",
        },
        data=b"{}",
    )  # fmt: skip
    await fresh_streams.publish(bad)
    async with running(garden.intake()):
        await garden.acknowledged()
    letters = await garden.letters()
    assert [(stream, version) for stream, version, _ in letters] == [
        ("malformed-1", 1),
        ("bed-7", 1),
    ]
    assert all(error.startswith("Malformed") for _, _, error in letters)


async def test_consumers_events_name_their_cause_and_wake_their_relay(garden: Garden) -> None:
    woken: list[None] = []
    garden.gateway.database.on_append = lambda: woken.append(None)

    async def answer(tx: Connection, recorded: Recorded[Any]) -> None:
        await execute(tx, store, bed, "answer", Sow(seed="b"), recorded.consequence("gardener"))

    context = Context(tenant="roses", correlation_id="fed-1")
    await garden.record("bed-1", Sown(seed="a"), context=context)
    async with running(garden.intake(garden.consumer(answer))):
        await eventually(lambda: bool(woken), "the answer is recorded")
    async with garden.lease.database.transaction("roses") as tx:
        (cause,) = await store.read(tx, "bed-1")
    async with garden.gateway.database.transaction("roses") as tx:
        (answered,) = await store.read(tx, "answer")
    assert answered.context.causation_id == str(cause.id)
    assert answered.context.actor == "gardener"
    assert answered.context.traceparent == cause.context.traceparent == of_federation("fed-1")


async def test_session_that_finds_its_cursors_moved_starts_over(
    garden: Garden, bus: MakeBus
) -> None:
    """A leader that was cut off and replaced in the middle of a batch: each effect is once."""
    await garden.record("bed-1", Sown(seed="a"))
    await garden.record("bed-1", Watered(litres=1))
    entered, leave = asyncio.Event(), asyncio.Event()

    async def slow(tx: Connection, recorded: Recorded[Any]) -> None:
        entered.set()
        await leave.wait()
        await garden.note(tx, recorded)

    zombies_bus = await bus("gateway")
    async with running(garden.intake(garden.consumer(slow), zombies_bus)):
        await entered.wait()
        await zombies_bus.close()
        async with running(garden.intake()):
            await garden.noted(("bed-1", 1), ("bed-1", 2))
            leave.set()
            await garden.record("bed-1", Watered(litres=2))
            await garden.noted(("bed-1", 1), ("bed-1", 2), ("bed-1", 3))
            await garden.acknowledged()
    assert await garden.notes() == [("bed-1", 1), ("bed-1", 2), ("bed-1", 3)]


async def test_stopped_replica_does_not_keep_events_from_its_successor(
    garden: Garden, nats_server: NatsServer
) -> None:
    stopped = Bus(nats_server.url, "gateway", nats_server.passwords["gateway"], expires=1)
    await stopped.start()
    await stopped.wait_connected(5)
    async with stopped.subscription(STREAM, "gateway") as deaf:
        deaf._on_status = _deaf  # type: ignore[method-assign]  # it renews nothing
        async with running(garden.intake()):
            await garden.record("bed-1", Sown(seed="a"))
            await garden.noted(("bed-1", 1))
    await stopped.close()


async def _deaf(status: str, msg: Any) -> None:
    return None


async def test_missed_event_ends_the_session_and_comes_in_the_next(garden: Garden) -> None:
    await garden.record("bed-1", Sown(seed="a"))
    async with garden.bus.subscription(STREAM, "gateway") as mine:
        await mine.next_batch(1)
        await _start_over(garden)
        with pytest.raises(Unavailable, match="expected delivery 2, got 1"):
            while True:
                await mine.next_batch(1)
    async with garden.bus.subscription(STREAM, "gateway") as again:
        assert [one.sequence for one in await again.next_batch(1)] == [1]


async def test_redelivered_event_is_acknowledged_again_and_not_handled_again(
    garden: Garden, fresh_streams: Bus
) -> None:
    info = await fresh_streams.api(f"CONSUMER.INFO.{STREAM}.gateway", {})
    config = {**info["config"], "ack_wait": int(0.2e9)}
    request = {"stream_name": STREAM, "config": config}
    await fresh_streams.api(f"CONSUMER.DURABLE.CREATE.{STREAM}.gateway", request)
    await garden.record("bed-1", Sown(seed="a"))
    entered, leave = asyncio.Event(), asyncio.Event()

    async def slow(tx: Connection, recorded: Recorded[Any]) -> None:
        entered.set()
        await leave.wait()
        await garden.note(tx, recorded)

    async with running(garden.intake(garden.consumer(slow))):
        await entered.wait()

        async def redelivered() -> bool:
            seen = await garden.bus.api(f"CONSUMER.INFO.{STREAM}.gateway", {})
            return int(seen["delivered"]["consumer_seq"]) > 1

        await eventually(redelivered, "delivered again")
        leave.set()
        await garden.acknowledged()
    assert await garden.notes() == [("bed-1", 1)]


async def test_consumer_goes_on_after_nats_was_killed(
    garden: Garden, nats_server: NatsServer
) -> None:
    await garden.record("bed-1", Sown(seed="a"))
    async with running(garden.intake()):
        await garden.noted(("bed-1", 1))
        nats_server.kill()
        await asyncio.to_thread(nats_server.start)
        garden.relay.mark = None
        await eventually(lambda: garden.bus.is_connected, "connected again")
        await garden.bus.wait_connected(5)
        async with garden.lease.database.transaction("roses") as tx:
            await store.append(tx, "bed-1", [Watered(litres=1)], expected=1, context=ROSES)
        relaying = asyncio.create_task(garden.relay.run())
        await garden.noted(("bed-1", 1), ("bed-1", 2))
        relaying.cancel()


async def test_consumer_goes_on_after_postgres_was_killed(
    garden: Garden, postgres_server: PostgresServer
) -> None:
    """Nothing is lost and nothing is done twice, though it is killed while handling."""
    entered, leave = asyncio.Event(), asyncio.Event()

    async def slow(tx: Connection, recorded: Recorded[Any]) -> None:
        await garden.note(tx, recorded)
        if recorded.version == 2 and not leave.is_set():
            entered.set()
            await leave.wait()

    await garden.record("bed-1", Sown(seed="a"))
    async with running(garden.intake(garden.consumer(slow))):
        await garden.noted(("bed-1", 1))
        await garden.record("bed-1", Watered(litres=1), Watered(litres=1))
        await entered.wait()
        await asyncio.to_thread(postgres_server.kill)
        leave.set()
        with pytest.raises(Unavailable):
            await handle(garden.lease.database, store, bed, "bed-1", Water(litres=1), ROSES)
        await asyncio.to_thread(postgres_server.start)
        await handle(garden.lease.database, store, bed, "bed-1", Water(litres=1), ROSES)
        await garden.relayed()
        await garden.noted(*(("bed-1", version) for version in range(1, 5)))
    assert await garden.letters() == []


async def _start_over(garden: Garden) -> None:
    """Let JetStream deliver everything again from the first message."""
    admin_reset = f"CONSUMER.RESET.{STREAM}.gateway"
    answer = await garden.bus.api(admin_reset, {"seq": 1})
    assert "error" not in answer, answer


async def _waits_for_a_lock(garden: Garden) -> None:
    async def waiting() -> bool:
        async with garden.gateway.database.read_all() as connection:
            found: int = await connection.fetchval(
                "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
            )
        return found > 0

    await eventually(waiting, "the consumer waits for the lane")


class Whole:
    """A consumer that takes what arrived at once."""

    def __init__(self, garden: Garden) -> None:
        self.garden = garden
        self.sizes: list[int] = []

    async def note_all(self, tx: Connection, recorded: Sequence[Recorded[Any]]) -> None:
        self.sizes.append(len(recorded))
        for one in recorded:
            await self.garden.note(tx, one)

    @property
    def consumer(self) -> Consumer:
        return replace(self.garden.consumer(), handle_all=self.note_all)


async def test_a_batch_is_handled_at_once_and_in_order_tenant_by_tenant(garden: Garden) -> None:
    whole = Whole(garden)
    await garden.record("bed-1", Sown(seed="rose"), Watered(litres=1))
    await garden.record("bed-2", Sown(seed="tulip"), context=TULIPS)
    await garden.record("bed-1", Watered(litres=2))

    async with running(garden.intake(whole.consumer)):
        await garden.noted(("bed-1", 1), ("bed-1", 2), ("bed-1", 3), ("bed-2", 1))
        await garden.acknowledged()

    assert sum(whole.sizes) == 4 and max(whole.sizes) == 3


async def test_an_event_that_spoils_a_batch_is_put_aside_alone(garden: Garden) -> None:
    whole = Whole(garden)
    garden.broken["bed-2"] = Rejected("no")
    await garden.record("bed-1", Sown(seed="rose"))
    await garden.record("bed-2", Sown(seed="ivy"), context=TULIPS)
    await garden.record("bed-3", Sown(seed="lily"))

    async with running(garden.intake(whole.consumer)):
        await garden.noted(("bed-1", 1), ("bed-3", 1))
        await garden.acknowledged()

    assert [(stream, version) for stream, version, _ in await garden.letters()] == [("bed-2", 1)]


async def test_a_thousand_events_are_relayed_in_pages_read_ahead(garden: Garden) -> None:
    events = [Watered(litres=number + 1) for number in range(120)]
    for number in range(10):
        async with garden.lease.database.transaction(ROSES.tenant) as tx:
            await store.append(tx, f"bed-{number}", events, expected=0, context=ROSES)
    await garden.relayed()

    async with running(garden.intake()):
        expected = [(f"bed-{bed}", version + 1) for bed in range(10) for version in range(120)]
        await garden.noted(*expected)
