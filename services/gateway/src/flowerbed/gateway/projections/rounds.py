"""rounds: one row an attempt; the orchestrator says where it stands, the aggregator what it cost,
the artifact service when the checkpoint was there.

training ── evaluation_started ──> evaluating ── completed
   └── failed (another attempt may follow)

A whole ServerApp has exchanges instead: waiting ── completed, when their last reply is handed over.
"""

from collections import Counter
from typing import Any

from flowerbed.contracts.aggregate import AggregateCompleted
from flowerbed.contracts.artifact import ArtifactRecorded
from flowerbed.contracts.round import (
    RoundCompleted,
    RoundEvaluationStarted,
    RoundFailed,
    RoundStarted,
)
from flowerbed.contracts.server_app import MessagesPulled, MessagesPushed, ServerAppCompleted
from flowerbed.events.connection import Connection
from flowerbed.events.projection import Projection
from flowerbed.events.recorded import Recorded
from flowerbed.gateway.projections.upsert import as_json, upsert

_PULL = """
UPDATE rounds SET training = json_build_object(
        'num-replies', coalesce((training->>'num-replies')::integer, 0) + $4,
        'num-errors', coalesce((training->>'num-errors')::integer, 0) + $5),
    status = CASE WHEN $6 THEN 'completed' ELSE status END,
    finished_at = CASE WHEN $6 THEN $7 ELSE finished_at END
WHERE tenant = $1 AND federation_id = $2 AND round_number = $3
"""
_END = """
UPDATE rounds SET status = 'completed', finished_at = $3
WHERE tenant = $1 AND federation_id = $2 AND status = 'training'
"""
"""Replies that the app never asked for will not be."""


async def apply(tx: Connection, recorded: Recorded[Any]) -> None:
    if isinstance(event := recorded.event, MessagesPulled):
        await _pull(tx, recorded, event)
        return
    if isinstance(event, ServerAppCompleted):
        of = (recorded.context.tenant, event.federation_id)
        await tx.execute(_END, *of, recorded.recorded_at)
    values = _values(recorded)
    if values is None:
        return
    event = recorded.event
    key = {
        "tenant": recorded.context.tenant,
        "federation_id": event.federation_id,
        "round_number": _number(event),
        "attempt": getattr(event, "attempt", 1),
    }
    await upsert(tx, "rounds", key, values)


async def _pull(tx: Connection, recorded: Recorded[Any], event: MessagesPulled) -> None:
    """It may hand over some of an exchange's replies, and those of several exchanges."""
    replies, errors = Counter[int](), Counter[int]()
    for reply in event.replies:
        of = errors if reply.content is None else replies
        of[reply.round_number or event.round_number] += 1
    for number in {*event.closes, *replies, *errors}:
        await tx.execute(
            _PULL, recorded.context.tenant, event.federation_id, number,
            replies[number], errors[number], number in event.closes, recorded.recorded_at,
        )  # fmt: skip


def _number(event: Any) -> int:
    number: int = event.round_number if hasattr(event, "round_number") else event.n_exchanges
    return max(1, number)


def _values(recorded: Recorded[Any]) -> dict[str, Any] | None:
    at = recorded.recorded_at
    match recorded.event:
        case RoundStarted() as event:
            return _started(event) | {"started_at": at}
        case RoundEvaluationStarted() as event:
            return _evaluating(event) | {"evaluation_started_at": at}
        case RoundCompleted() as event:
            return _completed(event) | {"finished_at": at}
        case RoundFailed() as event:
            failed = {"status": "failed", "code": event.code, "reason": event.reason}
            return failed | {"finished_at": at, "deadline_at": event.waits_until}
        case AggregateCompleted(exchange="train") as event:
            folded = [update.model_dump() for update in event.updates]
            spent = {"train_seconds": event.train_seconds, "folded": as_json(folded)}
            return spent | {"aggregated_at": at}
        case ArtifactRecorded(exchange="train", kind="checkpoint"):
            return {"recorded_at": at}
        case AggregateCompleted(exchange="evaluate") as event:
            return {"evaluate_seconds": event.train_seconds}
        case MessagesPushed() as event:
            n = len(event.cohort)
            asked = {"n_cohort": n, "n_required": n, "deadline_at": event.deadline_at}
            return asked | {"status": "training", "started_at": at}
        case ServerAppCompleted() as event:
            return _served(event) | {"finished_at": at}
        case _:
            return None


def _started(event: RoundStarted) -> dict[str, Any]:
    return {
        "status": "training",
        "n_cohort": len(event.cohort),
        "n_required": event.n_required,
        "base_sha256": event.base.sha256,
        "deadline_at": event.deadline_at,
    }


def _evaluating(event: RoundEvaluationStarted) -> dict[str, Any]:
    return {
        "status": "evaluating",
        "deadline_at": event.deadline_at,
        "checkpoint_sha256": event.base.sha256,
        "checkpoint_uri": event.base.uri,
        "n_updates": event.n_updates,
        "training": as_json(event.training),
    }


def _served(event: ServerAppCompleted) -> dict[str, Any]:
    """The last exchange has what the app's strategy made of all."""
    return {
        "status": "completed",
        "checkpoint_sha256": event.checkpoint.sha256,
        "checkpoint_uri": event.checkpoint.uri,
        "training": as_json(event.training),
        "evaluation": as_json({**event.evaluation, **event.central}),
    }


def _completed(event: RoundCompleted) -> dict[str, Any]:
    return {
        "status": "completed",
        "checkpoint_sha256": event.checkpoint.sha256,
        "checkpoint_uri": event.checkpoint.uri,
        "n_updates": event.n_updates,
        "training": as_json(event.training),
        "evaluation": as_json(event.evaluation),
        "evaluation_error": event.evaluation_error,
        "deadline_at": event.waits_until,
    }


rounds = Projection("rounds", ("rounds",), apply)
