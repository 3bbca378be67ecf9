"""The product's own code in the processes of the benchmark: services as they run, and writers."""

from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from urllib.parse import unquote, urlsplit

from pydantic import SecretStr

from flowerbed.embedded.stack import Stack
from flowerbed.events.connection import Connection
from flowerbed.events.consumer import Consumer
from flowerbed.events.database import Database, after_commit
from flowerbed.events.jetstream import Bus
from flowerbed.events.recorded import Recorded
from flowerbed.events.service import Shell, address, serve_until_stopped
from flowerbed.events.settings import ServiceSettings
from flowerbed.events.store import EventStore
from scripts.bench.backbone.job import Arrivals, Job, write_at_a_rate, write_without_pause
from scripts.bench.backbone.sample import (
    ADD,
    ADD_ALL,
    CODEC,
    CONTEXT,
    JETSTREAM,
    N_BEDS,
    READER,
    WRITER,
    Reported,
    reported,
)

APPENDED = 10
"""Events to a transaction when many are to wait."""


def service_settings(stack: Stack, service: str) -> ServiceSettings:
    app, reader = (urlsplit(stack.postgres_dsn(service, role)) for role in ("app", "reader"))
    nats = stack.nats_user(service)
    return ServiceSettings(
        service=service,
        database_host=str(app.hostname),
        database_port=app.port or 0,
        database_name=app.path[1:],
        database_user=str(app.username),
        database_password=SecretStr(unquote(app.password or "")),
        reader_user=str(reader.username),
        reader_password=SecretStr(unquote(reader.password or "")),
        nats_url=nats.url,
        nats_user=nats.user,
        nats_password=SecretStr(nats.password),
        http_port=stack.port(service),
        internal_token=SecretStr(stack.internal_token),
    )


async def relay(job: Job) -> None:
    """The writer's service, with nothing to do but to relay."""

    async def build(shell: Shell) -> None:
        pass

    await job.go()
    await serve_until_stopped(service_settings(job.stack, WRITER), build)


async def consume(job: Job) -> None:
    """The reader's service, with one consumer; `at_once`: a statement a batch."""
    arrivals = Arrivals(job)

    async def add(tx: Connection, recorded: Recorded[Reported]) -> None:
        event = recorded.event
        await tx.execute(ADD, event.bed, recorded.context.tenant, event.amount)
        after_commit(partial(arrivals.arrived, event.at))

    async def add_all(tx: Connection, recorded: Sequence[Recorded[Reported]]) -> None:
        events = [one.event for one in recorded]
        beds, amounts = [one.bed for one in events], [one.amount for one in events]
        await tx.execute(ADD_ALL, recorded[0].context.tenant, beds, amounts)
        for event in events:
            after_commit(partial(arrivals.arrived, event.at))

    handle_all = add_all if job.options.get("at_once", True) else None

    async def build(shell: Shell) -> None:
        shell.consume(Consumer("sums", JETSTREAM, {Reported: add}, CODEC, handle_all=handle_all))

    await job.go()
    await serve_until_stopped(service_settings(job.stack, READER), build)


class Recorder:
    """Appends behind the last event of a stream; each stream is used by one writer at a time."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._store = EventStore(CODEC)
        self._free = deque((f"bed-{number}", 0) for number in range(N_BEDS))

    async def record(self, number: int, at: float, count: int = 1) -> None:
        stream, version = self._free.popleft()
        events = [reported(stream, number + place, at) for place in range(count)]
        async with self._database.transaction(CONTEXT.tenant) as tx:
            await self._store.append(tx, stream, events, expected=version, context=CONTEXT)
        self._free.append((stream, version + count))


@asynccontextmanager
async def recorder(stack: Stack, connections: int) -> AsyncIterator[Recorder]:
    """As in a replica that does not relay: it nudges the one that does, over NATS."""
    settings = service_settings(stack, WRITER)
    access = stack.nats_user(WRITER)
    bus = Bus(access.url, access.user, access.password)
    await bus.start()
    await bus.wait_connected(10)
    database = Database(
        address(settings), size=connections, on_append=partial(bus.nudge, f"wake.{WRITER}")
    )
    await database.open()
    try:
        yield Recorder(database)
    finally:
        await database.close()
        await bus.close()


async def load(job: Job) -> None:
    """Let `count` events wait for the relay."""
    await job.go()
    async with recorder(job.stack, 1) as writer:
        for number in range(0, job.options["count"], APPENDED):
            await writer.record(number, 0.0, APPENDED)
    job.tell(loaded=job.options["count"])


async def write(job: Job) -> None:
    await job.go()
    async with recorder(job.stack, job.options["connections"]) as writer:
        await write_at_a_rate(job, writer.record, job.options["connections"])


async def hammer(job: Job) -> None:
    await job.go()
    async with recorder(job.stack, job.options["connections"]) as writer:
        await write_without_pause(job, writer.record, job.options["connections"])
