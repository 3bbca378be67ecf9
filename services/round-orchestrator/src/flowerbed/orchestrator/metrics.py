"""What a person watches: rounds started, completed and failed, how long they took, and of what."""

from datetime import timedelta
from functools import partial
from typing import Any

from prometheus_client import Counter, Histogram

from flowerbed.contracts.event import Event
from flowerbed.contracts.federation import (
    FederationCancelled,
    FederationCompleted,
    FederationFailed,
    FederationRejected,
)
from flowerbed.contracts.round import (
    RoundCompleted,
    RoundEvaluationStarted,
    RoundFailed,
    RoundStarted,
)
from flowerbed.contracts.trace import scope_of
from flowerbed.events.database import Connection, after_commit
from flowerbed.events.store import Recorded
from flowerbed.events.telemetry import exemplar

ROUNDS_STARTED = Counter("fl_rounds_started_total", "Attempts at a round that began")
ROUNDS_COMPLETED = Counter("fl_rounds_completed_total", "Rounds that ended with a checkpoint")
ROUNDS_FAILED = Counter("fl_rounds_failed_total", "Attempts at a round that came to nothing")
ROUND_SECONDS = Histogram(
    "fl_round_duration_seconds",
    "From a round's start to its evaluated checkpoint",
    buckets=(0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 3600),
)
BUDGET_USED = Histogram(
    "fl_round_budget_used_ratio",
    "A round's duration as a part of the deadlines of its training and its evaluation",
    buckets=(0.01, 0.05, 0.1, 0.25, 0.5, 0.6, 0.75, 0.9, 1, 1.25),
)
FEDERATIONS_ENDED = Counter("fl_federations_ended_total", "Federations that ended, by how", ["how"])

_ENDS: dict[type[Event], str] = {
    FederationCompleted: "completed",
    FederationFailed: "failed",
    FederationCancelled: "cancelled",
    FederationRejected: "rejected",
}
for _how in _ENDS.values():
    FEDERATIONS_ENDED.labels(_how)  # from 0 on, so that the first one is seen as an increase

_NEWEST = """
SELECT type, recorded_at, (data ->> 'deadline_at')::timestamptz AS deadline_at FROM events
WHERE stream = $1 AND version < $2 AND type = ANY ($3) ORDER BY version DESC LIMIT 2
"""
"""The round's evaluation, where there was one, and its training; or that and an older one."""


async def count(tx: Connection, recorded: list[Recorded[Any]]) -> None:
    """Counted once the events have committed."""
    for one in recorded:
        match one.event:
            case RoundStarted():
                after_commit(ROUNDS_STARTED.inc)
            case RoundFailed():
                after_commit(ROUNDS_FAILED.inc)
            case RoundCompleted():
                after_commit(ROUNDS_COMPLETED.inc)
                await _measure(tx, one)
            case (
                FederationCompleted()
                | FederationFailed()
                | FederationCancelled()
                | FederationRejected()
            ):
                after_commit(FEDERATIONS_ENDED.labels(_ENDS[type(one.event)]).inc)


async def _measure(tx: Connection, completed: Recorded[Any]) -> None:
    types = [RoundStarted.type, RoundEvaluationStarted.type]
    allowed = timedelta()
    for row in await tx.fetch(_NEWEST, completed.stream, completed.version, types):
        allowed += row["deadline_at"] - row["recorded_at"]
        if row["type"] == RoundStarted.type:
            seconds = (completed.recorded_at - row["recorded_at"]).total_seconds()
            linked = exemplar(scope_of(completed.event))
            after_commit(partial(ROUND_SECONDS.observe, seconds, linked))
            if allowed > timedelta():
                after_commit(partial(BUDGET_USED.observe, seconds / allowed.total_seconds()))
            return
