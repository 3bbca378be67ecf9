"""What a person watches: rounds started, completed, and how long they took."""

from datetime import datetime
from functools import partial
from typing import Any

from prometheus_client import Counter, Histogram

from flowerbed.contracts.round import RoundCompleted, RoundStarted
from flowerbed.events.database import Connection, after_commit
from flowerbed.events.store import Recorded

ROUNDS_STARTED = Counter("fl_rounds_started_total", "Attempts at a round that began")
ROUNDS_COMPLETED = Counter("fl_rounds_completed_total", "Rounds that ended with a checkpoint")
ROUND_SECONDS = Histogram(
    "fl_round_duration_seconds",
    "From a round's start to its evaluated checkpoint",
    buckets=(0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 3600),
)


async def count(tx: Connection, recorded: list[Recorded[Any]]) -> None:
    """Counted once the events have committed."""
    for one in recorded:
        if isinstance(one.event, RoundStarted):
            after_commit(ROUNDS_STARTED.inc)
        elif isinstance(one.event, RoundCompleted):
            after_commit(ROUNDS_COMPLETED.inc)
            started_at: datetime | None = await tx.fetchval(
                "SELECT max(recorded_at) FROM events WHERE stream = $1 AND type = $2"
                " AND version < $3",
                one.stream,
                RoundStarted.type,
                one.version,
            )
            if started_at is not None:
                seconds = (one.recorded_at - started_at).total_seconds()
                after_commit(partial(ROUND_SECONDS.observe, seconds))
