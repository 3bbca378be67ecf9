"""Who is silent for a ttl is dropped; who could not be heard is not; who comes back goes on."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from flowerbed.contracts.catalogue import EVENTS
from flowerbed.events.codec import Codec
from flowerbed.events.context import Context
from flowerbed.events.store import EventStore
from flowerbed.lease import heartbeats, revocation
from flowerbed.lease.leases import ReleaseLease
from flowerbed.lease.leaving import leave
from flowerbed.lease.projections.clients import clients
from flowerbed.lease.projections.leases import leases
from tests.integration.lease.clients import Client
from tests.integration.lease.conftest import FED, House
from tests.support.servers import eventually

SECOND = timedelta(seconds=1)
EVERY = revocation.SWEEP_EVERY * SECOND


class Enough(Exception):
    """The sweeper has run as long as the test wants."""


@pytest.fixture
def sweep_for(house: House, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """`await sweep_for(seconds)`: let the sweeper run so long, in the clock's time.

    `pauses`: how long each of its first sleeps took; afterwards it sleeps as it should.
    """

    async def run(seconds: float, *pauses: float, between: Any = None) -> None:
        end = house.clock.now() + seconds * SECOND
        left = list(pauses)

        async def sleep(_: float) -> None:
            house.clock.move(left.pop(0) * SECOND if left else EVERY)
            if between is not None:
                await between()
            if house.clock.now() >= end:
                raise Enough

        monkeypatch.setattr(revocation, "asyncio", SimpleNamespace(sleep=sleep))
        store = EventStore(Codec(EVENTS), [clients, leases])
        with pytest.raises(Enough):
            await revocation.sweep(house.made.database, store, house.clock.now)
        monkeypatch.setattr(revocation, "asyncio", asyncio)

    return run


async def held(house: House) -> tuple[Client, dict[str, Any]]:
    client = await house.client()
    await house.create()
    return client, await client.joined()


async def test_a_client_that_is_silent_for_its_ttl_is_dropped_once(
    house: House, sweep_for: Callable[..., Any]
) -> None:
    client, _ = await held(house)
    await sweep_for(55)
    assert await house.types(client) == ["client.lease_issued", "client.joined"]
    await sweep_for(120)
    events = await house.lease_events(client)
    assert [event_type for event_type, _ in events][2:] == ["client.dropped"]
    assert events[-1][1]["epoch"] == 1 and "silent since" in events[-1][1]["reason"]


async def test_a_client_that_beats_is_not_dropped(
    house: House, sweep_for: Callable[..., Any]
) -> None:
    client, lease = await held(house)

    async def beat() -> None:
        assert (await client.beat(lease)).status_code == 200

    await sweep_for(100, between=beat)
    assert len(await house.types(client)) == 2


async def test_a_lease_that_was_only_offered_is_not_dropped_for_silence(
    house: House, sweep_for: Callable[..., Any]
) -> None:
    client = await house.client()
    await house.create()
    await client.offered()
    await sweep_for(100)
    assert await house.types(client) == ["client.lease_issued"]


async def test_nobody_is_dropped_because_the_service_slept(
    house: House, sweep_for: Callable[..., Any]
) -> None:
    client, lease = await held(house)
    await sweep_for(3600, 3600.0)
    assert len(await house.types(client)) == 2
    await sweep_for(3655, 3600.0)
    assert len(await house.types(client)) == 2, "silence counts from when the service woke"
    assert (await client.beat(lease)).status_code == 200
    house.clock.move(3600 * SECOND)
    await sweep_for(30)
    assert len(await house.types(client)) == 2, "and from when it was started"


async def test_a_dropped_client_comes_back_under_the_next_epoch_to_its_open_work(
    house: House, sweep_for: Callable[..., Any]
) -> None:
    client, lease = await held(house)
    await house.say(house.round_started(client))
    order = await client.ordered(lease)
    await sweep_for(90)
    for late in (
        await client.beat(lease), await client.report(lease, order), await client.claim(lease),
    ):  # fmt: skip
        assert (late.status_code, late.json()["code"]) == (410, "lease-lost")
    again = await client.joined()
    assert (again["lease_id"], again["epoch"]) == (lease["lease_id"], 2)
    same = await client.ordered(again)
    assert (same.work_id, same.lease_epoch) == (order.work_id, 2)
    assert (await client.report(again, same)).status_code == 200
    assert await house.types(client) == [
        "client.lease_issued", "client.joined", "client.dropped",
        "client.lease_issued", "client.joined", "update.submitted",
    ]  # fmt: skip


async def test_an_evaluation_does_not_wait_for_who_was_dropped(
    house: House, sweep_for: Callable[..., Any]
) -> None:
    client, lease = await held(house)
    await house.say(house.evaluation_started(client))
    order = await client.ordered(lease)
    await sweep_for(90)
    events = await house.lease_events(client)
    assert [kind for kind, _ in events[2:]] == ["client.dropped", "update.failed"]
    missed = events[-1][1]
    assert (missed["work_id"], missed["code"]) == (order.work_id, "client-left")
    again = await client.joined()
    assert await client.next_work(again) is None
    assert (await client.report(again, order)).status_code == 200
    assert "update.submitted" not in await house.types(client), "it was answered for already"


async def test_nor_for_who_was_gone_when_it_began(
    house: House, sweep_for: Callable[..., Any]
) -> None:
    client, _ = await held(house)
    await sweep_for(90)
    await house.say(house.evaluation_started(client))

    async def missed() -> bool:
        return (await house.types(client))[-1] == "update.failed"

    await eventually(missed, "the evaluation is missed")
    await client.release({"lease_id": (await client.joined())["lease_id"], "epoch": 2})
    assert (await house.types(client)).count("update.failed") == 1


async def test_nor_for_who_leaves_at_the_same_moment(house: House) -> None:
    client, lease = await held(house)
    store = EventStore(Codec(EVENTS), (leases,))
    release = ReleaseLease(epoch=1, reason="maintenance")
    context = Context(tenant="acme", correlation_id=FED)
    async with house.made.database.transaction("acme") as tx:
        await leave(tx, store, lease["lease_id"], release, context)
        await house.say(house.evaluation_started(client))
        await asyncio.sleep(0.5)  # it is ordered meanwhile, and cannot see that the lease has ended

    async def missed() -> bool:
        return (await house.types(client))[-1] == "update.failed"

    await eventually(missed, "the evaluation is missed")


async def test_work_that_was_answered_before_the_drop_stays_answered(
    house: House, sweep_for: Callable[..., Any]
) -> None:
    client, lease = await held(house)
    await house.say(house.round_started(client))
    order = await client.ordered(lease)
    await client.report(lease, order)
    await sweep_for(90)
    again = await client.joined()
    assert await client.next_work(again) is None
    assert (await client.report(again, order)).status_code == 200, "its answer was lost"
    assert (await house.types(client)).count("update.submitted") == 1


async def test_the_running_service_drops_the_silent_by_itself(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await house.stop()
    monkeypatch.setattr(revocation, "SWEEP_EVERY", 0.05)
    monkeypatch.setattr(heartbeats, "silent", _everyone_since_a_second(house))
    await house.start()
    client, _ = await held(house)

    async def dropped() -> bool:
        return "client.dropped" in await house.types(client)

    await eventually(dropped, "the silent client is dropped")


def _everyone_since_a_second(house: House) -> Any:
    silent = heartbeats.silent

    async def soon(reader: Any, at: Any, awake_since: Any) -> Any:
        return await silent(reader, at + 61 * SECOND, awake_since)

    return soon


async def test_a_heartbeat_is_due_six_times_in_a_ttl_within_bounds() -> None:
    assert [heartbeats.interval(ttl) for ttl in (10, 60, 120, 600)] == [5.0, 10.0, 20.0, 30.0]
