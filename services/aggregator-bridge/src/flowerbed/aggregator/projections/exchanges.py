"""federations and exchanges: what was asked of the bridge, from the orchestrator's facts."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from flowerbed.aggregator.quorum import Terms
from flowerbed.contracts.federation import FederationCreated
from flowerbed.contracts.round import ExchangeStarted, RoundEvaluationStarted, RoundStarted
from flowerbed.contracts.spec import FederationSpec
from flowerbed.events.connection import Connection, Row
from flowerbed.events.context import Context
from flowerbed.events.database import Database
from flowerbed.events.errors import NotFound
from flowerbed.events.recorded import Recorded

# Open: without an outcome, or with an answer that nobody has judged (it will be late).
_OPEN = """
SELECT e.*, f.created FROM federations f JOIN exchanges e USING (federation_id)
WHERE NOT f.is_ended AND ($1::text[] IS NULL OR e.stream = ANY($1)) AND (
    NOT EXISTS (SELECT FROM outcomes o WHERE o.stream = e.stream)
    OR EXISTS (
        SELECT FROM submissions s
        WHERE s.stream = e.stream AND s.client_id = ANY(e.cohort) AND NOT EXISTS (
            SELECT FROM answers a WHERE a.stream = s.stream AND a.client_id = s.client_id
        )
    )
)
"""

_STARTED: dict[str, type[ExchangeStarted]] = {
    cls.type: cls for cls in (RoundStarted, RoundEvaluationStarted)
}


@dataclass(frozen=True)
class Asked:
    """One exchange as it was asked for. `started` is None for an initialization."""

    created: FederationCreated
    started: ExchangeStarted | None
    context: Context

    @cached_property
    def spec(self) -> FederationSpec:
        return self.created.federation_spec

    @cached_property
    def terms(self) -> Terms:
        return terms_of(self.started or self.created)


def terms_of(asked: FederationCreated | ExchangeStarted) -> Terms:
    if isinstance(asked, FederationCreated):
        return Terms(
            federation_id=asked.federation_id,
            round_number=0,
            attempt=1,
            exchange="initialize",
            deadline_at=asked.join_deadline_at,
        )
    return Terms(
        federation_id=asked.federation_id,
        round_number=asked.round_number,
        attempt=asked.attempt,
        exchange="train" if isinstance(asked, RoundStarted) else "evaluate",
        cohort=tuple(member.client_id for member in asked.cohort),
        goal=asked.goal,
        n_required=asked.n_required,
        deadline_at=asked.deadline_at,
    )


async def remember_federation(tx: Connection, recorded: Recorded[FederationCreated]) -> None:
    await tx.execute(
        "INSERT INTO federations (federation_id, tenant, created) VALUES ($1, $2, $3)"
        " ON CONFLICT (federation_id) DO NOTHING",
        recorded.event.federation_id,
        recorded.context.tenant,
        recorded.event.model_dump_json(),
    )


async def remember_exchange(
    tx: Connection, recorded: Recorded[FederationCreated] | Recorded[ExchangeStarted]
) -> None:
    terms = terms_of(recorded.event)
    await tx.execute(
        "INSERT INTO exchanges (stream, tenant, federation_id, type, started, cohort, event_id,"
        " traceparent) VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (stream) DO NOTHING",
        terms.stream,
        recorded.context.tenant,
        terms.federation_id,
        recorded.type,
        recorded.event.model_dump_json(),
        list(terms.cohort),
        recorded.id,
        recorded.context.traceparent,
    )


async def end_federation(tx: Connection, federation_id: str) -> None:
    await tx.execute(
        "UPDATE federations SET is_ended = true WHERE federation_id = $1", federation_id
    )


async def open_exchanges(
    database: Database, streams: Sequence[str] | None = None
) -> dict[str, Asked]:
    """Of every tenant, by stream; `streams` narrows it down."""
    async with database.read_all() as connection:
        rows = await connection.fetch(_OPEN, None if streams is None else list(streams))
    return {row["stream"]: _asked(row) for row in rows}


async def read_exchange(database: Database, tenant: str, stream: str) -> Asked:
    async with database.transaction(tenant) as tx:
        row = await tx.fetchrow(
            "SELECT e.*, f.created FROM exchanges e JOIN federations f USING (federation_id)"
            " WHERE e.stream = $1",
            stream,
        )
    if row is None:
        raise NotFound(f"no exchange {stream}")
    return _asked(row)


def _asked(row: Row) -> Asked:
    created = FederationCreated.model_validate_json(row["created"])
    cls = _STARTED.get(row["type"])
    return Asked(
        created=created,
        started=None if cls is None else cls.model_validate_json(row["started"]),
        context=Context(
            tenant=row["tenant"],
            correlation_id=row["federation_id"],
            causation_id=str(row["event_id"]),
            traceparent=row["traceparent"],
        ),
    )
