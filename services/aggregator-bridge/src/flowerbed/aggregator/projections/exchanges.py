"""federations and exchanges: what was asked of the bridge, from the orchestrator's facts."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cached_property

from pydantic import TypeAdapter

from flowerbed.aggregator.projections.submissions import LATE
from flowerbed.aggregator.quorum import ServingTerms, Terms
from flowerbed.contracts.federation import FederationCreated, FederationPolicyChanged
from flowerbed.contracts.policy import Budget, RoundPolicy
from flowerbed.contracts.round import (
    ExchangeStarted,
    RoundEvaluationStarted,
    RoundMemberReplaced,
    RoundStarted,
)
from flowerbed.contracts.server_app import ServerAppStarted
from flowerbed.contracts.spec import FederationSpec
from flowerbed.events.connection import Connection, Row
from flowerbed.events.context import Context
from flowerbed.events.database import Database
from flowerbed.events.errors import NotFound
from flowerbed.events.recorded import Recorded

# Open: without an outcome, or with reports that are late for certain and are to be told so.
_OPEN = f"""
SELECT e.*, f.created FROM federations f JOIN exchanges e USING (federation_id)
WHERE (NOT f.is_ended OR $2) AND ($1::text[] IS NULL OR e.stream = ANY($1)) AND (
    NOT (f.is_ended OR EXISTS (SELECT FROM outcomes o WHERE o.stream = e.stream))
    OR EXISTS (SELECT FROM submissions s WHERE s.stream = e.stream AND {LATE})
)
"""

_STANDING = """
SELECT e.replaced, f.is_ended, e.type = 'fl.round.started' AND EXISTS (
    SELECT FROM exchanges l WHERE l.federation_id = e.federation_id AND l.type = e.type
    AND (l.round_number, l.attempt) > (e.round_number, e.attempt)
) AS is_superseded
FROM exchanges e JOIN federations f USING (federation_id) WHERE e.stream = $1
"""

TELEMETRY = """
SELECT federation_id, created #> '{spec,spec,telemetry}' AS telemetry FROM federations
WHERE federation_id = ANY ($1)
"""

_OPEN_OVER = """
SELECT tenant, created FROM federations
WHERE NOT is_ended AND created #>> '{spec,spec,runtime}' = $1
"""

_REPLACED = TypeAdapter(tuple[RoundMemberReplaced, ...])
_STARTED: dict[str, type[ExchangeStarted]] = {
    cls.type: cls for cls in (RoundStarted, RoundEvaluationStarted)
}


@dataclass(frozen=True)
class Asked:
    """One exchange as it was asked for. `started` is None for an initialization; with `serving`
    it is no exchange but a whole ServerApp, which has its own.

    `grace`: how long after its deadline the exchange waits for S3.
    """

    created: FederationCreated
    started: ExchangeStarted | None
    context: Context
    grace: timedelta
    replaced: tuple[RoundMemberReplaced, ...] = ()
    serving: ServerAppStarted | None = None

    @cached_property
    def spec(self) -> FederationSpec:
        return self.created.federation_spec

    @cached_property
    def terms(self) -> Terms:
        return terms_of(self.serving or self.started or self.created, self.replaced)


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What the orchestrator has said of an exchange since it started.

    `is_superseded`: a later training exchange has started; nobody waits for this one.
    """

    replaced: tuple[RoundMemberReplaced, ...]
    is_ended: bool
    is_superseded: bool


def terms_of(
    asked: FederationCreated | ServerAppStarted | ExchangeStarted,
    replaced: Sequence[RoundMemberReplaced] = (),
) -> Terms:
    if isinstance(asked, ServerAppStarted):
        return ServingTerms(
            federation_id=asked.federation_id,
            round_number=0,  # its exchanges begin at 1
            attempt=1,
            exchange="train",
            deadline_at=asked.deadline_at,
        )
    if isinstance(asked, FederationCreated):
        return Terms(
            federation_id=asked.federation_id,
            round_number=0,
            attempt=1,
            exchange="initialize",
            deadline_at=asked.join_deadline_at,
        )
    cohort = [member.client_id for member in asked.cohort]
    for change in replaced:
        cohort[change.place] = change.replacement.client_id
    terms = Terms(
        federation_id=asked.federation_id,
        round_number=asked.round_number,
        attempt=asked.attempt,
        exchange="evaluate",
        cohort=tuple(cohort),
        goal=asked.goal,
        n_required=asked.n_required,
        deadline_at=asked.deadline_at,
    )
    if not isinstance(asked, RoundStarted):
        return terms
    return replace(
        terms,
        exchange="train",
        replaced=tuple((change.place, change.client_id) for change in replaced),
        owed=asked.owed,
        counts_late=asked.work_until is not None,
        staleness_exponent=asked.staleness_exponent,
        folds_in_order=asked.folds_in_order,
    )


async def remember_federation(tx: Connection, recorded: Recorded[FederationCreated]) -> None:
    await tx.execute(
        "INSERT INTO federations (federation_id, tenant, created) VALUES ($1, $2, $3)"
        " ON CONFLICT (federation_id) DO NOTHING",
        recorded.event.federation_id,
        recorded.context.tenant,
        recorded.event.model_dump_json(),
    )


async def remember_policy(tx: Connection, changed: FederationPolicyChanged) -> None:
    await tx.execute(
        "UPDATE federations SET policy = $2 WHERE federation_id = $1",
        changed.federation_id,
        changed.round_policy.model_dump_json(),
    )


async def remember_exchange(
    tx: Connection,
    recorded: Recorded[FederationCreated] | Recorded[ExchangeStarted] | Recorded[ServerAppStarted],
) -> None:
    """The grace is that of the policy in force now; what is changed later changes nothing here."""
    terms = terms_of(recorded.event)
    policy = await tx.fetchval(
        "SELECT policy FROM federations WHERE federation_id = $1", terms.federation_id
    )
    grace = None if policy is None else _grace(RoundPolicy.model_validate_json(policy))
    await tx.execute(
        "INSERT INTO exchanges (stream, tenant, federation_id, type, started, cohort, event_id,"
        " traceparent, owed, grace_seconds) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"
        " ON CONFLICT (stream) DO NOTHING",
        terms.stream,
        recorded.context.tenant,
        terms.federation_id,
        recorded.type,
        recorded.event.model_dump_json(),
        list(terms.cohort),
        recorded.id,
        recorded.context.traceparent,
        [one.work_id for one in terms.owed],
        None if grace is None else grace.total_seconds(),
    )


async def remember_replacement(tx: Connection, replaced: RoundMemberReplaced) -> str:
    """The stream of the exchange in which a member was replaced."""
    place = (replaced.federation_id, replaced.round_number, replaced.attempt, "train")
    stream = "exchange-" + "-".join(map(str, place))
    await tx.execute(
        "UPDATE exchanges SET replaced = replaced || $2::jsonb,"
        " cohort = array_append(cohort, $3) WHERE stream = $1",
        stream,
        f"[{replaced.model_dump_json()}]",
        replaced.replacement.client_id,
    )
    return stream


async def streams_of(tx: Connection, federation_id: str) -> list[str]:
    """All exchanges of the federation in which clients were asked."""
    rows = await tx.fetch(
        "SELECT stream FROM exchanges WHERE federation_id = $1 AND cardinality(cohort) > 0",
        federation_id,
    )
    return [row["stream"] for row in rows]


async def end_federation(tx: Connection, federation_id: str) -> None:
    await tx.execute(
        "UPDATE federations SET is_ended = true WHERE federation_id = $1", federation_id
    )


async def open_exchanges(
    database: Database, streams: Sequence[str] | None = None, *, with_ended: bool = True
) -> dict[str, Asked]:
    """Of every tenant, by stream; `streams` narrows it down.

    `with_ended`: also those of ended federations, of which late reports may have no answer.
    """
    async with database.read_all() as connection:
        rows = await connection.fetch(_OPEN, None if streams is None else list(streams), with_ended)
    return {row["stream"]: _asked(row) for row in rows}


async def open_federations(database: Database, runtime: str) -> list[tuple[str, FederationCreated]]:
    """Those over that runtime that have not ended, each with its tenant."""
    async with database.read_all() as connection:
        rows = await connection.fetch(_OPEN_OVER, runtime)
    return [(row["tenant"], FederationCreated.model_validate_json(row["created"])) for row in rows]


async def standing(database: Database, stream: str) -> Standing:
    async with database.read_all() as connection:
        row = await connection.fetchrow(_STANDING, stream)
    if row is None:
        raise NotFound(f"no exchange {stream}")
    return Standing(
        replaced=_replaced(row),
        is_ended=row["is_ended"],
        is_superseded=row["is_superseded"],
    )


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
    cls, seconds = _STARTED.get(row["type"]), row["grace_seconds"]
    as_created = created.federation_spec.spec.round_policy
    return Asked(
        created=created,
        started=None if cls is None else cls.model_validate_json(row["started"]),
        serving=_serving(row),
        grace=_grace(as_created) if seconds is None else timedelta(seconds=seconds),
        replaced=_replaced(row),
        context=Context(
            tenant=row["tenant"],
            correlation_id=row["federation_id"],
            causation_id=str(row["event_id"]),
            traceparent=row["traceparent"],
        ),
    )


def _serving(row: Row) -> ServerAppStarted | None:
    if row["type"] != ServerAppStarted.type:
        return None
    return ServerAppStarted.model_validate_json(row["started"])


def _replaced(row: Row) -> tuple[RoundMemberReplaced, ...]:
    return _REPLACED.validate_json(row["replaced"])


def _grace(policy: RoundPolicy) -> timedelta:
    budget = Budget.of(policy)
    return budget.close - budget.exchange
