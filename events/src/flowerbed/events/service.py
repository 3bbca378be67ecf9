"""The shell around every service: what it is made of, and how it starts, runs and stops.

    settings ──> Shell ──> build(shell) ──> serve, relay, consume ──> SIGTERM ──> finish, close

A service never fails to start because Postgres or NATS is away: it serves, says 503, and
goes on by itself when they are there.
"""

import asyncio
import logging
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from fastapi import FastAPI

from flowerbed.contracts.topology import PARTITIONS, durables, owned_stream
from flowerbed.events import dead_letters
from flowerbed.events.codec import Codec
from flowerbed.events.consumer import Consumer
from flowerbed.events.database import Address, Database
from flowerbed.events.errors import FlowerbedError, NotFound, Unavailable
from flowerbed.events.garbage import collect_in_portions
from flowerbed.events.health import health_routes
from flowerbed.events.http import new_app, prepare
from flowerbed.events.intake import Intake
from flowerbed.events.jetstream import Bus
from flowerbed.events.leadership import Leadership, partition_role
from flowerbed.events.life import Duties, Life, PartWork, Work
from flowerbed.events.logs import set_up_logging
from flowerbed.events.message import Mark
from flowerbed.events.outbox import NO_TENANT, Outbox
from flowerbed.events.projection import Projection
from flowerbed.events.relay import Relay
from flowerbed.events.settings import ServiceSettings
from flowerbed.events.store import EventStore
from flowerbed.events.telemetry import flush_traces, routes, set_up_tracing
from flowerbed.events.wakeup import Wakeup

logger = logging.getLogger(__name__)

Check: TypeAlias = Callable[[], Awaitable[None]]
Lag: TypeAlias = Callable[[], Awaitable[float]]
Status: TypeAlias = Callable[[], Awaitable[dict[str, Any]]]
Build: TypeAlias = Callable[["Shell"], Awaitable[None]]

BUS_PATIENCE = 5.0
"""Seconds without NATS, after which this replica leaves roles to one that may have it."""

FROM_CREATED = """
SELECT substr(stream, length('federation-') + 1) AS federation_id,
    data #> '{spec,spec,telemetry}' AS telemetry
FROM events
WHERE version = 1 AND stream = ANY (SELECT 'federation-' || one FROM unnest($1::text[]) AS one)
"""

ON_THE_BUS = ("relay", "consumer ", "partition ")
"""How the roles begin whose work needs NATS."""

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Shell:
    """Everything of a running service. Nothing here does I/O before `start`."""

    def __init__(self, settings: ServiceSettings) -> None:
        self.settings = settings
        self.service = settings.service
        self.started_at = time.time()
        self.stopping = asyncio.Event()
        self.wakeup = Wakeup()
        self.database = Database(address(settings), on_append=self._on_append)
        self.bus = Bus(
            settings.nats_url, settings.nats_user, settings.nats_password.get_secret_value()
        )
        self.leadership = Leadership(self.database, shared=PARTITIONS, is_able=self._is_able)
        self.outbox = Outbox(self.database)
        self.app = new_app(f"flowerbed {self.service}")
        self.intakes: dict[str, Intake] = {}
        """By the consumer's name, or by `<name>/<partition>`."""
        self.consumers: dict[str, Consumer] = {}
        self.checks: dict[str, Check] = {}
        self.lags: dict[str, Lag] = {}
        self.statuses: list[Status] = []
        self.measured: list[Work] = []
        """Called before each answer of /metrics, to set gauges."""
        self.failing: dict[str, str] = {}
        self.relaying: Relay | None = None
        self.duties = Duties()
        self._durables: dict[str, list[str]] = {}
        self._told: list[Callable[[], None]] = []
        self._life = Life(self)
        self.hear(f"wake.{self.service}", lambda _: self.wakeup.wake())
        owned = owned_stream(self.service)
        if owned is not None:
            self.relay(owned.name)
        self.app.include_router(health_routes(self))

    # --- what a service says of itself ------------------------------------------------------

    def store(self, codec: Codec, projections: Sequence[Projection] = ()) -> EventStore:
        return EventStore(codec, projections)

    def consume(self, consumer: Consumer) -> None:
        """Run a consumer on the durables that `contracts.topology` gives this service."""
        mine = [durable for durable in durables(self.service) if durable.stream == consumer.stream]
        if not mine:
            raise FlowerbedError(f"{self.service} has no durable on {consumer.stream}")
        if consumer.name in self.consumers:
            raise FlowerbedError(f"two consumers are called {consumer.name!r}")
        self.consumers[consumer.name] = consumer
        self._durables[consumer.name] = [durable.name for durable in mine]
        for durable in mine:
            name = consumer.name
            if durable.partition is not None:
                name = f"{name}/{durable.partition}"
            self.intakes[name] = Intake(
                self.service,
                consumer,
                self.database,
                partial(self.bus.subscription, consumer.stream, durable.name),
                partition=durable.partition,
            )
        if mine[0].partition is None:
            self.background(f"consumer {consumer.name}", self.intakes[name].run, leader=True)
        else:
            self.in_partitions(
                f"consumer {consumer.name}",
                lambda number: self.intakes[f"{consumer.name}/{number}"].run(),
            )

    def in_partitions(self, name: str, work: PartWork) -> None:
        """Run `work` for each partition, beside the partition's consumers, on one replica each."""
        if name in self.duties.in_partitions:
            raise FlowerbedError(f"two works in partitions are called {name!r}")
        self.duties.in_partitions[name] = work

    def relay(self, jetstream: str) -> None:
        """Publish the events of this service; done already if the topology says it owns one."""
        relay = Relay(
            self.service,
            jetstream,
            self.outbox,
            self.bus,
            wakeup=self.wakeup,
            may_publish=lambda: self.leadership.holds("relay"),
        )
        self.relaying = relay
        self.background("relay", relay.run, leader=True)

    def background(self, name: str, work: Work, *, leader: bool = False) -> None:
        """Run `work` for as long as the service runs; again, with backoff, when it fails.

        With `leader`, on one replica at a time.
        """
        if name in self.duties.work and name != "relay":
            raise FlowerbedError(f"two background works are called {name!r}")
        self.duties.work[name] = work, leader

    def appended(self, told: Callable[[], None]) -> None:
        """Call `told` when this replica, or another of the service, has recorded events."""
        self._told.append(told)
        self.hear(f"wake.{self.service}.appended", lambda _: self._tell())

    def hear(self, subject: str, told: Callable[[bytes], None]) -> None:
        """Call `told` with what other replicas nudge on `subject`, which begins with `wake.`."""
        self.duties.heard[subject] = told

    def route_traces(self, query: str = FROM_CREATED) -> None:
        """Where specs may have spans sent somewhere: the query that tells where those of
        federations ($1) go, as `federation_id` and `telemetry`, the section of the spec or null.
        By default it asks `fl.federation.created`, for who keeps that event."""
        found = routes()
        if found is not None:
            from flowerbed.events.routes import keep_looking_up

            self.background("trace routes", partial(keep_looking_up, self.database, found, query))

    def readiness(self, name: str, check: Check) -> None:
        """A further condition of being ready; it raises when it is not met."""
        self.checks[name] = check

    def lag(self, name: str, measure: Lag) -> None:
        self.lags[name] = measure

    def status(self, more: Status) -> None:
        """What /status says besides the shell's own."""
        self.statuses.append(more)

    def serve(self, app: FastAPI, path: Path) -> None:
        """Serve another app on a Unix socket that only this user may open.

        Its requests are no spans of their own: most of them are long polls.
        """
        prepare(app, is_traced=False)
        self.duties.served.append((app, path))

    async def replay(self, consumer: str, lane: str) -> int:
        """Handle the dead letters of a federation (or a stream), in order."""
        found = self.consumers.get(consumer)
        if found is None:
            raise NotFound(f"{self.service} has no consumer {consumer!r}")
        return await dead_letters.replay(self.database, found, lane)

    def handled(self, consumer: str) -> int:
        """How many events this replica has handled as that consumer."""
        return sum(one.handled for one in self.intakes.values() if one.consumer.name == consumer)

    @property
    def roles(self) -> list[str]:
        """All that one replica at a time has, whether or not it is this one."""
        duties = self.duties
        parts = [partition_role(number) for number in range(PARTITIONS) if duties.in_partitions]
        return [name for name, (_, leader) in duties.work.items() if leader] + parts

    # --- what it can be asked ---------------------------------------------------------------

    async def ping_postgres(self) -> None:
        async with self.database.transaction(NO_TENANT) as tx:
            await tx.execute("SELECT FROM events LIMIT 0")
        async with self.database.read_all() as connection:
            await connection.execute("SELECT FROM events LIMIT 0")

    async def ping_nats(self) -> None:
        if not self.bus.is_connected:
            raise Unavailable("nats is away")

    async def outbox_lag(self) -> float:
        """Of the whole service, whichever replica relays."""
        assert self.relaying is not None
        jetstream, mark = self.relaying.jetstream, self.relaying.mark
        if mark is None or not self.leadership.holds("relay"):
            mark = (await self.bus.tail(jetstream)).mark
        if mark is None:
            saved = await self.outbox.saved(jetstream)
            mark = saved[0] if saved is not None else Mark()
        return await self.outbox.lag(mark)

    async def consumer_lag(self, name: str, partition: int | None = None) -> float:
        """Of one partition, or over all of them, whichever replica has them."""
        jetstream, durables = self.consumers[name].stream, self._durables[name]
        asked = durables if partition is None else durables[partition : partition + 1]
        return sum(await asyncio.gather(*(self.bus.pending(jetstream, one) for one in asked)))

    # --- its life ---------------------------------------------------------------------------

    async def start(self) -> None:
        """Open sockets first (a taken port is fatal), then everything that may be away."""
        await self._life.start()

    async def stop(self) -> None:
        """Take no more work, finish what is under way, then let go of everything."""
        await self._life.stop()

    def _is_able(self, role: str) -> bool:
        """Whoever is cut off from NATS leaves what needs it to another replica. Whoever stops
        has no share of the partitions any more, but relays what it is still asked."""
        if self.stopping.is_set() and role.startswith("partition "):
            return False
        return self.bus.away_seconds < BUS_PATIENCE or not role.startswith(ON_THE_BUS)

    def _tell(self) -> None:
        for told in self._told:
            told()

    def _on_append(self) -> None:
        if self._told:
            self._tell()
            self.bus.nudge(f"wake.{self.service}.appended")
        if self.leadership.holds("relay"):
            self.wakeup.wake()
        elif self.relaying is not None:
            self.bus.nudge(f"wake.{self.service}")


def address(settings: ServiceSettings) -> Address:
    return Address(
        host=settings.database_host,
        port=settings.database_port,
        name=settings.database_name,
        user=settings.database_user,
        password=settings.database_password.get_secret_value(),
        reader_user=settings.reader_user,
        reader_password=settings.reader_password.get_secret_value(),
    )


async def serve_until_stopped(settings: ServiceSettings, build: Build) -> None:
    """What `run` runs: the whole life of a service, until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, stop.set)
    shell = Shell(settings)
    await build(shell)
    await shell.start()
    logger.info("%s serves on %s:%d", shell.service, settings.http_host, settings.http_port)
    try:
        await stop.wait()
    finally:
        logger.info("%s stops", shell.service)
        await shell.stop()
        flush_traces()
        for number in STOP_SIGNALS:
            loop.remove_signal_handler(number)


def run(
    settings: ServiceSettings, build: Build, *, serve: Sequence[tuple[FastAPI, Path]] = ()
) -> None:
    """Run a service until it is told to stop. `build` wires it and does no I/O."""
    import uvloop

    set_up_logging(settings.service, settings.log_level)
    set_up_tracing(
        settings.service, settings.otlp_endpoint, settings.otlp_protocol, settings.otlp_allowed
    )

    async def build_all(shell: Shell) -> None:
        await build(shell)
        for app, path in serve:
            shell.serve(app, path)

    async def live() -> None:
        collecting = asyncio.create_task(collect_in_portions(), name="garbage")
        try:
            await serve_until_stopped(settings, build_all)
        finally:
            collecting.cancel()

    uvloop.run(live())
