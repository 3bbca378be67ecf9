"""Nodes' answers to a whole ServerApp's messages, kept among the submissions: the first counts."""

from collections.abc import Collection

from flowerbed.contracts.server_app import MessageAnswered
from flowerbed.events.connection import Connection
from flowerbed.events.database import Database
from flowerbed.events.recorded import Recorded


def stream_of(federation_id: str, round_number: int) -> str:
    """Under which the answers of one exchange are kept."""
    return f"exchange-{federation_id}-{round_number}-1-message"


async def remember_answer(tx: Connection, recorded: Recorded[MessageAnswered]) -> None:
    event = recorded.event
    await tx.execute(
        "INSERT INTO submissions (stream, client_id, tenant, type, answer, event_id, traceparent,"
        " submitted_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING",
        stream_of(event.federation_id, event.round_number),
        event.client_id,
        recorded.context.tenant,
        recorded.type,
        event.model_dump_json(),
        recorded.id,
        recorded.context.traceparent,
        recorded.recorded_at,
    )


async def answers(
    database: Database, federation_id: str, numbers: Collection[int]
) -> list[MessageAnswered]:
    """To the messages of these exchanges."""
    streams = [stream_of(federation_id, number) for number in numbers]
    async with database.read_all() as connection:
        rows = await connection.fetch(
            "SELECT answer FROM submissions WHERE stream = ANY ($1)", streams
        )
    return [MessageAnswered.model_validate_json(row["answer"]) for row in rows]
