"""Reading the event table in the order in which it can be relayed.

Transactions do not commit in the order of their events' `gpos`, so reading past the last
`gpos` would lose events. Instead events are read in windows of transactions:

    lo <= xid < hi        every transaction below `hi` has ended, so no event appears later
    ORDER BY gpos         inside the window

A window must also be closed: a transaction may take its xid early and record late, so that
its events follow those of a transaction with a higher xid. If such a predecessor (of the same
stream or the same federation) lies at or above `hi`, `hi` is lowered below the event that
follows it, and both go into a later window together.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from flowerbed.events.connection import Connection
from flowerbed.events.database import Database
from flowerbed.events.message import Mark

_HORIZON = """
SELECT edge::text::bigint AS edge,
    EXISTS (SELECT FROM events WHERE xid >= $1::xid8 AND xid < edge) AS ready,
    EXISTS (SELECT FROM events WHERE xid >= $1::xid8 AND xid >= edge) AS held
FROM (SELECT pg_snapshot_xmin(pg_current_snapshot()) AS edge) AS snapshot
"""

_OPEN = """
WITH late AS MATERIALIZED (
    SELECT stream, meta ->> 'correlation_id' AS federation, gpos FROM events WHERE xid >= $2::xid8
), streams AS (
    SELECT stream, min(gpos) AS gpos FROM late GROUP BY stream
), federations AS (
    SELECT federation, min(gpos) AS gpos FROM late WHERE federation <> '_' GROUP BY federation
)
SELECT min(e.xid)::text::bigint
FROM events e
LEFT JOIN streams s ON s.stream = e.stream
LEFT JOIN federations f ON f.federation = e.meta ->> 'correlation_id'
WHERE e.xid >= $1::xid8 AND e.xid < $2::xid8 AND e.gpos > least(s.gpos, f.gpos)
"""

_ALL = """
WITH snapshot AS MATERIALIZED (SELECT pg_snapshot_xmin(pg_current_snapshot()) AS edge),
found AS MATERIALIZED (
    SELECT xid, gpos, stream, version, id, type, schema_version, tenant, data, meta, recorded_at
    FROM events WHERE xid >= $1::xid8 ORDER BY xid, gpos LIMIT $2
)
SELECT edge::text::bigint AS edge, xid < edge AS is_closed, found.*
FROM snapshot LEFT JOIN found ON true ORDER BY gpos
"""

_PAGE = """
SELECT gpos, stream, version, id, type, schema_version, tenant, data, meta, recorded_at
FROM events WHERE xid >= $1::xid8 AND xid < $2::xid8 AND gpos > $3 ORDER BY gpos LIMIT $4
"""

_LAG = """
SELECT count(*) FROM events WHERE xid >= $1::xid8 AND NOT (xid < $2::xid8 AND gpos <= $3)
"""


@dataclass(frozen=True, slots=True)
class Horizon:
    """Up to where a closed window may reach now, and what there is."""

    hi: int
    is_ready: bool
    """There are events to relay below `hi`."""
    is_held: bool
    """There are committed events at or above `hi`, held back by a transaction still open."""


@dataclass(frozen=True, slots=True)
class Window:
    """All events from some transaction on, in the order in which they are relayed, up to `hi`."""

    hi: int
    rows: Sequence[Any]


async def all_from(connection: Connection, lo: int, limit: int) -> Window | None:
    """The closed window that starts at `lo` and leaves nothing out.

    None if there are `limit` events or more, or a transaction that is still open holds some back.
    """
    rows = await connection.fetch(_ALL, lo, limit)
    edge = int(rows[0]["edge"])
    if rows[0]["gpos"] is None:
        return Window(hi=edge, rows=())
    if len(rows) >= limit or not all(row["is_closed"] for row in rows):
        return None
    return Window(hi=edge, rows=rows)


async def horizon(connection: Connection, lo: int) -> Horizon:
    """The furthest `hi` of a closed window that starts at `lo`."""
    row = await connection.fetchrow(_HORIZON, lo)
    hi, ready, held = int(row["edge"]), bool(row["ready"]), bool(row["held"])
    while ready and held:
        earlier = await connection.fetchval(_OPEN, lo, hi)
        if earlier is None:
            break
        hi = int(earlier)
        ready = bool(
            await connection.fetchval(
                "SELECT EXISTS (SELECT FROM events WHERE xid >= $1::xid8 AND xid < $2::xid8)",
                lo,
                hi,
            )
        )
    return Horizon(hi=hi, is_ready=ready, is_held=held)


async def page(connection: Connection, mark: Mark, limit: int) -> list[Any]:
    """Rows of the window of `mark` behind its `gpos`."""
    return await connection.fetch(_PAGE, mark.lo, mark.hi, mark.gpos, limit)


class Outbox:
    """The event table as the relay sees it: as the reader role, over all tenants."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def all_from(self, lo: int, limit: int) -> Window | None:
        async with self._database.read_all() as connection:
            return await all_from(connection, lo, limit)

    async def horizon(self, lo: int) -> Horizon:
        async with self._database.read_all() as connection:
            return await horizon(connection, lo)

    async def page(self, mark: Mark, limit: int) -> Sequence[Any]:
        async with self._database.read_all() as connection:
            return await page(connection, mark, limit)

    async def lag(self, mark: Mark) -> int:
        async with self._database.read_all() as connection:
            return int(await connection.fetchval(_LAG, mark.lo, mark.hi, mark.gpos))

    async def saved(self, jetstream: str) -> tuple[Mark, int] | None:
        """The mark last saved and the sequence that its message had."""
        async with self._database.read_all() as connection:
            row = await connection.fetchrow(
                "SELECT mark, sequence FROM relay_marks WHERE jetstream = $1", jetstream
            )
        return None if row is None else (Mark.parse(row["mark"]), int(row["sequence"]))

    async def save(self, jetstream: str, mark: Mark, sequence: int) -> None:
        async with self._database.transaction(NO_TENANT) as tx:
            await tx.execute(
                "INSERT INTO relay_marks (jetstream, mark, sequence) VALUES ($1, $2, $3)"
                " ON CONFLICT (jetstream) DO UPDATE SET"
                " mark = EXCLUDED.mark, sequence = EXCLUDED.sequence, marked_at = now()",
                jetstream,
                str(mark),
                sequence,
            )


NO_TENANT = ""
"""For tables that belong to no tenant."""
