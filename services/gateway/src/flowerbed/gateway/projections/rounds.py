"""rounds: one row an attempt; the orchestrator says where it stands, the aggregator what it cost,
the artifact service when the checkpoint was there.

training ── evaluation_started ──> evaluating ── completed
   └── failed (another attempt may follow)

A whole ServerApp has exchanges instead: waiting ── completed, when their last reply is handed over.
"""

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


async def apply(tx: Connection, recorded: Recorded[Any]) -> None:
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
        case MessagesPulled() as event:
            return _pulled(event) | {"finished_at": at if event.n_open == 0 else None}
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
        "training": as_json(event.training),
    }


def _pulled(event: MessagesPulled) -> dict[str, Any]:
    n_errors = sum(reply.content is None for reply in event.replies)
    counts = {"num-replies": len(event.replies) - n_errors, "num-errors": n_errors}
    status = "training" if event.n_open else "completed"
    return {"status": status, "training": as_json(counts)}


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
        "training": as_json(event.training),
        "evaluation": as_json(event.evaluation),
        "evaluation_error": event.evaluation_error,
        "deadline_at": event.waits_until,
    }


rounds = Projection("rounds", ("rounds",), apply)
