"""verifications: what is to be read back from S3, and what was not as it should be."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from flowerbed.contracts.aggregate import AggregateCompleted
from flowerbed.events.connection import Connection, Row
from flowerbed.events.context import Context
from flowerbed.events.database import Database
from flowerbed.events.errors import NotFound
from flowerbed.events.recorded import Recorded


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """An aggregate that is said to be stored. `n_missing`: times that an object was not there.

    `heard_at`: when the aggregate was recorded.
    """

    event_id: UUID
    completed: AggregateCompleted
    context: Context
    n_missing: int
    heard_at: datetime


async def remember(tx: Connection, recorded: Recorded[AggregateCompleted]) -> None:
    await tx.execute(
        "INSERT INTO verifications (event_id, tenant, federation_id, completed, traceparent,"
        " heard_at) VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (event_id) DO NOTHING",
        recorded.id,
        recorded.context.tenant,
        recorded.event.federation_id,
        recorded.event.model_dump_json(),
        recorded.context.traceparent,
        recorded.recorded_at,
    )


async def to_do(database: Database) -> list[Verification]:
    """Of every tenant, oldest first."""
    async with database.read_all() as connection:
        rows = await connection.fetch(
            "SELECT * FROM verifications WHERE error IS NULL ORDER BY heard_at"
        )
    return [_verification(row) for row in rows]


async def forget(tx: Connection, event_id: UUID) -> None:
    await tx.execute("DELETE FROM verifications WHERE event_id = $1", event_id)


async def count_missing(tx: Connection, event_id: UUID) -> None:
    await tx.execute(
        "UPDATE verifications SET n_missing = n_missing + 1 WHERE event_id = $1", event_id
    )


async def refuse(tx: Connection, event_id: UUID, error: str) -> None:
    await tx.execute("UPDATE verifications SET error = $1 WHERE event_id = $2", error, event_id)


async def refused(database: Database) -> list[dict[str, str]]:
    """What a person has to look at."""
    async with database.read_all() as connection:
        rows = await connection.fetch(
            "SELECT event_id, tenant, federation_id, error FROM verifications"
            " WHERE error IS NOT NULL ORDER BY heard_at"
        )
    return [{key: str(value) for key, value in dict(row).items()} for row in rows]


async def retry(database: Database, event_id: UUID) -> str:
    """Look once more, e.g. after the object was put back. Whose federation's it is.

    Raises:
        NotFound: no such verification was refused.
    """
    async with database.read_all() as connection:
        row = await connection.fetchrow(
            "SELECT tenant, federation_id FROM verifications"
            " WHERE event_id = $1 AND error IS NOT NULL",
            event_id,
        )
    if row is None:
        raise NotFound(f"no refused verification {event_id}")
    async with database.transaction(row["tenant"]) as tx:
        await tx.execute(
            "UPDATE verifications SET error = NULL, n_missing = 0 WHERE event_id = $1", event_id
        )
    federation_id: str = row["federation_id"]
    return federation_id


def _verification(row: Row) -> Verification:
    return Verification(
        event_id=row["event_id"],
        completed=AggregateCompleted.model_validate_json(row["completed"]),
        context=Context(
            tenant=row["tenant"],
            correlation_id=row["federation_id"],
            causation_id=str(row["event_id"]),
            traceparent=row["traceparent"],
        ),
        n_missing=row["n_missing"],
        heard_at=row["heard_at"],
    )
