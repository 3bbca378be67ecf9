"""Several replicas of one service: what each handles, and what a stopped one may still do."""

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from flowerbed.contracts.topology import PARTITIONS, STREAMS, durables, partition
from flowerbed.events import service
from flowerbed.events.consumer import Consumer
from flowerbed.events.context import Context
from flowerbed.events.database import Fence, fence
from flowerbed.events.errors import RoleLost
from flowerbed.events.intake import Intake
from flowerbed.events.jetstream import Bus, ensure_topology
from flowerbed.events.service import Shell
from tests.support.garden import MIGRATIONS, Sown, Watered, codec
from tests.support.garden_service import note
from tests.support.replicas import replica
from tests.support.servers import (
    MakeBus,
    MakeDatabase,
    MakeSettings,
    NatsServer,
    Proxy,
    ServiceDatabase,
    eventually,
)

FEDERATIONS = [f"fed-{number}" for number in range(12)]
ROLES = [f"partition {number}" for number in range(PARTITIONS)]


async def build(shell: Shell) -> None:
    shell.consume(Consumer("notes", "FL_LEASE", {Watered: note}, codec))


@asynccontextmanager
async def running(shell: Shell, build: Callable[[Shell], Awaitable[None]]) -> AsyncIterator[Shell]:
    await build(shell)
    await shell.start()
    try:
        yield shell
    finally:
        await shell.stop()


async def nothing(shell: Shell) -> None:
    """Only its relay runs."""


def led(shell: Shell) -> list[str]:
    return [role for role in shell.leadership.roles if role in ROLES]


@pytest.fixture
async def lease(service_database: MakeDatabase) -> ServiceDatabase:
    return await service_database("lease", [MIGRATIONS])


@pytest.fixture
async def reader(service_database: MakeDatabase) -> ServiceDatabase:
    return await service_database("orchestrator", [MIGRATIONS])


async def water(shell: Shell, version: int) -> None:
    """One event for each federation."""
    store = shell.store(codec)
    for federation in FEDERATIONS:
        context = Context(tenant="roses", correlation_id=federation)
        async with shell.database.transaction("roses") as tx:
            event = Watered(litres=version) if version > 1 else Sown(seed="a")
            await store.append(
                tx, f"bed-{federation}", [event], expected=version - 1, context=context
            )


async def noted(reader: ServiceDatabase) -> dict[str, list[int]]:
    async with reader.database.read_all() as connection:
        rows = await connection.fetch("SELECT stream, version FROM notes ORDER BY id")
    found: dict[str, list[int]] = {}
    for row in rows:
        found.setdefault(row["stream"], []).append(row["version"])
    return found


def each(*versions: int) -> dict[str, list[int]]:
    return {f"bed-{federation}": list(versions) for federation in FEDERATIONS}


async def test_replicas_share_the_partitions_and_each_event_has_its_effect_once(
    lease: ServiceDatabase, reader: ServiceDatabase, fresh_streams: Bus,
    service_settings: MakeSettings,
) -> None:  # fmt: skip
    owner = Shell(service_settings(lease))
    first, second = (Shell(service_settings(reader)) for _ in range(2))
    async with running(owner, nothing), running(first, build):
        await eventually(lambda: led(first) == ROLES, "one replica has all")
        await water(owner, 1)
        await water(owner, 2)
        async with running(second, build):
            await eventually(lambda: (len(led(first)), len(led(second))) == (2, 2), "they share")
            assert sorted(led(first) + led(second)) == ROLES
            await water(owner, 3)
            await water(owner, 4)
            await eventually(lambda: _is(reader, each(2, 3, 4)), "everything is handled")
            assert second.handled("notes") > 0
            assert await second.consumer_lag("notes") == 0
            await water(owner, 5)
        await eventually(lambda: led(first) == ROLES, "the other one has left")
        await water(owner, 6)
        await eventually(lambda: _is(reader, each(2, 3, 4, 5, 6)), "in order, and once")


async def test_a_replica_cut_off_from_nats_leaves_its_partitions(
    lease: ServiceDatabase, reader: ServiceDatabase, fresh_streams: Bus, nats_server: NatsServer,
    service_settings: MakeSettings, proxy: Callable[[int], Awaitable[Proxy]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(service, "BUS_PATIENCE", 0.5)
    door = await proxy(nats_server.port)
    through_door = {"nats_url": f"nats://127.0.0.1:{door.port}"}
    cut_off = Shell(service_settings(reader).model_copy(update=through_door))
    owner, other = Shell(service_settings(lease)), Shell(service_settings(reader))
    async with running(owner, nothing), running(cut_off, build), running(other, build):
        await eventually(lambda: len(led(cut_off)) == len(led(other)) == 2, "they share")
        await door.cut()
        await eventually(lambda: led(other) == ROLES, "the other one has all")
        assert led(cut_off) == []
        await water(owner, 1)
        await water(owner, 2)
        await eventually(lambda: _is(reader, each(2)), "and handles them")
        await door.start()
        await eventually(lambda: len(led(cut_off)) == len(led(other)) == 2, "they share again")


async def _is(reader: ServiceDatabase, expected: dict[str, list[int]]) -> bool:
    return await noted(reader) == expected


async def test_a_stopped_replica_that_wakes_changes_nothing(
    lease: ServiceDatabase, reader: ServiceDatabase, fresh_streams: Bus,
    service_settings: MakeSettings, tmp_path: Path,
) -> None:  # fmt: skip
    owner, second = Shell(service_settings(lease)), Shell(service_settings(reader))
    async with (
        running(owner, nothing),
        replica(__name__, service_settings(reader), tmp_path) as stopped,
    ):
        await water(owner, 1)
        await water(owner, 2)
        await eventually(lambda: _is(reader, each(2)), "the process handles them")
        stopped.send_signal(signal.SIGSTOP)
        async with running(second, build):
            await eventually(lambda: led(second) == ROLES, "the roles moved", timeout=15)
            await water(owner, 3)
            await eventually(lambda: _is(reader, each(2, 3)), "by the other one", timeout=15)
            epochs = await _epochs(reader)
            stopped.send_signal(signal.SIGCONT)
            await eventually(lambda: len(led(second)) == 2, "it is back and gets its share")
            await water(owner, 4)
            await eventually(lambda: _is(reader, each(2, 3, 4)), "still once")
            later = await _epochs(reader)
            kept = set(led(second))
            assert {role: later[role] for role in kept} == {role: epochs[role] for role in kept}


async def _epochs(reader: ServiceDatabase) -> dict[str, int]:
    async with reader.database.read_all() as connection:
        rows = await connection.fetch("SELECT role, epoch FROM roles")
    return {row["role"]: row["epoch"] for row in rows if row["role"] in ROLES}


async def test_who_takes_a_role_waits_for_its_transactions_and_ends_the_later_ones(
    reader: ServiceDatabase,
) -> None:
    database = reader.database
    async with database.read_all() as connection:
        assert await connection.fetch("SELECT FROM roles") == []
    async with database.transaction("roses") as tx:
        epoch = await tx.fetchval("SELECT take_role('timer')")
    fence.set(Fence("timer", epoch))
    async with database.transaction("roses") as tx:
        taking = asyncio.create_task(_take(reader))
        await asyncio.sleep(0.3)
        assert not taking.done(), "the role was taken under a transaction that is still open"
        await tx.execute("INSERT INTO beds (stream, tenant) VALUES ('bed-1', 'roses')")
    assert await taking == epoch + 1
    with pytest.raises(RoleLost, match="has taken the role of 'timer'"):
        async with database.transaction("roses") as tx:
            await tx.execute("INSERT INTO beds (stream, tenant) VALUES ('bed-2', 'roses')")
    fence.set(None)
    async with database.transaction("roses") as tx:
        assert [row["stream"] for row in await tx.fetch("SELECT stream FROM beds")] == ["bed-1"]


async def _take(reader: ServiceDatabase) -> int:
    fence.set(None)
    async with reader.database.transaction("roses") as tx:
        taken: int = await tx.fetchval("SELECT take_role('timer')")
        return taken


async def test_what_was_stored_without_a_partition_is_handled_in_its_own(
    lease: ServiceDatabase, reader: ServiceDatabase, fresh_streams: Bus,
    service_settings: MakeSettings,
) -> None:  # fmt: skip
    """A JetStream of the release before: no partition in its subjects, one durable a reader."""
    admin = fresh_streams
    config = (await admin.api("STREAM.INFO.FL_LEASE", {}))["config"]
    del config["subject_transform"]
    assert "error" not in await admin.api("STREAM.UPDATE.FL_LEASE", config)
    for number in range(PARTITIONS):
        await admin.api(f"CONSUMER.DELETE.FL_LEASE.orchestrator-p{number}", {})
    owner, shell = Shell(service_settings(lease)), Shell(service_settings(reader))
    async with running(owner, nothing):
        await water(owner, 1)
        await water(owner, 2)
        await eventually(lambda: _stored(admin, 24), "stored as the release before would")
        last = await admin.api("STREAM.MSG.GET.FL_LEASE", {"last_by_subj": ">"})
        assert len(last["message"]["subject"].split(".")) == 5
        await ensure_topology(admin)
        await water(owner, 3)
        await eventually(lambda: _stored(admin, 36), "stored with their partitions")
        last = await admin.api("STREAM.MSG.GET.FL_LEASE", {"last_by_subj": ">"})
        *_, federation, number = last["message"]["subject"].split(".")
        assert int(number) == partition(federation)
        async with running(shell, build):
            await eventually(lambda: _is(reader, each(2, 3)), "all of it, in order")
            assert await shell.consumer_lag("notes") == 0


async def test_a_replica_of_the_release_before_does_no_harm(
    lease: ServiceDatabase, reader: ServiceDatabase, fresh_streams: Bus, bus: MakeBus,
    service_settings: MakeSettings,
) -> None:  # fmt: skip
    """It reads all partitions through a durable of its own, in the name of the same consumer."""
    durable = {
        "durable_name": "orchestrator", "filter_subjects": ["fl.client.joined.>"],
        "ack_policy": "explicit", "deliver_policy": "all",
    }  # fmt: skip
    asked = {"stream_name": "FL_LEASE", "config": durable}
    answer = await fresh_streams.api("CONSUMER.DURABLE.CREATE.FL_LEASE.orchestrator", asked)
    assert "error" not in answer
    theirs = await bus("orchestrator")
    old = Intake(
        "orchestrator",
        Consumer("notes", "FL_LEASE", {Watered: note}, codec),
        reader.database,
        partial(theirs.subscription, "FL_LEASE", "orchestrator"),
    )
    running_old = asyncio.create_task(old.run())
    owner, new = Shell(service_settings(lease)), Shell(service_settings(reader))
    async with running(owner, nothing), running(new, build):
        for version in range(1, 6):
            await water(owner, version)
        await eventually(lambda: _is(reader, each(2, 3, 4, 5)), "each once, in order")
        await eventually(lambda: old.handled >= 4 * len(FEDERATIONS), "it has seen all of them")
        assert await noted(reader) == each(2, 3, 4, 5)
    old.stop()
    await running_old
    await fresh_streams.api("CONSUMER.DELETE.FL_LEASE.orchestrator", {})


async def _stored(admin: Bus, count: int) -> bool:
    info = await admin.api("STREAM.INFO.FL_LEASE", {})
    return int(info["state"]["messages"]) == count


def test_every_federation_is_in_one_partition_and_each_has_some() -> None:
    found = {partition(f"fed-{number:016x}") for number in range(100)}
    assert found == set(range(PARTITIONS))
    for reading in ("orchestrator", "lease", "aggregator", "artifact"):
        read = {durable.stream for durable in durables(reading)}
        for stream in STREAMS:
            if stream.name in read:
                mine = [d.partition for d in durables(reading) if d.stream == stream.name]
                assert mine == list(range(PARTITIONS))


if __name__ == "__main__":
    from flowerbed.events.service import run
    from flowerbed.events.settings import ServiceSettings

    run(ServiceSettings.load(), build)
