"""Exports the spans that events end, from a cursor, so that none is lost with any process.

    events past the cursor ──> spans ──> the collector has them ──> the cursor moves

Killed in between, the next one exports the same spans once more, under the same ids. A collector
that is away is waited for: the history is not lost meanwhile.
"""

import asyncio
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from flowerbed.events.database import Database
from flowerbed.events.outbox import NO_TENANT
from flowerbed.events.store import COLUMNS, EventStore
from flowerbed.gateway.traces.making import (
    SETTLE_SECONDS,
    CollectorAway,
    Maker,
    maker,
    until_young,
)

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

logger = logging.getLogger(__name__)

PAGE = 200
BATCH = 512
"""Spans in one request: collectors refuse very large ones."""
LOOK_SECONDS = 0.5
FIRST_WAIT, LAST_WAIT = 1.0, 60.0

_PAGE = f"""
SELECT {COLUMNS}, recorded_at > clock_timestamp() - make_interval(secs => $2) AS is_young
FROM events WHERE gpos > $1 ORDER BY gpos LIMIT {PAGE}
"""
# Without a row, what happened before traces were wanted is left alone.
_CURSOR = """
SELECT coalesce((SELECT position FROM trace_cursor), (SELECT max(gpos) FROM events), 0)
"""
_MOVE = """
INSERT INTO trace_cursor (position) VALUES ($1)
ON CONFLICT (is_one) DO UPDATE SET position = EXCLUDED.position
"""


@dataclass(slots=True)
class TraceExport:
    """`exporter` is the SDK's, and blocks."""

    database: Database
    maker: Maker
    exporter: "SpanExporter"
    settle_seconds: float = SETTLE_SECONDS
    _says_away: bool = field(default=False, init=False)
    _known: int | None = field(default=None, init=False)

    async def run(self) -> None:
        """Until cancelled. Only one replica does this at a time."""
        wait, self._known = FIRST_WAIT, None
        while True:
            try:
                n_events = await self.step()
            except CollectorAway as away:
                if not self._says_away:
                    logger.warning("traces wait: %s", away)
                self._says_away = True
                await asyncio.sleep(wait)
                wait = min(wait * 2, LAST_WAIT)
                continue
            if n_events:
                self._says_away, wait = False, FIRST_WAIT
            if n_events < PAGE:
                await asyncio.sleep(LOOK_SECONDS)

    async def step(self) -> int:
        """Export what the next events have ended; how many events that were.

        Raises:
            CollectorAway: nothing was exported, or it is not sure; the cursor stays.
        """
        position = await self._position()
        async with self.database.read_all() as connection:
            rows = await connection.fetch(_PAGE, position, self.settle_seconds)
            settled = until_young(rows)
            spans = await self.maker.spans(connection, settled)
        for start in range(0, len(spans), BATCH):
            batch = spans[start : start + BATCH]
            result = await asyncio.to_thread(self.exporter.export, batch)
            if result.value != 0:
                raise CollectorAway(f"the collector did not take {len(batch)} spans")
        if settled:
            await self._move(settled[-1]["gpos"])
        return len(settled)

    async def _position(self) -> int:
        if self._known is None:
            async with self.database.read_all() as connection:
                self._known = int(await connection.fetchval(_CURSOR))
            await self._move(self._known)
        return self._known

    async def _move(self, position: int) -> None:
        async with self.database.transaction(NO_TENANT) as tx:
            await tx.execute(_MOVE, position)
        self._known = position


def trace_export(
    database: Database, store: EventStore, endpoint: str | None, protocol: str | None
) -> TraceExport:
    """The SDK is loaded here, so call it only where spans are exported."""
    from flowerbed.events import exporting

    return TraceExport(database, maker(store), exporting.exporter(endpoint, protocol))
