"""Answers from the read models: of one tenant through row-level security, or of all of them."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from flowerbed.events.database import Connection, Database
from flowerbed.events.errors import NotFound
from flowerbed.gateway.cursors import encoded, moment, parsed
from flowerbed.gateway.lineage import lineage
from flowerbed.gateway.past import as_of
from flowerbed.gateway.rows import (
    FEDERATIONS,
    artifacts_of,
    federation_row,
    plain,
    ref,
    rounds_of,
    uri_of,
)
from flowerbed.gateway.views import (
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
    RoundDetail,
    Update,
)
from flowerbed.gateway.why.engine import waiting_for, why
from flowerbed.gateway.why.facts import Letter
from flowerbed.gateway.why.gathering import gather
from flowerbed.gateway.why.view import Why

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


FOLDED_AT_ONCE = 2
"""Folding a past takes a connection of its own and some work; the rest of a replica goes on."""


@dataclass(frozen=True, slots=True)
class Past:
    """A federation when its event at `position` had just been recorded."""

    tenant: str
    federation_id: str
    position: int
    at: datetime


class Reads:
    def __init__(
        self,
        database: Database,
        past: Past | None = None,
        folding: asyncio.Semaphore | None = None,
    ) -> None:
        self._database = database
        self._past = past
        self._folding = folding or asyncio.Semaphore(FOLDED_AT_ONCE)

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
        past = Past(row["tenant"], federation_id, position, row["at"])
        return Reads(self._database, past, self._folding)

    async def federations(
        self, tenant: str | None, *, status: str | None, name: str | None,
        cursor: str | None, limit: int,
    ) -> FederationList:  # fmt: skip
        at, federation_id = parsed(cursor, moment) if cursor else (None, None)
        async with self._reading(tenant) as connection:
            rows = await connection.fetch(_LIST, status, name, at, federation_id, limit + 1)
        found = [FederationSummary(**plain(row)) for row in rows[:limit]]
        last = found[-1] if len(rows) > limit else None
        following = encoded(last.created_at.isoformat(), last.federation_id) if last else None
        return FederationList(federations=found, next_cursor=following)

    async def federation(self, tenant: str | None, federation_id: str) -> Federation:
        async with self._reading(tenant) as connection:
            row = await federation_row(connection, federation_id)
            rounds = await rounds_of(connection, federation_id)
            clients = await connection.fetch(_MEMBERSHIPS, federation_id)
            artifacts = await artifacts_of(connection, "federation_id", federation_id)
            facts = await gather(connection, row)
        members = [Membership(**plain(client)) for client in clients]
        took_part = [
            one for one in members if one.status == "joined" or (row["ended_at"] and one.joined_at)
        ]
        evaluated = [a_round.evaluation for a_round in rounds if a_round.evaluation]
        return Federation(
            **row,
            n_clients=len(took_part),
            waiting_for=waiting_for(facts, self._now()),
            base=ref(row["base_sha256"], uri_of(artifacts, row["base_sha256"])),
            final=ref(row["final_sha256"], row["final_uri"]),
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
            row = await federation_row(connection, federation_id)
            facts = await gather(connection, row, with_errors=True)
        known = replace(facts, letters=tuple(letters), away=frozenset(away))
        return why(known, at if self._past is None else self._past.at)

    async def updates(
        self, tenant: str | None, federation_id: str, *, since_round: int
    ) -> list[Update]:
        """Each client's answers in the rounds from `since_round` on."""
        async with self._reading(tenant) as connection:
            rows = await connection.fetch(_UPDATES, federation_id, since_round)
        return [Update(**plain(row)) for row in rows]

    async def round(self, tenant: str | None, federation_id: str, number: int) -> RoundDetail:
        async with self._reading(tenant) as connection:
            await federation_row(connection, federation_id)
            rounds = await rounds_of(connection, federation_id)
            rows = await connection.fetch(
                "SELECT * FROM round_updates WHERE federation_id = $1 AND round_number = $2"
                " ORDER BY attempt, exchange DESC, place",
                federation_id,
                number,
            )
        attempts = [a_round for a_round in rounds if a_round.round_number == number]
        if not attempts:
            raise NotFound(f"federation {federation_id} has no round {number} yet")
        updates = [Update(**plain(row)) for row in rows]
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
                await federation_row(connection, federation_id)
        events = [HistoryEvent(**plain(row)) for row in rows]
        return History(events=events, next_after=events[-1].position if events else after)

    async def lineage(self, tenant: str | None, federation_id: str) -> Lineage:
        async with self._reading(tenant) as connection:
            await federation_row(connection, federation_id)
            artifacts = await artifacts_of(connection, "federation_id", federation_id)
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
            records = await artifacts_of(connection, "sha256", sha256)
        if not records:
            raise NotFound(f"no artifact {sha256} is recorded")
        return ArtifactRecords(sha256=sha256, records=records)

    async def clients(self, tenant: str | None, *, cursor: str | None, limit: int) -> ClientList:
        of, client_id = parsed(cursor, str) if cursor else (None, None)
        async with self._reading(tenant) as connection:
            rows = await connection.fetch(_CLIENTS, of, client_id, limit + 1)
        found = [Client(**plain(row)) for row in rows[:limit]]
        last = found[-1] if len(rows) > limit else None
        return ClientList(
            clients=found, next_cursor=encoded(last.tenant, last.client_id) if last else None
        )

    async def tenant_of_federation(self, tenant: str | None, federation_id: str) -> str:
        async with self._reading(tenant) as connection:
            found: str = (await federation_row(connection, federation_id))["tenant"]
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
        if (past := self._past) is not None:
            if tenant not in (None, past.tenant):
                raise NotFound(f"no federation {past.federation_id} is known")
            folded = as_of(self._database, past.tenant, past.federation_id, past.position)
            async with self._folding, folded as connection:
                yield connection
            return
        if tenant is None:
            opened = self._database.read_all()
        else:
            opened = self._database.transaction(tenant)
        async with opened as connection:
            yield connection

    def _now(self) -> datetime:
        return datetime.now(UTC) if self._past is None else self._past.at
