"""What is compared with: faststream-outbox as the relay, FastStream as the consumer.

Both as their documents show it, on the same servers, streams, durables and roles, with the same
connection pools as ours. Their relay publishes with `stream=`: without it, it does not wait until
JetStream has stored an event before it deletes the row. faststream-outbox is no part of the
project's environment; `scripts/bench/setup.sh` puts it into `.bench-packages`.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module
from typing import Any

import asyncpg  # type: ignore[import-untyped]  # has no stubs
from faststream.middlewares import AckPolicy
from faststream.nats import JStream, NatsBroker, PullSub
from faststream.nats.annotations import NatsMessage
from faststream.nats.security import NatsUserPassword
from sqlalchemy import MetaData
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine

from flowerbed.contracts.topology import inbox_prefix
from flowerbed.embedded.stack import Stack
from flowerbed.events.connection import Connection
from scripts.bench.backbone.job import Arrivals, Job, write_at_a_rate, write_without_pause
from scripts.bench.backbone.sample import (
    ADD,
    ADD_ALL,
    CONTEXT,
    DURABLE,
    JETSTREAM,
    N_BEDS,
    READER,
    SUBJECT,
    WRITER,
    Reported,
    reported,
)

QUEUE = "reports"
LOADED = 500
STREAM = JStream(JETSTREAM, declare=False)
CONSUMER = "peer"
BATCH = 500

SEEN = "SELECT stream, version FROM cursors WHERE consumer = $1 AND stream = ANY($2)"

MOVE = """
INSERT INTO cursors (consumer, stream, version, tenant)
SELECT $1, moved.stream, moved.version, $2
FROM unnest($3::text[], $4::int[]) AS moved (stream, version) ORDER BY moved.stream
ON CONFLICT (consumer, stream) DO UPDATE SET version = EXCLUDED.version
"""


def outbox_package() -> Any:
    try:
        return import_module("faststream_outbox")
    except ModuleNotFoundError as error:
        raise SystemExit(
            "first: scripts/bench/setup.sh, with .bench-packages in PYTHONPATH"
        ) from error


def engine_of(stack: Stack, connections: int, role: str = "app") -> AsyncEngine:
    url = make_url(stack.postgres_dsn(WRITER, role)).set(drivername="postgresql+asyncpg")
    return create_async_engine(url, pool_size=connections, max_overflow=0)


async def make_outbox(stack: Stack) -> None:
    """Its table, in the writer's database."""
    metadata = MetaData()
    outbox_package().make_outbox_table(metadata)
    engine = engine_of(stack, 1, "owner")
    async with engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
    await engine.dispose()


def nats_broker(stack: Stack, user: str) -> NatsBroker:
    access = stack.nats_user(user)
    return NatsBroker(
        access.url,
        security=NatsUserPassword(access.user, access.password),
        inbox_prefix=inbox_prefix(user),
        logger=None,
    )


# --- faststream-outbox --------------------------------------------------------------------------


async def relay(job: Job) -> None:
    """The relay of its quickstart; `options` go to its subscriber."""
    package, settings = outbox_package(), job.options["subscriber"]
    engine = engine_of(job.stack, settings.get("max_workers", 1) + 4)
    outbox = package.OutboxBroker(
        engine, outbox_table=package.make_outbox_table(MetaData()), logger=None
    )
    nats = nats_broker(job.stack, WRITER)

    async def publish(body: dict[str, Any]) -> dict[str, Any]:
        return body

    nats.publisher(SUBJECT, stream=STREAM, timeout=10.0)(
        outbox.subscriber(QUEUE, **settings)(publish)
    )
    await job.go()
    await nats.connect()
    await outbox.start()
    await job.until_stopped()
    await outbox.stop()
    await nats.stop()
    await engine.dispose()


class Recorder:
    def __init__(self, engine: AsyncEngine) -> None:
        package = outbox_package()
        table = package.make_outbox_table(MetaData())
        self._broker = package.OutboxBroker(engine, outbox_table=table, logger=None)
        self._sessions = async_sessionmaker(engine, expire_on_commit=False)

    async def record(self, number: int, at: float) -> None:
        event = reported(f"bed-{number % N_BEDS}", number, at)
        async with self._sessions() as session, session.begin():
            await self._broker.publish(event, queue=QUEUE, session=session)

    async def record_all(self, first: int, count: int) -> None:
        numbers = range(first, first + count)
        events = [reported(f"bed-{number % N_BEDS}", number, 0.0) for number in numbers]
        async with self._sessions() as session, session.begin():
            await self._broker.publish_batch(*events, queue=QUEUE, session=session)


@asynccontextmanager
async def recorder(stack: Stack, connections: int) -> AsyncIterator[Recorder]:
    engine = engine_of(stack, connections)
    try:
        yield Recorder(engine)
    finally:
        await engine.dispose()


async def load(job: Job) -> None:
    """Let `count` events wait for the relay."""
    await job.go()
    async with recorder(job.stack, 1) as writer:
        for first in range(0, job.options["count"], LOADED):
            await writer.record_all(first, min(LOADED, job.options["count"] - first))
    job.tell(loaded=job.options["count"])


async def write(job: Job) -> None:
    await job.go()
    async with recorder(job.stack, job.options["connections"]) as writer:
        await write_at_a_rate(job, writer.record, job.options["connections"])


async def hammer(job: Job) -> None:
    await job.go()
    async with recorder(job.stack, job.options["connections"]) as writer:
        await write_without_pause(job, writer.record, job.options["connections"])


# --- FastStream ---------------------------------------------------------------------------------


def subscription(pull_sub: PullSub[Any], **more: Any) -> dict[str, Any]:
    return {
        "subject": f"{Reported.type}.>",
        "stream": STREAM,
        "durable": DURABLE,
        "pull_sub": pull_sub,
        "inbox_prefix": f"{inbox_prefix(READER)}.".encode(),
        "ack_policy": AckPolicy.NACK_ON_ERROR,
        **more,
    }


async def pool_of(stack: Stack, connections: int) -> Any:
    async def nothing(connection: Connection) -> None:
        """No round trip when a connection is given back, as in ours."""

    dsn = stack.postgres_dsn(READER, "app")
    return await asyncpg.create_pool(dsn, min_size=0, max_size=connections, reset=nothing)


async def set_tenant(tx: Connection) -> None:
    await tx.execute("SELECT set_config('flowerbed.tenant', $1, true)", CONTEXT.tenant)


async def consume_batch(job: Job) -> None:
    """One transaction a batch, with the statements of ours; `at_once`: all its events in one."""
    arrivals, pool = Arrivals(job), await pool_of(job.stack, 1)
    broker = nats_broker(job.stack, READER)
    at_once = bool(job.options["at_once"])

    async def handle(events: list[Reported], message: NatsMessage) -> None:
        places = [
            (headers["ce-subject"], int(headers["streamversion"]))
            for headers in message.batch_headers
        ]
        async with pool.acquire() as tx, tx.transaction():
            await set_tenant(tx)
            streams = list({stream for stream, _ in places})
            seen = {
                row["stream"]: row["version"] for row in await tx.fetch(SEEN, CONSUMER, streams)
            }
            new = []
            for event, (stream, version) in zip(events, places, strict=True):
                if version > seen.get(stream, 0):
                    seen[stream] = version
                    new.append(event)
            if at_once:
                beds, amounts = [event.bed for event in new], [event.amount for event in new]
                await tx.execute(ADD_ALL, CONTEXT.tenant, beds, amounts)
            else:
                for event in new:
                    await tx.execute(ADD, event.bed, CONTEXT.tenant, event.amount)
            await tx.execute(MOVE, CONSUMER, CONTEXT.tenant, list(seen), list(seen.values()))
        for event in new:
            arrivals.arrived(event.at)

    broker.subscriber(**subscription(PullSub(BATCH, timeout=1.0, batch=True)))(handle)
    await run(job, broker)


async def consume_each(job: Job) -> None:
    """A handler call and a transaction an event, eight at a time, with an inbox."""
    workers = 8
    arrivals, pool = Arrivals(job), await pool_of(job.stack, workers)
    broker = nats_broker(job.stack, READER)

    async def handle(event: Reported) -> None:
        async with pool.acquire() as tx, tx.transaction():
            await set_tenant(tx)
            done = await tx.execute(
                "INSERT INTO handled (id) VALUES ($1) ON CONFLICT DO NOTHING", event.id
            )
            if done == "INSERT 0 0":
                return
            await tx.execute(ADD, event.bed, CONTEXT.tenant, event.amount)
        arrivals.arrived(event.at)

    broker.subscriber(**subscription(PullSub(100), max_workers=workers))(handle)
    await run(job, broker)


async def run(job: Job, broker: NatsBroker) -> None:
    await job.go()
    await broker.start()
    await job.until_stopped()
    await asyncio.wait_for(broker.stop(), 20)
