"""Service level indicators, folded from the read models, against their objectives.

Error budget as in Google's SRE Workbook, chapter 2: with an objective of 99 %, one in a hundred
may go wrong; what is left is 1 - bad / (all * (1 - objective)).
"""

from datetime import UTC, datetime, timedelta
from typing import Any

from flowerbed.events.database import Database
from flowerbed.gateway.views import View

OFFER_SECONDS = 600
"""A manifest that nobody took up for so long has run out: the join has failed."""

JOIN_OBJECTIVE = 0.95
ROUND_OBJECTIVE = 0.99
AVAILABILITY_OBJECTIVE = 0.99
AVAILABILITY_SECONDS = 30.0

_JOINS = """
SELECT count(*) FILTER (WHERE joined_at IS NOT NULL) AS good, count(*) AS total
FROM memberships
WHERE issued_at >= $1 AND (joined_at IS NOT NULL OR status <> 'issued' OR issued_at < $2)
"""

_ROUNDS = """
SELECT count(*) FILTER (WHERE status = 'completed') AS good, count(*) AS total,
    percentile_cont(0.5) WITHIN GROUP (ORDER BY seconds) AS p50,
    percentile_cont(0.95) WITHIN GROUP (ORDER BY seconds) AS p95
FROM (SELECT status, CASE status WHEN 'completed'
        THEN extract(epoch FROM finished_at - started_at)::float8 END AS seconds
    FROM rounds WHERE finished_at >= $1 AND status IN ('completed', 'failed')) AS ended
"""

_AVAILABILITY = """
SELECT count(*) FILTER (WHERE seconds <= $2) AS good, count(*) AS total,
    percentile_cont(0.5) WITHIN GROUP (ORDER BY seconds) AS p50,
    percentile_cont(0.95) WITHIN GROUP (ORDER BY seconds) AS p95
FROM (SELECT extract(epoch FROM recorded_at - aggregated_at)::float8 AS seconds
    FROM rounds WHERE aggregated_at >= $1 AND recorded_at IS NOT NULL) AS recorded
"""


class Indicator(View):
    """`ratio` and `budget_left` are None where nothing was counted.

    `budget_left`: 1 is untouched, 0 is used up, below 0 the objective is missed. `p50_seconds`
    and `p95_seconds`: of what went well, where the indicator is about a time.
    """

    name: str
    means: str
    objective: float
    good: int
    total: int
    ratio: float | None
    budget_left: float | None
    p50_seconds: float | None = None
    p95_seconds: float | None = None


class Slo(View):
    since: datetime
    hours: int
    indicators: list[Indicator]


class Slos:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def over(self, tenant: str | None, hours: int) -> Slo:
        now = datetime.now(UTC)
        since = now - timedelta(hours=hours)
        database = self._database
        opened = database.read_all() if tenant is None else database.transaction(tenant)
        async with opened as connection:
            offered_before = now - timedelta(seconds=OFFER_SECONDS)
            joins = await connection.fetchrow(_JOINS, since, offered_before)
            rounds = await connection.fetchrow(_ROUNDS, since)
            available = await connection.fetchrow(_AVAILABILITY, since, AVAILABILITY_SECONDS)
        return Slo(
            since=since,
            hours=hours,
            indicators=[
                _indicator("joins", "leases offered that were claimed", JOIN_OBJECTIVE, joins),
                _indicator(
                    "rounds", "attempts at a round that were completed", ROUND_OBJECTIVE, rounds
                ),
                _indicator(
                    "artifacts",
                    f"checkpoints verified within {AVAILABILITY_SECONDS:g} s of their aggregate",
                    AVAILABILITY_OBJECTIVE,
                    available,
                ),
            ],
        )


def _indicator(name: str, means: str, objective: float, row: Any) -> Indicator:
    good, total = row["good"], row["total"]
    return Indicator(
        name=name,
        means=means,
        objective=objective,
        good=good,
        total=total,
        ratio=good / total if total else None,
        budget_left=1 - (total - good) / (total * (1 - objective)) if total else None,
        p50_seconds=row.get("p50"),
        p95_seconds=row.get("p95"),
    )
