"""submissions: what clients reported, first report first; nothing in it is verified."""

from collections.abc import Sequence
from dataclasses import dataclass

from flowerbed.contracts.update import UpdateEvent, UpdateFailed, UpdateSubmitted
from flowerbed.events.connection import Connection, Row
from flowerbed.events.context import Context
from flowerbed.events.recorded import Recorded

# Owed work counts where it is listed, unless its own exchange refuses late updates or has answered
# it. An answer in an attempt that failed does not bind the next attempt.
_UNANSWERED = """
SELECT s.* FROM submissions s
WHERE s.work_id = ANY($2) AND NOT EXISTS (
    SELECT FROM answers a WHERE a.work_id = s.work_id AND a.stream IN ($1, s.stream)
) AND (
    s.stream = $1
    OR EXISTS (SELECT FROM exchanges e WHERE e.stream = s.stream AND e.counts_late)
)
ORDER BY s.submitted_at, s.client_id
"""

LATE = """
s.client_id = ANY(e.cohort)
AND NOT EXISTS (SELECT FROM answers a WHERE a.work_id = s.work_id)
AND (f.is_ended OR EXISTS (
    SELECT FROM outcomes o WHERE o.stream = e.stream
    AND (NOT e.counts_late OR o.code <> 'completed' OR NOT s.work_id = ANY ((
        SELECT l.owed FROM exchanges l
        WHERE l.federation_id = e.federation_id AND l.type = 'fl.round.started'
        AND (l.round_number, l.attempt) > (e.round_number, e.attempt)
        ORDER BY l.round_number DESC, l.attempt DESC LIMIT 1
    )::text[]))
))
"""
"""Of a submission `s` to an exchange `e` of a federation `f`: no exchange will count it.

The federation has ended; or the exchange is closed, and late updates are refused there, or it
failed (its work is ordered again), or the newest training exchange does not list the work. What
one does not list, no later one lists.
"""

_LATE = f"""
SELECT s.* FROM submissions s
JOIN exchanges e USING (stream) JOIN federations f USING (federation_id)
WHERE s.stream = $1 AND {LATE} ORDER BY s.submitted_at, s.client_id
"""

_CONCERNED = f"""
SELECT e.stream FROM exchanges e JOIN federations f USING (federation_id)
WHERE e.federation_id = $1 AND e.counts_late
AND EXISTS (SELECT FROM submissions s WHERE s.stream = e.stream AND {LATE})
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


async def unanswered(connection: Connection, stream: str, wanted: Sequence[str]) -> list[Report]:
    """Reports of the wanted work that this exchange has not judged, nor the work's own one."""
    rows = await connection.fetch(_UNANSWERED, stream, wanted)
    return [_report(row) for row in rows]


async def late(connection: Connection, stream: str) -> list[Report]:
    """Reports of this exchange's own work that no exchange will count."""
    return [_report(row) for row in await connection.fetch(_LATE, stream)]


async def streams_with_late(tx: Connection, federation_id: str) -> list[str]:
    """The federation's exchanges with reports that are late since a round started."""
    return [row["stream"] for row in await tx.fetch(_CONCERNED, federation_id)]


def _report(row: Row) -> Report:
    cls = UpdateFailed if row["type"] == UpdateFailed.type else UpdateSubmitted
    event = cls.model_validate_json(row["answer"])
    context = Context(
        tenant=row["tenant"],
        correlation_id=event.federation_id,
        causation_id=str(row["event_id"]),
        traceparent=row["traceparent"],
    )
    return Report(event=event, context=context)
