"""Which spans an event ends: those that began with an earlier one, from the read models.

Their ids are derived (`contracts.trace`), so children that were exported by other processes find
them, whichever process has died meanwhile.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from flowerbed.contracts import trace
from flowerbed.contracts.aggregate import AggregateCompleted, AggregateFailed
from flowerbed.contracts.artifact import ArtifactRecorded
from flowerbed.contracts.client import ClientJoined
from flowerbed.contracts.federation import (
    FederationCancelled,
    FederationCompleted,
    FederationCreated,
    FederationEvent,
    FederationFailed,
    FederationRejected,
)
from flowerbed.contracts.round import RoundCompleted, RoundFailed
from flowerbed.contracts.update import (
    UpdateAccepted,
    UpdateEvent,
    UpdateQuarantined,
    UpdateRejected,
)
from flowerbed.events.connection import Connection
from flowerbed.events.recorded import Recorded
from flowerbed.gateway.traces.milestone import (
    Attributes,
    Milestone,
    exchange_span,
    left_open,
    ordered,
    place_of,
    round_span,
    work_id_of,
    work_spans,
)

_ENDED = (FederationCompleted, FederationFailed, FederationCancelled, FederationRejected)
_DECIDED = (UpdateAccepted, UpdateRejected, UpdateQuarantined)

_WORKS = """
SELECT * FROM round_updates WHERE federation_id = $1 AND tenant = $2
"""


async def ended_by(tx: Connection, recorded: Recorded[Any]) -> Sequence[Milestone]:
    """The spans that this event ends, outermost first. The read models know of it already."""
    found = [one async for one in _found(tx, recorded)]
    about: Attributes = {"tenant": recorded.context.tenant}
    if recorded.context.correlation_id:
        about["federation_id"] = recorded.context.correlation_id
    for one in found:
        one.attributes.update(about)
    return found


async def _found(tx: Connection, recorded: Recorded[Any]) -> AsyncIterator[Milestone]:
    at = recorded.recorded_at
    match recorded.event:
        case event if isinstance(event, _ENDED):
            async for one in _federation(tx, recorded):
                yield one
        case FederationCreated() as event:
            yield await _submission(tx, event, at)
        case ClientJoined() as event:
            issued_at = await _when(tx, recorded, "fl.client.lease_issued")
            yield Milestone(
                name="lease",
                own=trace.traceparent(event.federation_id, "lease", event.client_id, event.epoch),
                parent=trace.of_federation(event.federation_id),
                start=issued_at or at,
                end=at,
                attributes={"client_id": event.client_id, "lease_epoch": event.epoch},
            )
        case RoundCompleted() | RoundFailed() as event:
            row = await _round(tx, event.federation_id, event.round_number, event.attempt)
            if row is not None:
                yield round_span(row, at)
                for exchange in left_open(row, await _outcomes(tx, row)):
                    yield exchange_span(row, exchange, at, "no aggregate")
        case AggregateCompleted() | AggregateFailed() as event:
            async for one in _aggregate(tx, event, at):
                yield one
        case ArtifactRecorded(kind="base" | "checkpoint") as event:
            yield await _artifact(tx, event, at)
        case event if isinstance(event, _DECIDED):
            async for one in _decided(tx, recorded):
                yield one


# --- a federation's end closes whatever is open ---------------------------------------------


async def _federation(
    tx: Connection, recorded: Recorded[FederationEvent]
) -> AsyncIterator[Milestone]:
    identity, at = recorded.event.federation_id, recorded.recorded_at
    row = await tx.fetchrow("SELECT * FROM federations WHERE federation_id = $1", identity)
    posted = await tx.fetchval(
        "SELECT submitted_at FROM submissions WHERE federation_id = $1", identity
    )
    if row is None:
        return
    n_completed = await tx.fetchval(  # of a whole ServerApp that did not end: not in its row
        "SELECT count(*) FROM rounds WHERE federation_id = $1 AND status = 'completed'", identity
    )
    yield Milestone(
        name="federation",
        own=trace.of_federation(identity),
        parent=None,
        start=min(posted or row["created_at"], row["created_at"]),
        end=at,
        attributes={
            "name": row["name"],
            "status": row["status"],
            "rounds": row["n_rounds_completed"] or n_completed,
        },
        error="" if row["status"] == "completed" else row["code"] or row["status"],
    )
    open_rounds = await tx.fetch(
        "SELECT * FROM rounds WHERE federation_id = $1 AND finished_at IS NULL"
        " AND started_at IS NOT NULL",
        identity,
    )
    for a_round in open_rounds:
        yield round_span(a_round, at)
        for exchange in left_open(a_round, await _outcomes(tx, a_round)):
            yield exchange_span(a_round, exchange, at, row["status"])
    works = await tx.fetch(f"{_WORKS} AND decided_at IS NULL", identity, recorded.context.tenant)
    for work in works:
        for one in work_spans(work, work_id_of(work), at):
            yield one


async def _submission(tx: Connection, event: FederationCreated, at: datetime) -> Milestone:
    posted = await tx.fetchval(
        "SELECT submitted_at FROM submissions WHERE federation_id = $1", event.federation_id
    )
    return Milestone(
        name="submission",
        own=trace.traceparent(event.federation_id, "submission"),
        parent=trace.of_federation(event.federation_id),
        start=min(posted or at, at),
        end=at,
        attributes={"submission_id": event.submission_id},
    )


# --- rounds and their exchanges -------------------------------------------------------------


async def _outcomes(tx: Connection, row: Mapping[str, Any]) -> frozenset[str]:
    identity, number, attempt = place_of(row)
    rows = await tx.fetch(
        "SELECT data ->> 'exchange' AS exchange FROM events WHERE stream = ANY ($1)"
        " AND type IN ('fl.aggregate.completed', 'fl.aggregate.failed')",
        [f"exchange-{identity}-{number}-{attempt}-{kind}" for kind in ("train", "evaluate")],
    )
    return frozenset(found["exchange"] for found in rows)


async def _aggregate(
    tx: Connection, event: AggregateCompleted | AggregateFailed, at: datetime
) -> AsyncIterator[Milestone]:
    identity, number, attempt = event.federation_id, event.round_number, event.attempt
    error = event.code if isinstance(event, AggregateFailed) else ""
    if event.exchange == "initialize":
        began = await tx.fetchval(
            "SELECT created_at FROM federations WHERE federation_id = $1", identity
        )
        yield Milestone(
            name="initialize",
            own=trace.of_exchange(identity, number, attempt, "initialize"),
            parent=trace.of_federation(identity),
            start=began or at,
            end=at,
            attributes={"round_num": number, "attempt": attempt},
            error=error,
        )
        return
    row = await _round(tx, identity, number, attempt)
    if row is None:
        return
    yield exchange_span(row, event.exchange, at, error)
    if isinstance(event, AggregateCompleted) and event.exchange == "train":
        last = await tx.fetchval(
            "SELECT max(recorded_at) FROM events WHERE stream = $1 AND type = $2",
            f"exchange-{identity}-{number}-{attempt}-train",
            UpdateAccepted.type,
        )
        yield Milestone(
            name="fold",
            own=trace.traceparent(identity, "fold", number, attempt),
            parent=trace.of_exchange(identity, number, attempt, event.exchange),
            start=last or at,
            end=at,
            attributes={"round_num": number, "attempt": attempt, "updates": len(event.updates)},
        )


async def _artifact(tx: Connection, event: ArtifactRecorded, at: datetime) -> Milestone:
    identity, number, attempt = event.federation_id, event.round_number, event.attempt
    stored_at = await tx.fetchval(
        "SELECT max(recorded_at) FROM events WHERE stream = $1 AND type = $2",
        f"exchange-{identity}-{number}-{attempt}-{event.exchange}",
        AggregateCompleted.type,
    )
    parent = trace.of_federation(identity)
    if number:
        parent = trace.of_round(identity, number, attempt)
    return Milestone(
        name="artifact",
        own=trace.traceparent(identity, "artifact", number, attempt, event.kind),
        parent=parent,
        start=stored_at or at,
        end=at,
        attributes={
            "round_num": number, "attempt": attempt, "kind": event.kind,
            "sha256": event.artifact.sha256, "size": event.artifact.size,
        },
    )  # fmt: skip


# --- one client's work ----------------------------------------------------------------------


async def _decided(tx: Connection, recorded: Recorded[UpdateEvent]) -> AsyncIterator[Milestone]:
    """A late update is decided in a later round; its work is that of the round that ordered it."""
    event, at = recorded.event, recorded.recorded_at
    number, attempt, exchange, client = ordered(event.work_id)
    ended_at = await tx.fetchval(
        "SELECT ended_at FROM federations WHERE federation_id = $1", event.federation_id
    )
    if ended_at is not None and ended_at < at:
        return  # all was closed with the federation
    row = await tx.fetchrow(
        f"{_WORKS} AND round_number = $3 AND attempt = $4 AND exchange = $5 AND client_id = $6",
        event.federation_id, recorded.context.tenant, number, attempt, exchange, client,
    )  # fmt: skip
    if row is not None:
        error = "" if isinstance(event, UpdateAccepted) else getattr(event, "code", "")
        for one in work_spans(row, event.work_id, at, error):
            yield one


# --- rows -----------------------------------------------------------------------------------


async def _round(tx: Connection, identity: str, number: int, attempt: int) -> Any:
    return await tx.fetchrow(
        "SELECT * FROM rounds WHERE federation_id = $1 AND round_number = $2 AND attempt = $3",
        identity,
        number,
        attempt,
    )


async def _when(tx: Connection, recorded: Recorded[Any], event_type: str) -> datetime | None:
    """The last event of that type before this one in its stream."""
    found: datetime | None = await tx.fetchval(
        "SELECT max(recorded_at) FROM events WHERE stream = $1 AND type = $2 AND version < $3",
        recorded.stream,
        event_type,
        recorded.version,
    )
    return found
