"""The relay from a real Postgres to a real JetStream."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from flowerbed.contracts.topology import partition
from flowerbed.contracts.trace import of_federation
from flowerbed.events import relay as relay_module
from flowerbed.events.commands import handle
from flowerbed.events.context import Context
from flowerbed.events.database import Connection
from flowerbed.events.errors import FlowerbedError, Unavailable
from flowerbed.events.jetstream import Bus, ensure_topology
from flowerbed.events.message import Mark, Message
from flowerbed.events.outbox import Outbox
from flowerbed.events.relay import Fenced, Progress, Relay
from tests.support.garden import ROSES, Sow, Sown, Water, Watered, bed, store
from tests.support.servers import MakeBus, MakeDatabase, NatsServer, ServiceDatabase, eventually

STREAM = "FL_LEASE"


def relay_of(made: ServiceDatabase, bus: Bus, page: int = 500) -> Relay:
    return Relay("lease", STREAM, Outbox(made.database), bus, page=page)


async def drain(relay: Relay) -> None:
    while await relay.pump() is Progress.RELAYED:
        pass


async def relayed(admin: Bus) -> list[Message]:
    """Everything in the JetStream stream, in its order."""
    last = (await admin.tail(STREAM)).sequence
    messages = []
    for sequence in range(1, last + 1):
        found = await admin.api(f"STREAM.MSG.GET.{STREAM}", {"seq": sequence})
        messages.append(found["message"])
    from base64 import b64decode

    return [
        Message(
            subject=one["subject"],
            headers=dict(
                line.split(": ", 1) for line in b64decode(one["hdrs"]).decode().split("\r\n")[1:-2]
            ),
            data=b64decode(one["data"]),
        )
        for one in messages
    ]


def places(messages: list[Message]) -> list[tuple[str, int]]:
    return [(one.headers["ce-subject"], int(one.headers["streamversion"])) for one in messages]


@asynccontextmanager
async def open_transaction(made: ServiceDatabase) -> AsyncIterator[Connection]:
    """A transaction that has taken its xid and waits."""
    async with made.database.transaction("roses") as tx:
        await tx.execute("SELECT pg_current_xact_id()")
        yield tx


async def test_event_arrives_as_a_cloud_event(
    service_database: MakeDatabase, bus: MakeBus, fresh_streams: Bus
) -> None:
    made = await service_database("lease")
    context = Context(
        tenant="roses",
        correlation_id="fed-1",
        causation_id="cause",
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    )
    recorded = (await handle(made.database, store, bed, "bed-1", Sow(seed="a"), context))[0]
    await drain(relay_of(made, await bus("lease")))
    (message,) = await relayed(fresh_streams)
    assert message.subject == f"fl.client.enrolled.roses.fed-1.{partition('fed-1')}"
    assert message.data == b'{"seed":"a"}'
    mark = message.headers["Fl-Pos"]
    assert Mark.parse(mark).gpos == recorded.position
    assert dict(message.headers) == {
        "Nats-Msg-Id": str(recorded.id),
        "Nats-Expected-Last-Sequence": "0",
        "Fl-Pos": mark,
        "ce-specversion": "1.0",
        "ce-id": str(recorded.id),
        "ce-type": "fl.client.enrolled",
        "ce-source": "/flowerbed/lease",
        "ce-subject": "bed-1",
        "ce-time": recorded.recorded_at.isoformat(),
        "content-type": "application/json",
        "tenant": "roses",
        "correlationid": "fed-1",
        "causationid": "cause",
        "streamversion": "1",
        "schemaversion": "1",
        "traceparent": of_federation("fed-1"),
    }


@pytest.mark.parametrize("count", [1, 4, 5, 23])
async def test_every_event_is_relayed_once_in_pages(
    service_database: MakeDatabase, bus: MakeBus, fresh_streams: Bus, count: int
) -> None:
    made = await service_database("lease")
    async with made.database.transaction("roses") as tx:
        await store.append(
            tx, "bed-1", [Watered(litres=n) for n in range(count)], expected=0, context=ROSES
        )
    relay = relay_of(made, await bus("lease"), page=7)
    await drain(relay)
    assert places(await relayed(fresh_streams)) == [("bed-1", n + 1) for n in range(count)]
    assert await Outbox(made.database).lag(relay.mark or Mark()) == 0


async def test_event_of_a_slow_transaction_is_not_skipped(
    service_database: MakeDatabase, bus: MakeBus, fresh_streams: Bus
) -> None:
    made = await service_database("lease")
    relay = relay_of(made, await bus("lease"))
    async with open_transaction(made) as slow:
        await store.append(slow, "bed-1", [Sown(seed="a")], expected=0, context=ROSES)
        await handle(made.database, store, bed, "bed-2", Sow(seed="b"), ROSES)
        assert await relay.pump() is Progress.HELD
        assert await Outbox(made.database).lag(Mark()) == 1
    await drain(relay)
    assert places(await relayed(fresh_streams)) == [("bed-1", 1), ("bed-2", 1)]


@pytest.mark.parametrize("stream", ["bed-1", "bed-2"])
async def test_transaction_that_took_its_place_early_does_not_overtake(
    service_database: MakeDatabase, bus: MakeBus, fresh_streams: Bus, stream: str
) -> None:
    """Neither within a stream nor between two streams of one federation."""
    made = await service_database("lease")
    relay = relay_of(made, await bus("lease"))
    async with open_transaction(made) as early:
        async with open_transaction(made):  # keeps the watermark between the two
            await handle(made.database, store, bed, "bed-1", Sow(seed="a"), ROSES)
            after = 1 if stream == "bed-1" else 0
            await store.append(early, stream, [Watered(litres=1)], expected=after, context=ROSES)
            await early.execute("COMMIT")
            assert await relay.pump() is Progress.HELD
        await early.execute("BEGIN")
    await drain(relay)
    assert places(await relayed(fresh_streams)) == [("bed-1", 1), (stream, after + 1)]


async def test_new_relay_resumes_from_the_tail_of_the_stream(
    service_database: MakeDatabase, bus: MakeBus, fresh_streams: Bus
) -> None:
    made, connected = await service_database("lease"), await bus("lease")
    async with made.database.transaction("roses") as tx:
        await store.append(
            tx, "bed-1", [Watered(litres=n) for n in range(9)], expected=0, context=ROSES
        )
    first = relay_of(made, connected, page=5)
    assert await first.pump() is Progress.RELAYED  # and it dies in the middle of the window
    await drain(relay_of(made, connected, page=5))
    assert places(await relayed(fresh_streams)) == [("bed-1", n) for n in range(1, 10)]


async def test_second_relay_is_refused_and_stores_nothing(
    service_database: MakeDatabase, bus: MakeBus, fresh_streams: Bus
) -> None:
    made, connected = await service_database("lease"), await bus("lease")
    zombie, leader = relay_of(made, connected), relay_of(made, await bus("lease"))
    await drain(zombie)
    await handle(made.database, store, bed, "bed-1", Sow(seed="a"), ROSES)
    await drain(leader)
    for litres in range(6):
        await handle(made.database, store, bed, "bed-1", Water(litres=litres), ROSES)
        with pytest.raises(Fenced):  # alone, and from the fifth on as a batch
            await zombie.pump()
        zombie.mark, zombie.sequence = Mark(), 0
    await drain(leader)
    assert places(await relayed(fresh_streams)) == [("bed-1", n) for n in range(1, 8)]


async def test_publish_whose_answer_was_lost_is_not_repeated(
    service_database: MakeDatabase, bus: MakeBus, fresh_streams: Bus
) -> None:
    made, connected = await service_database("lease"), await bus("lease")
    relay = relay_of(made, connected)
    answers = [True, False]

    class Deaf:
        """Publishes, and does not hear the first answer."""

        tail = connected.tail

        async def publish(self, message: Message, expected: int) -> int:
            sequence = await connected.publish(message, expected)
            if answers.pop(0):
                raise Unavailable("no answer")
            return sequence

        publish_batch = connected.publish_batch

    relay = Relay("lease", STREAM, Outbox(made.database), Deaf())
    await handle(made.database, store, bed, "bed-1", Sow(seed="a"), ROSES)
    running = asyncio.create_task(relay.run())
    await eventually(lambda: relay.mark is not None and relay.sequence == 1, "the relay resumed")
    await handle(made.database, store, bed, "bed-1", Water(litres=1), ROSES)
    relay.wakeup.wake()
    await eventually(lambda: relay.sequence == 2, "the second event is relayed")
    running.cancel()
    assert places(await relayed(fresh_streams)) == [("bed-1", 1), ("bed-1", 2)]


async def test_batch_that_is_partly_known_is_sent_one_by_one(
    service_database: MakeDatabase, bus: MakeBus, fresh_streams: Bus
) -> None:
    made, connected = await service_database("lease"), await bus("lease")
    async with made.database.transaction("roses") as tx:
        await store.append(
            tx, "bed-1", [Watered(litres=n) for n in range(8)], expected=0, context=ROSES
        )
    await drain(relay_of(made, connected, page=6))
    forgetful = relay_of(made, connected, page=8)
    forgetful.mark, forgetful.sequence = Mark(), 8
    await drain(forgetful)
    assert places(await relayed(fresh_streams)) == [("bed-1", n) for n in range(1, 9)]


async def test_relay_starts_at_the_saved_mark_when_the_last_message_has_aged_out(
    service_database: MakeDatabase, bus: MakeBus, fresh_streams: Bus
) -> None:
    made, connected = await service_database("lease"), await bus("lease")
    relay = relay_of(made, connected)
    await handle(made.database, store, bed, "bed-1", Sow(seed="a"), ROSES)
    await drain(relay)
    await relay.save()
    await _age_out(fresh_streams)
    await handle(made.database, store, bed, "bed-1", Water(litres=1), ROSES)
    again = relay_of(made, connected)
    await drain(again)
    assert again.sequence == 2
    assert (await connected.tail(STREAM)).mark == again.mark


async def test_stream_that_was_lost_is_filled_again_from_the_store(
    service_database: MakeDatabase, bus: MakeBus, fresh_streams: Bus
) -> None:
    made, connected = await service_database("lease"), await bus("lease")
    relay = relay_of(made, connected)
    await handle(made.database, store, bed, "bed-1", Sow(seed="a"), ROSES)
    await drain(relay)
    await relay.save()
    config = (await fresh_streams.api(f"STREAM.INFO.{STREAM}", {}))["config"]
    await fresh_streams.api(f"STREAM.DELETE.{STREAM}", {})
    with pytest.raises(Unavailable):
        await relay_of(made, connected).pump()
    await fresh_streams.api(f"STREAM.CREATE.{STREAM}", config)
    await drain(relay_of(made, connected))
    assert places(await relayed(fresh_streams)) == [("bed-1", 1)]


async def test_relay_is_woken_at_once(
    service_database: MakeDatabase,
    bus: MakeBus,
    fresh_streams: Bus,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(relay_module, "IDLE_POLL", 3600.0)
    made, connected = await service_database("lease"), await bus("lease")
    relay = relay_of(made, connected)
    made.database.on_append = relay.wakeup.wake
    running = asyncio.create_task(relay.run())
    await eventually(lambda: relay.mark is not None, "the relay runs")
    for litres in range(5):
        await handle(made.database, store, bed, f"bed-{litres}", Sow(seed="a"), ROSES)
        await eventually(lambda n=litres: relay.sequence > n, "relayed")
    running.cancel()


async def test_relay_goes_on_after_nats_was_killed(
    service_database: MakeDatabase, bus: MakeBus, fresh_streams: Bus, nats_server: NatsServer
) -> None:
    made, connected = await service_database("lease"), await bus("lease")
    relay = relay_of(made, connected)
    made.database.on_append = relay.wakeup.wake
    running = asyncio.create_task(relay.run())
    await handle(made.database, store, bed, "bed-1", Sow(seed="a"), ROSES)
    await eventually(lambda: relay.sequence == 1, "relayed")
    nats_server.kill()
    for litres in range(10):
        await handle(made.database, store, bed, "bed-1", Water(litres=litres), ROSES)
    await eventually(lambda: not connected.is_connected, "the bus noticed")
    with pytest.raises(Unavailable):
        await connected.tail(STREAM)
    await asyncio.to_thread(nats_server.start)
    await eventually(lambda: relay.sequence == 11, "caught up")
    running.cancel()
    await fresh_streams.wait_connected(10)
    assert places(await relayed(fresh_streams)) == [("bed-1", n) for n in range(1, 12)]


async def test_topology_is_declared_anew_without_losing_events(
    service_database: MakeDatabase, bus: MakeBus, fresh_streams: Bus
) -> None:
    made, connected = await service_database("lease"), await bus("lease")
    await handle(made.database, store, bed, "bed-1", Sow(seed="a"), ROSES)
    await drain(relay_of(made, connected))
    await ensure_topology(fresh_streams, max_age=timedelta(days=3))
    config = (await fresh_streams.api(f"STREAM.INFO.{STREAM}", {}))["config"]
    assert config["max_age"] == timedelta(days=3).total_seconds() * 1e9
    assert config["allow_atomic"] and config["allow_direct"]
    assert config["deny_delete"] and config["deny_purge"]
    assert (config["storage"], config["discard"]) == ("file", "new")
    assert places(await relayed(fresh_streams)) == [("bed-1", 1)]
    with pytest.raises(FlowerbedError, match="jetstream refused"):
        await ensure_topology(fresh_streams, replicas=3)


async def test_service_may_not_write_another_services_stream(bus: MakeBus) -> None:
    message = Message(subject="fl.round.started.roses.fed-1", headers={}, data=b"{}")
    lease = await bus("lease")
    lease._timeout = 0.3
    with pytest.raises(Unavailable):
        await lease.publish(message)


async def test_bus_that_never_connects_says_so(nats_server: NatsServer) -> None:
    wrong = Bus(nats_server.url, "lease", "not the password")
    await wrong.start()
    with pytest.raises(Unavailable, match=r"did not answer within 0\.3 s"):
        await wrong.wait_connected(0.3)
    wrong.nudge("wake.lease")
    assert "not the password" not in repr(wrong)
    await wrong.close()


async def test_nudge_is_heard_after_a_reconnection(bus: MakeBus, nats_server: NatsServer) -> None:
    heard = asyncio.Event()
    listener, teller = await bus("lease"), await bus("lease")
    await listener.listen("wake.lease", lambda _: heard.set())
    for _ in range(2):
        heard.clear()

        async def told() -> bool:
            teller.nudge("wake.lease")
            return heard.is_set()

        await eventually(told, "the nudge was heard")
        link = listener._link
        assert link is not None
        await link.client.close()
        await eventually(lambda: listener.is_connected, "connected again")


async def _age_out(admin: Bus) -> None:
    """Let every message of the stream grow too old."""
    config = (await admin.api(f"STREAM.INFO.{STREAM}", {}))["config"]
    aged = {**config, "max_age": int(0.2e9), "duplicate_window": int(0.1e9)}
    answer = await admin.api(f"STREAM.UPDATE.{STREAM}", aged)
    assert "error" not in answer, answer

    async def is_empty() -> bool:
        state = (await admin.api(f"STREAM.INFO.{STREAM}", {}))["state"]
        return bool(state["messages"] == 0)

    await eventually(is_empty, "the messages aged out")
    await admin.api(f"STREAM.UPDATE.{STREAM}", config)
