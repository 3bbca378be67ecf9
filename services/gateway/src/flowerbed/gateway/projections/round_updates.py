"""round_updates: what each client of a cohort was asked, answered, and what became of it.

    asked -> submitted -> accepted | rejected | quarantined
      ├───-> failed (the client's own word; the aggregator's later refusal adds nothing to it)
      └───-> replaced (it left before it answered; who took its place has a row of its own)

Three services write a row, in any order: a status never gives way to one that ranks lower, and
a column takes the word of the service that knows best.
"""

from typing import Any

from flowerbed.contracts.round import RoundEvaluationStarted, RoundMemberReplaced, RoundStarted
from flowerbed.contracts.server_app import MessageAnswered, MessagesPushed
from flowerbed.contracts.update import (
    UpdateAccepted,
    UpdateEvent,
    UpdateFailed,
    UpdateQuarantined,
    UpdateRejected,
    UpdateSubmitted,
)
from flowerbed.contracts.values import ArtifactRef
from flowerbed.events.connection import Connection
from flowerbed.events.projection import Projection
from flowerbed.events.recorded import Recorded
from flowerbed.gateway.projections.upsert import as_json

_RANKS = "ARRAY['asked', 'replaced', 'submitted', 'rejected', 'quarantined', 'failed', 'accepted']"
_KEY = ("tenant", "federation_id", "round_number", "attempt", "exchange", "client_id")


async def apply(tx: Connection, recorded: Recorded[Any]) -> None:
    match recorded.event:
        case RoundStarted() | RoundEvaluationStarted() as started:
            places = {member.client_id: place for place, member in enumerate(started.cohort)}
            exchange = "train" if isinstance(started, RoundStarted) else "evaluate"
            await _ask(tx, recorded, exchange, places)
        case RoundMemberReplaced() as replaced:
            await _replace(tx, recorded, replaced)
            await _ask(tx, recorded, "train", {replaced.replacement.client_id: replaced.place})
        case UpdateEvent() as event:
            await _answer(tx, recorded, event)
        case MessagesPushed() as pushed:
            await _ask(tx, recorded, "train", {one.client_id: one.place for one in pushed.cohort})
        case MessageAnswered() as answered:
            await _answer(tx, recorded, answered)


async def _ask(
    tx: Connection, recorded: Recorded[Any], exchange: str, places: dict[str, int]
) -> None:
    event = recorded.event
    await tx.execute(
        "INSERT INTO round_updates (tenant, federation_id, round_number, attempt, exchange,"
        " client_id, status, place, asked_at)"
        " SELECT $1, $2, $3, $4, $5, c.client_id, 'asked', c.place, $8"
        " FROM unnest($6::text[], $7::integer[]) AS c (client_id, place)"
        " ON CONFLICT (tenant, federation_id, round_number, attempt, exchange, client_id)"
        " DO UPDATE SET place = EXCLUDED.place, asked_at = EXCLUDED.asked_at",
        recorded.context.tenant, event.federation_id, event.round_number, event.attempt,
        exchange, list(places), list(places.values()), recorded.recorded_at,
    )  # fmt: skip


async def _replace(tx: Connection, recorded: Recorded[Any], event: RoundMemberReplaced) -> None:
    await tx.execute(
        "UPDATE round_updates SET status = 'replaced'"
        " WHERE tenant = $1 AND federation_id = $2 AND round_number = $3 AND attempt = $4"
        " AND exchange = 'train' AND client_id = $5 AND status = 'asked'",
        recorded.context.tenant, event.federation_id, event.round_number, event.attempt,
        event.client_id,
    )  # fmt: skip


async def _answer(
    tx: Connection, recorded: Recorded[Any], event: UpdateEvent | MessageAnswered
) -> None:
    values, knows_best = _values(recorded, event)
    of_message = {"attempt": 1, "exchange": "train"}
    key = [
        recorded.context.tenant,
        *(getattr(event, name, of_message.get(name)) for name in _KEY[1:]),
    ]
    columns = [*_KEY, *values]
    places = ", ".join(f"${place}" for place in range(1, len(columns) + 1))
    await tx.execute(
        f"INSERT INTO round_updates ({', '.join(columns)}) VALUES ({places})"
        f" ON CONFLICT ({', '.join(_KEY)}) DO UPDATE SET "
        + ", ".join(_setting(column, knows_best) for column in values),
        *key,
        *values.values(),
    )


def _setting(column: str, knows_best: bool) -> str:
    if column == "status":
        return (
            f"status = CASE WHEN array_position({_RANKS}, EXCLUDED.status)"
            f" > array_position({_RANKS}, round_updates.status)"
            " THEN EXCLUDED.status ELSE round_updates.status END"
        )
    if knows_best:
        return f"{column} = EXCLUDED.{column}"
    return f"{column} = coalesce(round_updates.{column}, EXCLUDED.{column})"


def _values(
    recorded: Recorded[Any], event: UpdateEvent | MessageAnswered
) -> tuple[dict[str, Any], bool]:
    """Columns that the event sets, and whether it overrules what is there."""
    at = recorded.recorded_at
    match event:
        case UpdateSubmitted():
            submitted = {"status": "submitted", "reported_at": at}
            return submitted | _work(event) | _measures(event), False
        case MessageAnswered(content=ArtifactRef() as content):
            answered = {"status": "accepted", "train_seconds": event.train_seconds}
            return answered | {"reported_at": at, "decided_at": at} | _ref(content), True
        case UpdateFailed() | MessageAnswered():
            failed = {"status": "failed", "code": event.code, "detail": event.detail}
            return failed | {"reported_at": at}, True
        case UpdateAccepted():
            accepted = {"status": "accepted", "place": event.place, "decided_at": at}
            return accepted | _work(event) | _form(event), True
        case UpdateRejected():
            refused = {"status": "rejected", "code": event.code, "detail": event.detail}
            return refused | {"place": event.place, "decided_at": at}, False
        case UpdateQuarantined():
            held = {"status": "quarantined", "code": event.code, "detail": event.detail}
            return held | {"place": event.place, "decided_at": at} | _ref(event.artifact), True
        case _:
            raise AssertionError("unreachable")


def _work(event: UpdateSubmitted | UpdateAccepted) -> dict[str, Any]:
    return {
        "n_examples": event.n_examples,
        "train_seconds": event.train_seconds,
        "metrics": as_json(event.metrics),
        **_ref(event.artifact),
    }


def _measures(event: UpdateSubmitted) -> dict[str, Any]:
    return {
        "download_seconds": event.download_seconds,
        "upload_seconds": event.upload_seconds,
        "n_tokens": event.n_tokens,
        "joules": event.joules,
        "joules_reason": event.joules_reason,
    }


def _form(event: UpdateAccepted) -> dict[str, Any]:
    return {
        "form": event.form,
        "full_size": event.full_size,
        "form_error": event.form_error,
    }


def _ref(artifact: ArtifactRef | None) -> dict[str, Any]:
    if artifact is None:
        return {}
    return {"sha256": artifact.sha256, "uri": artifact.uri, "size": artifact.size}


round_updates = Projection("round_updates", ("round_updates",), apply)
