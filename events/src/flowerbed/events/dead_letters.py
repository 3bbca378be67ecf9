"""Events that a consumer could not handle, kept in order, with all of their lane behind them.

A lane (a federation, or a stream outside of any) that has a dead letter is parked for that
consumer: what follows is put behind it, so that nothing overtakes. A replay handles them in
order; when none is left the lane is no longer parked.
"""

import json
from collections.abc import Sequence
from typing import Any

from flowerbed.events.connection import Connection
from flowerbed.events.consumer import Consumer
from flowerbed.events.database import Database
from flowerbed.events.errors import Unavailable
from flowerbed.events.message import Envelope, Message

_PARK = """
INSERT INTO dead_letters
    (consumer, lane, tenant, stream, version, event_id, subject, headers, data, error, attempts)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
ON CONFLICT (consumer, stream, version) DO NOTHING
"""

_OLDEST = """
SELECT id, subject, headers, data FROM dead_letters
WHERE consumer = $1 AND lane = $2 ORDER BY id LIMIT 1 FOR UPDATE
"""

_LIST = """
SELECT id, consumer, lane, tenant, stream, version, event_id, subject, error, attempts, parked_at
FROM dead_letters WHERE $1::text IS NULL OR consumer = $1 ORDER BY id LIMIT $2
"""


async def lock_lane(tx: Connection, consumer: str, lane: str) -> None:
    """Until the end of the transaction nobody else parks or unparks this lane."""
    await tx.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 1))", f"{consumer} {lane}")


async def is_parked(tx: Connection, consumer: str, lane: str) -> bool:
    return bool(
        await tx.fetchval(
            "SELECT EXISTS (SELECT FROM dead_letters WHERE consumer = $1 AND lane = $2)",
            consumer,
            lane,
        )
    )


async def park(
    tx: Connection, consumer: str, envelope: Envelope, message: Message, error: str, attempts: int
) -> None:
    await tx.execute(
        _PARK, consumer, envelope.lane, envelope.tenant, envelope.stream, envelope.version,
        envelope.id, message.subject, json.dumps(dict(message.headers)), message.data, error,
        attempts,
    )  # fmt: skip


async def listed(
    database: Database, consumer: str | None = None, limit: int = 100
) -> list[dict[str, Any]]:
    """The oldest dead letters, of all tenants; without their payloads."""
    async with database.read_all() as connection:
        return [dict(row) for row in await connection.fetch(_LIST, consumer, limit)]


async def counted(database: Database) -> dict[str, int]:
    """How many wait, by consumer; those with none are left out."""
    async with database.read_all() as connection:
        rows = await connection.fetch(
            "SELECT consumer, count(*) AS n FROM dead_letters GROUP BY consumer"
        )
    return {row["consumer"]: row["n"] for row in rows}


async def replay(database: Database, consumer: Consumer, lane: str) -> int:
    """Handle the lane's dead letters in order, each in a transaction; how many were handled.

    The first that fails again ends the replay with its error, and the lane stays parked.
    """
    async with database.read_all() as connection:
        tenants: Sequence[Any] = await connection.fetch(
            "SELECT tenant FROM dead_letters WHERE consumer = $1 AND lane = $2"
            " GROUP BY tenant ORDER BY min(id)",
            consumer.name,
            lane,
        )
    handled = 0
    for row in tenants:
        while await _replay_one(database, consumer, row["tenant"], lane):
            handled += 1
    return handled


async def _replay_one(database: Database, consumer: Consumer, tenant: str, lane: str) -> bool:
    letter_id = None
    try:
        async with database.transaction(tenant) as tx:
            if consumer.begin is not None:
                await consumer.begin(tx)
            await lock_lane(tx, consumer.name, lane)
            row = await tx.fetchrow(_OLDEST, consumer.name, lane)
            if row is None:
                return False
            letter_id = row["id"]
            message = Message(
                subject=row["subject"], headers=json.loads(row["headers"]), data=row["data"]
            )
            await consumer.handle(tx, message)
            await tx.execute("DELETE FROM dead_letters WHERE id = $1", letter_id)
            return True
    except Unavailable:
        raise
    except Exception as error:
        if letter_id is not None:
            async with database.transaction(tenant) as tx:
                await tx.execute(
                    "UPDATE dead_letters SET error = $2, attempts = attempts + 1 WHERE id = $1",
                    letter_id,
                    describe(error),
                )
        raise


def describe(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:2000]
