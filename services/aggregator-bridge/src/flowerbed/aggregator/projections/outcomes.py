"""outcomes: how each exchange ended; one that is not here is open."""

from typing import Any

from flowerbed.contracts.aggregate import AggregateCompleted, AggregateFailed
from flowerbed.events.connection import Connection
from flowerbed.events.database import Database
from flowerbed.events.errors import NotFound
from flowerbed.events.projection import Projection
from flowerbed.events.recorded import Recorded

COMPLETED = "completed"


async def apply(tx: Connection, recorded: Recorded[Any]) -> None:
    match recorded.event:
        case AggregateCompleted() as event:
            code = COMPLETED
        case AggregateFailed() as event:
            code = event.code
        case _:
            return
    await tx.execute(
        "INSERT INTO outcomes (stream, tenant, federation_id, round_number, attempt, exchange,"
        " code, ended_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        recorded.stream,
        recorded.context.tenant,
        event.federation_id,
        event.round_number,
        event.attempt,
        event.exchange,
        code,
        recorded.recorded_at,
    )


async def streams_that_trained(
    database: Database, federation_id: str, round_number: int
) -> list[str]:
    """Of a round's training exchanges those that gave a checkpoint, the earliest attempt first."""
    async with database.read_all() as connection:
        rows = await connection.fetch(
            "SELECT stream FROM outcomes WHERE federation_id = $1 AND round_number = $2"
            " AND exchange = 'train' AND code = $3 ORDER BY attempt",
            federation_id,
            round_number,
            COMPLETED,
        )
    return [row["stream"] for row in rows]


async def stream_that_made(
    database: Database, federation_id: str, round_number: int
) -> tuple[str, str]:
    """Tenant and stream of the exchange that gave a round its checkpoint."""
    async with database.read_all() as connection:
        row = await connection.fetchrow(
            "SELECT tenant, stream FROM outcomes WHERE federation_id = $1 AND round_number = $2"
            " AND exchange <> 'evaluate' AND code = $3 ORDER BY attempt DESC LIMIT 1",
            federation_id,
            round_number,
            COMPLETED,
        )
    if row is None:
        raise NotFound(f"round {round_number} of {federation_id} has no checkpoint here")
    return row["tenant"], row["stream"]


outcomes = Projection("outcomes", ("outcomes",), apply)
