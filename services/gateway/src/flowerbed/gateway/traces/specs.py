"""Exports the spans that events end to the collectors that specs name, a cursor a federation.

    spec_traces: federation, collector, cursor ──> its events past it ──> spans ──> the cursor moves

As `export` does for the operator's collector: nothing is lost with this process, and a collector
that is away is waited for, until a day after its federation's end. Each collector is served by a
task of its own, so one that is away holds up nobody else's spans.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from flowerbed.contracts.federation import FederationCreated
from flowerbed.contracts.telemetry import Telemetry
from flowerbed.events.connection import Connection, Row
from flowerbed.events.database import Database
from flowerbed.events.errors import Unavailable
from flowerbed.events.recorded import Recorded
from flowerbed.events.store import COLUMNS, EventStore
from flowerbed.gateway.traces.making import (
    SETTLE_SECONDS,
    CollectorAway,
    Maker,
    maker,
    until_young,
)

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExporter

logger = logging.getLogger(__name__)

AT_ONCE = 4
"""Collectors that are served at the same time, each by a thread while it is sent to."""
PAGE = 200
BATCH = 512
LOOK_SECONDS = 0.5
FIRST_WAIT, LAST_WAIT = 1.0, 60.0

_REMEMBER = """
INSERT INTO spec_traces (tenant, federation_id, telemetry) VALUES ($1, $2, $3)
ON CONFLICT DO NOTHING
"""
_OPEN = """
SELECT t.*, coalesce(f.ended_at < clock_timestamp() - interval '1 minute', false) AS is_over,
    coalesce(f.ended_at < clock_timestamp() - interval '1 day', false) AS is_stale
FROM spec_traces t LEFT JOIN federations f USING (federation_id, tenant)
WHERE f.ended_at < clock_timestamp() - interval '1 minute' OR EXISTS (
    SELECT FROM events e
    WHERE e.meta ->> 'correlation_id' = t.federation_id AND e.gpos > t.position
)
ORDER BY t.federation_id
"""
_PAGE = f"""
SELECT {COLUMNS}, recorded_at > clock_timestamp() - make_interval(secs => $3) AS is_young
FROM events WHERE meta ->> 'correlation_id' = $1 AND gpos > $2 ORDER BY gpos LIMIT {PAGE}
"""
_MOVE = "UPDATE spec_traces SET position = $2 WHERE federation_id = $1"
_FORGET = "DELETE FROM spec_traces WHERE federation_id = $1"


async def remember(tx: Connection, recorded: Recorded[Any]) -> None:
    """That the spec of a federation names a collector; in the transaction that keeps the event."""
    if not isinstance(recorded.event, FederationCreated):
        return
    telemetry = recorded.event.federation_spec.spec.telemetry
    if telemetry is not None:
        identity, written = recorded.event.federation_id, telemetry.model_dump_json()
        await tx.execute(_REMEMBER, recorded.context.tenant, identity, written)


@dataclass(slots=True)
class _Wait:
    """For a collector that was away: until when, and how long the next time."""

    until: float = 0.0
    seconds: float = FIRST_WAIT


@dataclass(slots=True)
class SpecTraces:
    """`exporter_to` makes exporters of the SDK, which block."""

    database: Database
    maker: Maker
    allowed: Collection[str]
    exporter_to: Callable[[Telemetry], "SpanExporter"]
    settle_seconds: float = SETTLE_SECONDS
    _waits: dict[Telemetry, _Wait] = field(default_factory=dict, init=False)
    _serving: dict[Telemetry, "asyncio.Task[None]"] = field(default_factory=dict, init=False)

    async def run(self) -> None:
        """Until cancelled. Only one replica does this at a time."""
        pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="spec-traces")
        try:
            while True:
                await self.look(pool)
                await asyncio.sleep(LOOK_SECONDS)
        finally:
            serving = list(self._serving.values())
            for task in serving:
                task.cancel()
            await asyncio.gather(*serving, return_exceptions=True)
            pool.shutdown(wait=False, cancel_futures=True)

    async def look(self, pool: Executor) -> None:
        """Begin to serve the collectors for which there may be something."""
        now = asyncio.get_running_loop().time()
        wanted = await self._open()
        self._waits = {to: wait for to, wait in self._waits.items() if to in wanted}
        due = [to for to in wanted if to not in self._waits or self._waits[to].until <= now]
        for to in sorted(due, key=lambda to: to in self._waits):  # who was away comes last
            if to not in self._serving and len(self._serving) < AT_ONCE:
                task = asyncio.create_task(self.serve(to, wanted[to], pool))
                self._serving[to] = task
                task.add_done_callback(partial(self._served, to))

    async def serve(self, to: Telemetry, rows: Sequence[Row], pool: Executor) -> None:
        """Export to one collector what the next events of these federations have ended."""
        try:
            async with AsyncExitStack() as closing:
                sending = _Sending(to, self.exporter_to, pool, closing)
                for row in rows:
                    while await self._step(row, sending):
                        pass
        except CollectorAway as away:
            self._back_off(to, away)
            for row in rows:
                if row["is_stale"]:
                    await self._write(row, _FORGET)
        except Unavailable as error:
            logger.warning("traces wait: %s", error)
        except Exception:
            logger.exception("traces of %s wait", to.address.origin)
            self._back_off(to, None)
        else:
            self._waits.pop(to, None)

    async def _open(self) -> dict[Telemetry, list[Row]]:
        """By collector. What is not allowed any more is left alone, and forgotten in the end."""
        async with self.database.read_all() as connection:
            rows = await connection.fetch(_OPEN)
        found: dict[Telemetry, list[Row]] = defaultdict(list)
        for row in rows:
            to = Telemetry.model_validate_json(row["telemetry"])
            if to.address.origin in self.allowed:
                found[to].append(dict(row))
            elif row["is_stale"]:
                await self._write(row, _FORGET)
        return found

    async def _step(self, row: Row, sending: "_Sending") -> bool:
        """True if there may be more."""
        async with self.database.read_all() as connection:
            after = (row["federation_id"], row["position"], self.settle_seconds)
            rows = await connection.fetch(_PAGE, *after)
            settled = until_young(rows)
            spans = await self.maker.spans(connection, settled)
        await sending.send(spans)
        if settled:
            row["position"] = settled[-1]["gpos"]
            await self._write(row, _MOVE, row["position"])
        elif row["is_over"]:
            await self._write(row, _FORGET)
        return len(settled) == PAGE

    async def _write(self, row: Row, statement: str, *more: int) -> None:
        async with self.database.transaction(row["tenant"]) as tx:
            await tx.execute(statement, row["federation_id"], *more)

    def _back_off(self, to: Telemetry, away: CollectorAway | None) -> None:
        if to not in self._waits and away is not None:
            logger.warning("traces wait: %s", away)
        wait = self._waits.setdefault(to, _Wait())
        wait.until = asyncio.get_running_loop().time() + wait.seconds
        wait.seconds = min(wait.seconds * 2, LAST_WAIT)

    def _served(self, to: Telemetry, task: "asyncio.Task[None]") -> None:
        del self._serving[to]
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.warning("traces of %s wait: %s", to.address.origin, error)


@dataclass(slots=True)
class _Sending:
    """An exporter that is made when there is something to send, and closed afterwards."""

    to: Telemetry
    exporter_to: Callable[[Telemetry], "SpanExporter"]
    pool: Executor
    closing: AsyncExitStack
    _exporter: "SpanExporter | None" = None

    async def send(self, spans: Sequence["ReadableSpan"]) -> None:
        loop = asyncio.get_running_loop()
        for start in range(0, len(spans), BATCH):
            if self._exporter is None:
                self._exporter = await loop.run_in_executor(self.pool, self.exporter_to, self.to)
                self.closing.callback(self._exporter.shutdown)
            batch = spans[start : start + BATCH]
            result = await loop.run_in_executor(self.pool, self._exporter.export, batch)
            if result.value != 0:
                origin = self.to.address.origin
                raise CollectorAway(f"{origin} did not take {len(batch)} spans")


def spec_traces(database: Database, store: EventStore, allowed: Collection[str]) -> SpecTraces:
    """The SDK is loaded here, so call it only where spans may be exported."""
    from flowerbed.events.destinations import bare_exporter

    return SpecTraces(database, maker(store), allowed, bare_exporter)
