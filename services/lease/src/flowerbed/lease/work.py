"""Open work: a federation's one open exchange, and which leases still owe it an answer."""

from dataclasses import dataclass

from flowerbed.contracts.ids import work_id
from flowerbed.contracts.round import ExchangeStarted, RoundEvaluationStarted, RoundStarted
from flowerbed.events.database import Connection
from flowerbed.events.store import Recorded

_KINDS: dict[str, type[RoundStarted] | type[RoundEvaluationStarted]] = {
    kind.exchange: kind for kind in (RoundStarted, RoundEvaluationStarted)
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One client's part of an exchange: `exchange.cohort[place]`."""

    work_id: str
    place: int
    exchange: RoundStarted | RoundEvaluationStarted
    traceparent: str | None


async def open_exchange(
    tx: Connection, recorded: Recorded[RoundStarted | RoundEvaluationStarted]
) -> None:
    """What was open before is closed by this: a federation has one exchange at a time."""
    event, tenant = recorded.event, recorded.context.tenant
    await close_exchange(tx, event.federation_id)
    await tx.execute(
        "INSERT INTO exchanges (federation_id, tenant, kind, data, traceparent)"
        " VALUES ($1, $2, $3, $4, $5)",
        event.federation_id,
        tenant,
        event.exchange,
        event.model_dump_json(),
        recorded.context.traceparent,
    )
    await tx.executemany(
        "INSERT INTO work (lease_id, tenant, federation_id, work_id, place)"
        " VALUES ($1, $2, $3, $4, $5)",
        [
            (member.lease_id, tenant, event.federation_id, _work_id(event, member.client_id), place)
            for place, member in enumerate(event.cohort)
        ],
    )


async def close_exchange(tx: Connection, federation_id: str) -> None:
    await tx.execute("DELETE FROM work WHERE federation_id = $1", federation_id)
    await tx.execute("DELETE FROM exchanges WHERE federation_id = $1", federation_id)


async def of_lease(tx: Connection, lease_id: str) -> Work | None:
    """The work that this lease owes, or None."""
    row = await tx.fetchrow(
        "SELECT w.work_id, w.place, e.kind, e.data, e.traceparent FROM work w"
        " JOIN exchanges e USING (federation_id) WHERE w.lease_id = $1",
        lease_id,
    )
    if row is None:
        return None
    return Work(
        work_id=row["work_id"],
        place=row["place"],
        exchange=_KINDS[row["kind"]].model_validate_json(row["data"]),
        traceparent=row["traceparent"],
    )


async def answered(tx: Connection, lease_id: str, work: str) -> None:
    await tx.execute("DELETE FROM work WHERE lease_id = $1 AND work_id = $2", lease_id, work)


def _work_id(event: ExchangeStarted, client_id: str) -> str:
    kind = "train" if isinstance(event, RoundStarted) else "evaluate"
    return work_id(event.federation_id, event.round_number, event.attempt, kind, client_id)
