"""What belongs to many parents at once: one statement a kind, however many parents there are.

GraphQL asks "the first 20 rounds of each of these 50 federations". A listing says where such rows
are and in which order; its cursor is the place of a row in that order.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeAlias, TypeVar

from flowerbed.events.database import Connection, Database
from flowerbed.events.errors import Rejected
from flowerbed.gateway.feed import FeedEvent
from flowerbed.gateway.lineage import lineage
from flowerbed.gateway.places import decoded_place, encoded_place
from flowerbed.gateway.rows import FEDERATIONS, UPDATE_BYTES
from flowerbed.gateway.views import (
    Artifact,
    FederationSummary,
    Folded,
    Lineage,
    Membership,
    Round,
    Update,
    View,
)

V = TypeVar("V", bound=View)
Parent: TypeAlias = tuple[Any, ...]
"""The values that lead to a parent; the tenant is the first of them."""
FederationKey: TypeAlias = tuple[str, str]

MOST_ROWS = 25_000
"""In one answer of one kind, if every page of it were full."""


class TooMuch(Rejected):
    code = "too-much-at-once"
    status = 422


class FederationRow(FederationSummary):
    """What stands in the federation's own row."""

    spec: dict[str, Any] | None
    problems: list[dict[str, str]]
    join_deadline_at: Any
    pause_expires_at: Any
    base_sha256: str | None
    final_sha256: str | None
    final_uri: str | None


class RoundRow(Round):
    """With what leads to its updates."""

    tenant: str
    federation_id: str


@dataclass(frozen=True, slots=True)
class Listing(Generic[V]):
    """`parents`, `order`: columns and their types. `filters`: columns that may be asked for."""

    name: str
    view: type[V]
    table: str
    columns: str
    order: tuple[tuple[str, str], ...]
    filters: tuple[str, ...] = ()
    parents: tuple[tuple[str, str], ...] = (("tenant", "text"), ("federation_id", "text"))

    @property
    def statement(self) -> str:
        names = ", ".join(name for name, _ in self.parents)
        given = ", ".join(f"${n}::{kind}[]" for n, (_, kind) in enumerate(self.parents, start=1))
        n = len(self.parents)
        of_parent = " AND ".join(f"x.{name} = wanted.{name}" for name, _ in self.parents)
        order = ", ".join(f"x.{name}" for name, _ in self.order)
        behind = ", ".join(
            f"(${n + 1}::jsonb ->> {place})::{kind}" for place, (_, kind) in enumerate(self.order)
        )
        meant = "".join(
            f" AND (${n + 2}::jsonb -> '{name}' IS NULL"
            f" OR ${n + 2}::jsonb -> '{name}' ? x.{name}::text)"
            for name in self.filters
        )
        return f"""
            SELECT wanted.which, found.*
            FROM unnest({given}) WITH ORDINALITY AS wanted ({names}, which)
            CROSS JOIN LATERAL (
                SELECT {self.columns}, json_build_array({order})::text AS place_in_order
                FROM {self.table} AS x
                WHERE {of_parent} AND (${n + 1}::jsonb IS NULL OR ({order}) > ({behind})){meant}
                ORDER BY {order} LIMIT ${n + 3}
            ) AS found
        """  # names of ours alone


@dataclass(frozen=True, slots=True)
class Wanted:
    """A page of what belongs to a parent. `matching`: a column and the values that are meant."""

    first: int
    after: str | None = None
    matching: tuple[tuple[str, tuple[str, ...]], ...] = ()


@dataclass(frozen=True, slots=True)
class Page(Generic[V]):
    """Each row with its cursor; `more` lie behind the last."""

    rows: list[tuple[str, V]] = field(default_factory=list)
    more: bool = False


_COUNTS = """
(SELECT coalesce(json_object_agg(status, n), '{{}}')::text FROM (
    SELECT u.status, count(*) AS n FROM round_updates u
    WHERE u.federation_id = x.federation_id AND u.tenant = x.tenant
        AND u.round_number = x.round_number AND u.attempt = x.attempt AND u.exchange = '{exchange}'
    GROUP BY u.status) AS counted) AS {exchange}_updates
"""
_BY_ROUND = (("round_number", "int"), ("attempt", "int"))

ROUNDS = Listing(
    "rounds",
    RoundRow,
    "rounds",
    "x.*, extract(epoch FROM x.finished_at - x.started_at)::float8 AS total_seconds,"
    + ", ".join(_COUNTS.format(exchange=exchange) for exchange in ("train", "evaluate"))
    + f", {UPDATE_BYTES}",
    _BY_ROUND,
    ("status", "round_number"),
)
UPDATES = Listing(
    "updates",
    Update,
    "round_updates",
    "x.*",
    (("exchange", "text"), ("client_id", "text")),
    ("exchange", "status", "client_id"),
    (("tenant", "text"), ("federation_id", "text"), *_BY_ROUND),
)
MEMBERSHIPS = Listing(
    "memberships",
    Membership,
    "memberships",
    "x.*, (SELECT coalesce(max(c.tags), '{}') FROM clients c"
    " WHERE c.tenant = x.tenant AND c.client_id = x.client_id) AS tags",
    (("client_id", "text"),),
    ("status",),
)
ARTIFACTS = Listing(
    "artifacts",
    Artifact,
    "artifacts",
    "x.*",
    (*_BY_ROUND, ("exchange", "text"), ("kind", "text")),
    ("kind",),
)
EVENTS = Listing(
    "events",
    FeedEvent,
    "(SELECT *, meta ->> 'correlation_id' AS federation_id FROM events)",
    "x.gpos AS position, x.id::text, x.type, x.stream, x.version, x.recorded_at, x.data, x.tenant,"
    " x.federation_id, x.meta ->> 'causation_id' AS causation_id, x.meta ->> 'actor' AS actor,"
    " x.meta ->> 'traceparent' AS traceparent",
    (("gpos", "bigint"),),
    ("type",),
)

_ROWS = f"""
SELECT known.* FROM ({FEDERATIONS}) AS known
JOIN unnest($1::text[], $2::text[]) AS wanted (tenant, federation_id)
USING (tenant, federation_id)
"""
_METRICS = """
SELECT DISTINCT ON (tenant, federation_id) tenant, federation_id, evaluation
FROM rounds JOIN unnest($1::text[], $2::text[]) AS wanted (tenant, federation_id)
USING (tenant, federation_id)
WHERE evaluation::text <> '{}' ORDER BY tenant, federation_id, round_number DESC, attempt DESC
"""
_FOLDED = """
SELECT tenant, federation_id, round_number, attempt, folded
FROM rounds JOIN unnest($1::text[], $2::text[]) AS wanted (tenant, federation_id)
USING (tenant, federation_id)
"""


class Many:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def pages(
        self, listing: Listing[V], parents: Sequence[Parent], wanted: Wanted
    ) -> list[Page[V]]:
        """The same page of each parent, in the order of `parents`.

        Raises:
            CursorUnreadable: `after` is no place in this listing.
            TooMuch: so many full pages would be more than is answered at once.
        """
        if (n_rows := len(parents) * wanted.first) > MOST_ROWS:
            raise TooMuch(
                f"{len(parents)} times {wanted.first} {listing.name} are {n_rows}, and {MOST_ROWS}"
                " are answered at once; ask for a smaller `first`"
            )
        behind = decoded_place(wanted.after, listing.order)
        columns = [[parent[n] for parent in parents] for n in range(len(listing.parents))]
        matching = json.dumps({name: list(values) for name, values in wanted.matching})
        rows = await self._fetch(
            parents, listing.statement, *columns, behind, matching, wanted.first + 1
        )
        found: list[list[tuple[str, V]]] = [[] for _ in parents]
        for row in rows:
            cursor = encoded_place(row["place_in_order"])
            found[row["which"] - 1].append((cursor, listing.view(**plain(row))))
        return [Page(rows[: wanted.first], len(rows) > wanted.first) for rows in found]

    async def federations(self, keys: Sequence[FederationKey]) -> list[FederationRow | None]:
        rows = await self._fetch(keys, _ROWS, *_columns(keys))
        known = {_key(row): FederationRow(**plain(row)) for row in rows}
        return [known.get(key) for key in keys]

    async def metrics(self, keys: Sequence[FederationKey]) -> list[dict[str, float]]:
        """Of each one's newest evaluated checkpoint."""
        rows = await self._fetch(keys, _METRICS, *_columns(keys))
        known = {_key(row): json.loads(row["evaluation"]) for row in rows}
        return [known.get(key, {}) for key in keys]

    async def lineages(self, keys: Sequence[FederationKey]) -> list[Lineage]:
        made = await self.pages(ARTIFACTS, keys, Wanted(MOST_ROWS // len(keys)))
        folded: dict[FederationKey, dict[tuple[int, int], list[Folded]]] = {}
        for row in await self._fetch(keys, _FOLDED, *_columns(keys)):
            updates = [Folded(**update) for update in json.loads(row["folded"])]
            folded.setdefault(_key(row), {})[row["round_number"], row["attempt"]] = updates
        return [
            lineage(key[1], [artifact for _, artifact in page.rows], folded.get(key, {}))
            for key, page in zip(keys, made, strict=True)
        ]

    async def _fetch(
        self, parents: Sequence[Parent], statement: str, *values: Any
    ) -> Sequence[Any]:
        """Of one tenant through its row-level security; of several as the role that only reads."""
        tenants = {parent[0] for parent in parents}
        opened = (
            self._database.transaction(tenants.pop())
            if len(tenants) == 1
            else self._database.read_all()
        )
        async with opened as connection:
            return await _rows(connection, statement, values)


async def _rows(connection: Connection, statement: str, values: Sequence[Any]) -> Sequence[Any]:
    found: Sequence[Any] = await connection.fetch(statement, *values)
    return found


def _columns(keys: Sequence[FederationKey]) -> tuple[list[str], list[str]]:
    return [tenant for tenant, _ in keys], [federation for _, federation in keys]


def _key(row: Any) -> FederationKey:
    return row["tenant"], row["federation_id"]


_JSON = frozenset(
    (
        "spec", "problems", "training", "evaluation", "metrics", "data", "train_updates",
        "evaluate_updates", "update_bytes",
    )
)  # fmt: skip


def plain(row: Any) -> dict[str, Any]:
    return {
        name: json.loads(value) if name in _JSON and isinstance(value, str) else value
        for name, value in row.items()
    }
