"""federations: one row each, where it stands and why.

created ── started ──> running ── completed | failed | cancelled
   │                   │     ^
   │                 paused ─┘ resumed
rejected
"""

import json
from typing import Any

from flowerbed.contracts.federation import (
    FederationCancelled,
    FederationCompleted,
    FederationCreated,
    FederationEvent,
    FederationFailed,
    FederationPaused,
    FederationPolicyChanged,
    FederationRejected,
    FederationResumed,
    FederationStarted,
)
from flowerbed.contracts.round import RoundCompleted, RoundStarted
from flowerbed.events.connection import Connection
from flowerbed.events.projection import Projection
from flowerbed.events.recorded import Recorded
from flowerbed.gateway.projections.upsert import as_json, update, upsert

_RESUMED = """
UPDATE federations SET reason = '', pause_expires_at = NULL, updated_at = $3,
    status = CASE WHEN started_at IS NULL THEN 'created' ELSE 'running' END
WHERE tenant = $1 AND federation_id = $2
"""


async def apply(tx: Connection, recorded: Recorded[Any]) -> None:
    event, at = recorded.event, recorded.recorded_at
    if not isinstance(event, FederationEvent):
        return
    key = {"tenant": recorded.context.tenant, "federation_id": event.federation_id}
    match event:
        case FederationCreated():
            await upsert(tx, "federations", key, _created(event) | {"created_at": at, **_now(at)})
        case FederationRejected():
            await upsert(tx, "federations", key, _rejected(event) | {"created_at": at, **_now(at)})
        case FederationPolicyChanged():
            await _change_policy(tx, recorded, event)
        case FederationResumed():
            await tx.execute(_RESUMED, recorded.context.tenant, event.federation_id, at)
        case _:
            changes = _changes(event)
            if changes is None:
                return
            ended = {"ended_at": at} if changes.get("status") in _ENDED else {}
            started = {"started_at": at} if isinstance(event, FederationStarted) else {}
            await update(tx, "federations", key, changes | ended | started | _now(at))


async def _change_policy(
    tx: Connection, recorded: Recorded[Any], event: FederationPolicyChanged
) -> None:
    """The spec shown is the one that counts now; what was submitted is in the history."""
    of = (recorded.context.tenant, event.federation_id)
    written = await tx.fetchval(
        "SELECT spec FROM federations WHERE tenant = $1 AND federation_id = $2", *of
    )
    if written is None:
        return
    spec = json.loads(written)
    spec["spec"]["round_policy"] = event.policy
    await tx.execute(
        "UPDATE federations SET spec = $3, updated_at = $4, join_deadline_at = CASE"
        " WHEN started_at IS NULL THEN coalesce($5, join_deadline_at) ELSE join_deadline_at END"
        " WHERE tenant = $1 AND federation_id = $2",
        *of,
        as_json(spec),
        recorded.recorded_at,
        event.waits_until,
    )


_ENDED = frozenset({"completed", "failed", "cancelled"})


def _now(at: Any) -> dict[str, Any]:
    return {"updated_at": at}


def _created(event: FederationCreated) -> dict[str, Any]:
    spec = event.federation_spec
    return {
        "submission_id": event.submission_id,
        "name": spec.metadata.name,
        "status": "created",
        "n_rounds": spec.spec.num_rounds,
        "is_whole": spec.spec.is_whole,
        "spec": as_json(event.spec),
        "join_deadline_at": event.join_deadline_at,
    }


def _rejected(event: FederationRejected) -> dict[str, Any]:
    n_problems = len(event.problems)
    return {
        "submission_id": event.submission_id,
        "status": "rejected",
        "problems": as_json([problem.model_dump() for problem in event.problems]),
        "code": "spec-refused",
        "reason": f"{n_problems} broken rule{'' if n_problems == 1 else 's'} in the spec",
    }


def _changes(event: FederationEvent) -> dict[str, Any] | None:
    """What the event sets in the row; None for events that say nothing about it."""
    match event:
        case FederationStarted():
            return {"status": "running", "base_sha256": event.base.sha256}
        case FederationPaused():
            until = {"pause_expires_at": event.expires_at}
            return {"status": "paused", "reason": event.reason, **until}
        case FederationCompleted():
            final = {"final_sha256": event.final.sha256, "final_uri": event.final.uri}
            n = event.n_rounds  # how many there would be was a whole ServerApp's secret
            done = {"round_number": n, "n_rounds": n, "n_rounds_completed": n}
            return {"status": "completed", "reason": "", **done, **final}
        case FederationFailed():
            return {"status": "failed", "code": event.code, "reason": event.reason}
        case FederationCancelled():
            return {"status": "cancelled", "reason": event.reason}
        case RoundStarted():
            return {"round_number": event.round_number}
        case RoundCompleted():
            return {"n_rounds_completed": event.round_number}
        case _:
            return None


federations = Projection("federations", ("federations",), apply)
