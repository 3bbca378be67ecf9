"""Answers from the read models: of one tenant through row-level security, or of all of them."""

import base64
import binascii
import json
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from flowerbed.events.database import Connection, Database
from flowerbed.events.errors import NotFound, Rejected
from flowerbed.gateway.lineage import lineage
from flowerbed.gateway.past import as_of
from flowerbed.gateway.paths import in_utc
from flowerbed.gateway.views import (
    Artifact,
    ArtifactRecords,
    Client,
    ClientList,
    Federation,
    FederationList,
    FederationSummary,
    Folded,
    History,
    HistoryEvent,
    Lineage,
    Membership,
    Ref,
    Round,
    RoundDetail,
    Update,
    UpdateCounts,
)
from flowerbed.gateway.why.engine import waiting_for, why
from flowerbed.gateway.why.facts import Letter
from flowerbed.gateway.why.gathering import gather
from flowerbed.gateway.why.view import Why

# A federation that was posted here is seen at once, and by its name even when it is rejected.
FEDERATIONS = """
SELECT f.tenant, f.federation_id, f.submission_id, f.status, f.round_number, f.n_rounds_completed,
    f.problems, f.code, f.reason, f.base_sha256, f.final_sha256, f.final_uri,
    f.join_deadline_at, f.pause_expires_at, f.created_at, f.started_at, f.ended_at, f.updated_at,
    coalesce(nullif(f.name, ''), s.name, '') AS name, coalesce(f.spec, s.spec) AS spec,
    CASE WHEN f.n_rounds = 0 THEN coalesce(s.n_rounds, 0) ELSE f.n_rounds END AS n_rounds
FROM federations f LEFT JOIN submissions s USING (tenant, federation_id)
UNION ALL
SELECT s.tenant, s.federation_id, s.submission_id, 'submitted', 0, 0,
    '[]', '', '', NULL, NULL, NULL,
    NULL, NULL, s.submitted_at, NULL, NULL, s.submitted_at,
    s.name, s.spec, s.n_rounds
FROM submissions s
WHERE NOT EXISTS (
    SELECT FROM federations f
    WHERE f.tenant = s.tenant AND f.federation_id = s.federation_id)
"""

_LIST = f"""
SELECT listed.*, (SELECT count(*) FROM memberships m
    WHERE m.tenant = listed.tenant AND m.federation_id = listed.federation_id
    AND (m.status = 'joined' OR listed.ended_at IS NOT NULL AND m.joined_at IS NOT NULL)
    ) AS n_clients
FROM (SELECT * FROM ({FEDERATIONS}) AS known
    WHERE ($1::text IS NULL OR status = $1) AND ($2::text IS NULL OR name = $2)
        AND ($3::timestamptz IS NULL OR (created_at, federation_id) < ($3, $4::text))
    ORDER BY created_at DESC, federation_id DESC LIMIT $5) AS listed
ORDER BY created_at DESC, federation_id DESC
"""

_CLIENTS = """
SELECT c.*, m.* FROM clients c, LATERAL (
    SELECT count(*) AS n_federations, count(*) FILTER (WHERE m.status = 'joined') AS n_joined,
        count(*) FILTER (WHERE m.status = 'dropped') AS n_dropped
    FROM memberships m WHERE m.tenant = c.tenant AND m.client_id = c.client_id) AS m
WHERE ($1::text IS NULL OR (c.tenant, c.client_id) > ($1, $2::text))
ORDER BY c.tenant, c.client_id LIMIT $3
"""

_MEMBERSHIPS = """
SELECT m.*, coalesce(c.tags, '{}') AS tags
FROM memberships m LEFT JOIN clients c USING (tenant, client_id)
WHERE m.federation_id = $1 ORDER BY m.joined_at NULLS LAST, m.client_id
"""

_HISTORY = """
SELECT gpos AS position, id::text, type, stream, version, recorded_at, data,
    meta ->> 'causation_id' AS causation_id, meta ->> 'actor' AS actor
FROM events WHERE meta ->> 'correlation_id' = $1 AND gpos > $2 ORDER BY gpos LIMIT $3
"""


_NEWEST = f"""
SELECT * FROM ({_HISTORY.replace("ORDER BY gpos LIMIT $3", "AND gpos < $4")}
    ORDER BY gpos DESC LIMIT $3) AS newest ORDER BY position
"""

_MOMENT = """
SELECT tenant, recorded_at AS at FROM events
WHERE meta ->> 'correlation_id' = $1 AND gpos <= $2 ORDER BY gpos DESC LIMIT 1
"""

_UPDATES = """
SELECT * FROM round_updates WHERE federation_id = $1 AND round_number >= $2
ORDER BY round_number, attempt, exchange DESC, place LIMIT 2000
"""


@dataclass(frozen=True, slots=True)
class Past:
    """A federation when its event at `position` had just been recorded."""

    tenant: str
    federation_id: str
    position: int
    at: datetime


class CursorUnreadable(Rejected):
    code = "cursor-unreadable"
    status = 400


class Reads:
    def __init__(self, database: Database, past: Past | None = None) -> None:
        self._database = database
        self._past = past

    async def at(self, tenant: str | None, federation_id: str, position: int | None) -> "Reads":
        """What was to be read of one federation when its event at `position` had just come;
        None: now.

        Raises:
            NotFound: the federation has no event up to there.
        """
        if position is None:
            return self
        async with self._reading(tenant) as connection:
            row = await connection.fetchrow(_MOMENT, federation_id, position)
        if row is None:
            raise NotFound(f"federation {federation_id} has no event up to position {position}")
        return Reads(self._database, Past(row["tenant"], federation_id, position, row["at"]))

    async def federations(
        self, tenant: str | None, *, status: str | None, name: str | None,
        cursor: str | None, limit: int,
    ) -> FederationList:  # fmt: skip
        at, federation_id = _cursor(cursor, _moment) if cursor else (None, None)
        async with self._reading(tenant) as connection:
            rows = await connection.fetch(_LIST, status, name, at, federation_id, limit + 1)
        found = [FederationSummary(**_plain(row)) for row in rows[:limit]]
        last = found[-1] if len(rows) > limit else None
        following = encoded(last.created_at.isoformat(), last.federation_id) if last else None
        return FederationList(federations=found, next_cursor=following)

    async def federation(self, tenant: str | None, federation_id: str) -> Federation:
        async with self._reading(tenant) as connection:
            row = await _federation(connection, federation_id)
            rounds = await _rounds(connection, federation_id)
            clients = await connection.fetch(_MEMBERSHIPS, federation_id)
            artifacts = await _artifacts(connection, "federation_id", federation_id)
            facts = await gather(connection, row)
        members = [Membership(**_plain(client)) for client in clients]
        took_part = [
            one for one in members if one.status == "joined" or (row["ended_at"] and one.joined_at)
        ]
        evaluated = [a_round.evaluation for a_round in rounds if a_round.evaluation]
        return Federation(
            **row,
            n_clients=len(took_part),
            waiting_for=waiting_for(facts, self._now()),
            base=_ref(row["base_sha256"], _uri_of(artifacts, row["base_sha256"])),
            final=_ref(row["final_sha256"], row["final_uri"]),
            metrics=evaluated[-1] if evaluated else {},
            rounds=rounds,
            clients=members,
            artifacts=artifacts,
        )

    async def why(
        self, tenant: str | None, federation_id: str, at: datetime,
        letters: Sequence[Letter], away: Iterable[str],
    ) -> Why:  # fmt: skip
        """`letters` and `away`: what the services said of themselves, or that they did not."""
        async with self._reading(tenant) as connection:
            row = await _federation(connection, federation_id)
            facts = await gather(connection, row, with_errors=True)
        known = replace(facts, letters=tuple(letters), away=frozenset(away))
        return why(known, at if self._past is None else self._past.at)

    async def updates(
        self, tenant: str | None, federation_id: str, *, since_round: int
    ) -> list[Update]:
        """Each client's answers in the rounds from `since_round` on."""
        async with self._reading(tenant) as connection:
            rows = await connection.fetch(_UPDATES, federation_id, since_round)
        return [Update(**_plain(row)) for row in rows]

    async def round(self, tenant: str | None, federation_id: str, number: int) -> RoundDetail:
        async with self._reading(tenant) as connection:
            await _federation(connection, federation_id)
            rounds = await _rounds(connection, federation_id)
            rows = await connection.fetch(
                "SELECT * FROM round_updates WHERE federation_id = $1 AND round_number = $2"
                " ORDER BY attempt, exchange DESC, place",
                federation_id,
                number,
            )
        attempts = [a_round for a_round in rounds if a_round.round_number == number]
        if not attempts:
            raise NotFound(f"federation {federation_id} has no round {number} yet")
        updates = [Update(**_plain(row)) for row in rows]
        return RoundDetail(federation_id=federation_id, attempts=attempts, updates=updates)

    async def history(
        self, tenant: str | None, federation_id: str, *, after: int, limit: int,
        before: int | None = None,
    ) -> History:  # fmt: skip
        """The oldest behind `after`; with `before`, the newest before it instead."""
        async with self._reading(tenant) as connection:
            if before is None:
                rows = await connection.fetch(_HISTORY, federation_id, after, limit)
            else:
                rows = await connection.fetch(_NEWEST, federation_id, after, limit, before)
            if not rows:
                await _federation(connection, federation_id)
        events = [HistoryEvent(**_plain(row)) for row in rows]
        return History(events=events, next_after=events[-1].position if events else after)

    async def lineage(self, tenant: str | None, federation_id: str) -> Lineage:
        async with self._reading(tenant) as connection:
            await _federation(connection, federation_id)
            artifacts = await _artifacts(connection, "federation_id", federation_id)
            rows = await connection.fetch(
                "SELECT round_number, attempt, folded FROM rounds WHERE federation_id = $1",
                federation_id,
            )
        folded = {
            (row["round_number"], row["attempt"]): [
                Folded(**update) for update in json.loads(row["folded"])
            ]
            for row in rows
        }
        return lineage(federation_id, artifacts, folded)

    async def artifact(self, tenant: str | None, sha256: str) -> ArtifactRecords:
        async with self._reading(tenant) as connection:
            records = await _artifacts(connection, "sha256", sha256)
        if not records:
            raise NotFound(f"no artifact {sha256} is recorded")
        return ArtifactRecords(sha256=sha256, records=records)

    async def clients(self, tenant: str | None, *, cursor: str | None, limit: int) -> ClientList:
        of, client_id = _cursor(cursor, str) if cursor else (None, None)
        async with self._reading(tenant) as connection:
            rows = await connection.fetch(_CLIENTS, of, client_id, limit + 1)
        found = [Client(**_plain(row)) for row in rows[:limit]]
        last = found[-1] if len(rows) > limit else None
        return ClientList(
            clients=found, next_cursor=encoded(last.tenant, last.client_id) if last else None
        )

    async def tenant_of_federation(self, tenant: str | None, federation_id: str) -> str:
        async with self._reading(tenant) as connection:
            found: str = (await _federation(connection, federation_id))["tenant"]
        return found

    async def tenant_of_client(self, tenant: str | None, client_id: str) -> str:
        async with self._reading(tenant) as connection:
            found: str | None = await connection.fetchval(
                "SELECT tenant FROM clients WHERE client_id = $1", client_id
            )
        if found is None:
            raise NotFound(f"no client {client_id} is known")
        return found

    @asynccontextmanager
    async def _reading(self, tenant: str | None) -> AsyncIterator[Connection]:
        """Of one tenant: what its own role may see. Of all: the reader's role, which only reads."""
        if self._past is not None:
            past = self._past
            if tenant not in (None, past.tenant):
                raise NotFound(f"no federation {past.federation_id} is known")
            opened = as_of(self._database, past.tenant, past.federation_id, past.position)
        elif tenant is None:
            opened = self._database.read_all()
        else:
            opened = self._database.transaction(tenant)
        async with opened as connection:
            yield connection

    def _now(self) -> datetime:
        return datetime.now(UTC) if self._past is None else self._past.at


# --- rows -------------------------------------------------------------------

_JSON = frozenset({"spec", "problems", "training", "evaluation", "metrics", "data", "folded"})


def _plain(row: Any) -> dict[str, Any]:
    return {
        name: json.loads(value) if name in _JSON and value is not None else value
        for name, value in row.items()
    }


async def _federation(connection: Connection, federation_id: str) -> dict[str, Any]:
    row = await connection.fetchrow(
        f"SELECT * FROM ({FEDERATIONS}) AS known WHERE federation_id = $1", federation_id
    )
    if row is None:
        raise NotFound(
            f"no federation {federation_id} is known;"
            " one that was published on NATS shows up when the orchestrator has taken it"
        )
    return _plain(row)


async def _rounds(connection: Connection, federation_id: str) -> list[Round]:
    rows = await connection.fetch(
        "SELECT *, extract(epoch FROM finished_at - started_at)::float8 AS total_seconds"
        " FROM rounds WHERE federation_id = $1 ORDER BY round_number, attempt",
        federation_id,
    )
    counted = await connection.fetch(
        "SELECT round_number, attempt, exchange, json_object_agg(status, n)::text AS counts"
        " FROM (SELECT round_number, attempt, exchange, status, count(*) AS n"
        " FROM round_updates WHERE federation_id = $1"
        " GROUP BY round_number, attempt, exchange, status) AS counted"
        " GROUP BY round_number, attempt, exchange",
        federation_id,
    )
    counts = {
        (row["round_number"], row["attempt"], row["exchange"]): UpdateCounts.model_validate_json(
            row["counts"]
        )
        for row in counted
    }
    none = UpdateCounts()
    return [
        Round(
            **_plain(row),
            train_updates=counts.get((row["round_number"], row["attempt"], "train"), none),
            evaluate_updates=counts.get((row["round_number"], row["attempt"], "evaluate"), none),
        )
        for row in rows
    ]


async def _artifacts(connection: Connection, column: str, value: str) -> list[Artifact]:
    rows = await connection.fetch(
        f"SELECT * FROM artifacts WHERE {column} = $1"
        " ORDER BY recorded_at, round_number, attempt, kind",
        value,
    )
    return [Artifact(**_plain(row)) for row in rows]


def _uri_of(artifacts: list[Artifact], sha256: str | None) -> str | None:
    return next((artifact.uri for artifact in artifacts if artifact.sha256 == sha256), None)


def _ref(sha256: str | None, uri: str | None) -> Ref | None:
    return None if sha256 is None else Ref(sha256=sha256, uri=uri)


# --- cursors ----------------------------------------------------------------


def _moment(text: str) -> datetime:
    return in_utc(datetime.fromisoformat(text))


def encoded(*parts: str) -> str:
    return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode().rstrip("=")


def _cursor(text: str, first: Any) -> tuple[Any, str]:
    try:
        head, last = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        if b"\0" in f"{head}{last}".encode():  # half a surrogate pair fails here already
            raise ValueError("Postgres cannot look for that")
        return first(head), str(last)
    except (ValueError, TypeError, binascii.Error) as error:
        raise CursorUnreadable(f"cursor {text[:80]!r} was not given out here") from error
