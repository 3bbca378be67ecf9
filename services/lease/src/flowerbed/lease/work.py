"""Open work: which leases still owe an answer, and in which exchange.

A federation has one exchange at a time; beside it, training of earlier rounds stays open while a
later round may count it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias, cast

from flowerbed.contracts.ids import work_id
from flowerbed.contracts.round import (
    OwedWork,
    RoundEvaluationStarted,
    RoundFailed,
    RoundMemberReplaced,
    RoundStarted,
)
from flowerbed.contracts.server_app import MessagesPushed
from flowerbed.events.connection import Connection
from flowerbed.events.database import known_states
from flowerbed.events.store import Recorded

Exchange: TypeAlias = RoundStarted | RoundEvaluationStarted | MessagesPushed
_KINDS: dict[str, type[Exchange]] = {
    kind.exchange: kind for kind in (RoundStarted, RoundEvaluationStarted, MessagesPushed)
}

_WORK = (
    "SELECT w.work_id, w.place, e.kind, e.exchange_id, e.traceparent FROM work w"
    " JOIN exchanges e USING (exchange_id) WHERE w.lease_id = $1"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One client's part of an exchange: `exchange.cohort[place]`, or the place it took over."""

    work_id: str
    place: int
    exchange: Exchange
    traceparent: str | None

    @property
    def until(self) -> datetime:
        """When the order runs out: training may be answered later than its exchange closes."""
        match self.exchange:
            case RoundStarted(work_until=datetime() as until):
                return until
            case _:
                return self.exchange.deadline_at


async def open_exchange(
    tx: Connection, recorded: Recorded[RoundStarted | RoundEvaluationStarted]
) -> None:
    """What was open before is closed by this, but for the work that it lists as owed."""
    await close(tx, recorded.event.federation_id, keep=recorded.event.owed)
    await open_beside(tx, recorded)


async def open_beside(tx: Connection, recorded: Recorded[Any]) -> None:
    """What was open before stays so: a whole ServerApp may send more before it is answered."""
    event: Exchange = recorded.event
    tenant = recorded.context.tenant
    await tx.execute(
        "INSERT INTO exchanges (federation_id, tenant, kind, data, traceparent)"
        " VALUES ($1, $2, $3, $4, $5)",
        event.federation_id,
        tenant,
        event.exchange,
        event.model_dump_json(),
        recorded.context.traceparent,
    )
    await _open(
        tx,
        event.federation_id,
        tenant,
        [
            (member.lease_id, _work_id(event, member.client_id), place)
            for place, member in enumerate(event.cohort)
        ],
    )


async def replace_member(tx: Connection, recorded: Recorded[RoundMemberReplaced]) -> bool:
    """Hand a place on. False, and nothing changes, if who left had answered, or all is over."""
    event = recorded.event
    place = (event.federation_id, event.round_number, event.attempt, "train")
    left = await tx.fetchrow(
        "DELETE FROM work WHERE federation_id = $1 AND work_id = $2 RETURNING place",
        event.federation_id,
        work_id(*place, event.client_id),
    )
    if left is None:
        return False
    replacement = event.replacement
    opened = (replacement.lease_id, work_id(*place, replacement.client_id), event.place)
    await _open(tx, event.federation_id, recorded.context.tenant, [opened])
    return True


async def close(tx: Connection, federation_id: str, keep: Iterable[OwedWork] = ()) -> None:
    """Close all work of the federation but what is to be kept."""
    await tx.execute(
        "DELETE FROM work WHERE federation_id = $1 AND work_id <> ALL ($2::text[])",
        federation_id,
        [owed.work_id for owed in keep],
    )
    await _forget_exchanges(tx, federation_id)


async def close_attempt(tx: Connection, failed: RoundFailed) -> None:
    """Close the attempt's own work; what was owed before it still is."""
    await tx.execute(
        "DELETE FROM work WHERE federation_id = $1 AND exchange_id = $2",
        failed.federation_id,
        f"{failed.federation_id}.{failed.round_number}.{failed.attempt}.train",
    )
    await _forget_exchanges(tx, failed.federation_id)


async def to_hand_out(tx: Connection, lease_id: str, at: datetime) -> Work | None:
    """The oldest work that this lease owes and that has not run out: it is finished first."""
    rows = await tx.fetch(_WORK, lease_id)
    works = [one for one in await _works(tx, rows) if at < one.until]
    return min(works, key=_age, default=None)


async def find(tx: Connection, lease_id: str, work: str) -> Work | None:
    """The open work of that id, if the lease owes it; it stays so until this transaction ends."""
    row = await tx.fetchrow(f"{_WORK} AND w.work_id = $2 FOR UPDATE OF w", lease_id, work)
    return next(iter(await _works(tx, [] if row is None else [row])), None)


async def open_in(tx: Connection, federation_id: str) -> list[tuple[str, Work]]:
    """All open work of a federation with the lease that owes it, the oldest first."""
    rows = await tx.fetch(
        "SELECT w.lease_id, w.work_id, w.place, e.kind, e.exchange_id, e.traceparent FROM work w"
        " JOIN exchanges e USING (exchange_id) WHERE w.federation_id = $1 ORDER BY w.place",
        federation_id,
    )
    owing = {row["work_id"]: row["lease_id"] for row in rows}
    return [(owing[one.work_id], one) for one in sorted(await _works(tx, rows), key=_age)]


async def not_waited_for(tx: Connection, lease_id: str) -> list[Work]:
    """What this lease owes and nobody does in its place: evaluations, and an app's messages."""
    works = await _works(tx, await tx.fetch(_WORK, lease_id))
    return [one for one in works if not isinstance(one.exchange, RoundStarted)]


async def answered(tx: Connection, lease_id: str, work: str) -> None:
    await tx.execute("DELETE FROM work WHERE lease_id = $1 AND work_id = $2", lease_id, work)


async def _open(
    tx: Connection, federation_id: str, tenant: str, works: list[tuple[str, str, int]]
) -> None:
    """`works`: lease, work id and place of each."""
    await tx.executemany(
        "INSERT INTO work (lease_id, tenant, federation_id, work_id, place)"
        " VALUES ($1, $2, $3, $4, $5)",
        [(lease, tenant, federation_id, work, place) for lease, work, place in works],
    )


async def _forget_exchanges(tx: Connection, federation_id: str) -> None:
    """Those of which nothing is open any more."""
    await tx.execute(
        "DELETE FROM exchanges e WHERE federation_id = $1"
        " AND NOT EXISTS (SELECT 1 FROM work w WHERE w.exchange_id = e.exchange_id)",
        federation_id,
    )


async def _works(tx: Connection, rows: Iterable[Any]) -> list[Work]:
    works = []
    for row in rows:
        exchange = await _exchange(tx, row["exchange_id"], row["kind"])
        if exchange is not None:  # otherwise it was closed this moment
            works.append(
                Work(
                    work_id=row["work_id"],
                    place=row["place"],
                    exchange=exchange,
                    traceparent=row["traceparent"],
                )
            )
    return works


async def _exchange(tx: Connection, exchange_id: int, kind: str) -> Exchange | None:
    """As it was started, which it stays: all of its cohort ask for it, so it is kept."""
    states, key = known_states(), ("exchange", kind, str(exchange_id))
    kept = states.find(key)
    if kept is not None:
        return cast(Exchange, kept[1])
    data = await tx.fetchval("SELECT data FROM exchanges WHERE exchange_id = $1", exchange_id)
    if data is None:
        return None
    exchange = _KINDS[kind].model_validate_json(data)
    states.keep(key, len(exchange.cohort), exchange)
    return exchange


def _age(work: Work) -> tuple[int, int, bool]:
    exchange = work.exchange
    return exchange.round_number, exchange.attempt, exchange.exchange == "evaluate"


def _work_id(event: Exchange, client_id: str) -> str:
    place = (event.federation_id, event.round_number, event.attempt, event.exchange)
    return work_id(*place, client_id)
