"""submissions: what clients reported, first report first; nothing in it is verified."""

from collections.abc import Sequence
from dataclasses import dataclass

from flowerbed.contracts.update import UpdateEvent, UpdateFailed, UpdateSubmitted
from flowerbed.events.connection import Connection
from flowerbed.events.context import Context
from flowerbed.events.recorded import Recorded

_UNANSWERED = """
SELECT s.* FROM submissions s
WHERE s.stream = $1 AND s.client_id = ANY($2) AND NOT EXISTS (
    SELECT FROM answers a WHERE a.stream = s.stream AND a.client_id = s.client_id
)
ORDER BY s.submitted_at, s.client_id
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A client's answer to its work order, and the context of whatever follows from it."""

    event: UpdateSubmitted | UpdateFailed
    context: Context


def stream_of(event: UpdateEvent) -> str:
    place = (event.federation_id, event.round_number, event.attempt, event.exchange)
    return "exchange-" + "-".join(map(str, place))


async def remember_report(
    tx: Connection, recorded: Recorded[UpdateSubmitted] | Recorded[UpdateFailed]
) -> None:
    event = recorded.event
    await tx.execute(
        "INSERT INTO submissions (stream, client_id, tenant, type, answer, event_id, traceparent,"
        " submitted_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING",
        stream_of(event),
        event.client_id,
        recorded.context.tenant,
        recorded.type,
        event.model_dump_json(),
        recorded.id,
        recorded.context.traceparent,
        recorded.recorded_at,
    )


async def unanswered(tx: Connection, stream: str, cohort: Sequence[str]) -> list[Report]:
    """Reports of the cohort's members that the exchange has not judged."""
    reports = []
    for row in await tx.fetch(_UNANSWERED, stream, list(cohort)):
        cls = UpdateFailed if row["type"] == UpdateFailed.type else UpdateSubmitted
        event = cls.model_validate_json(row["answer"])
        context = Context(
            tenant=row["tenant"],
            correlation_id=event.federation_id,
            causation_id=str(row["event_id"]),
            traceparent=row["traceparent"],
        )
        reports.append(Report(event=event, context=context))
    return reports
