"""The audit trail: a row for each request that would change something, written before its answer
is sent. While Postgres is away rows wait here, and a line in the log says so.
"""

import asyncio
import logging
from collections import deque
from dataclasses import astuple, dataclass
from datetime import datetime

from flowerbed.events.database import Database
from flowerbed.events.errors import Unavailable
from flowerbed.events.outbox import NO_TENANT
from flowerbed.gateway.views import View

logger = logging.getLogger(__name__)

MOST_WAITING = 10_000
RETRY_SECONDS = 2.0
LONGEST_PATH = 512

_INSERT = """
INSERT INTO audit (at, actor, issuer, role, tenant, address, method, path, action, status, code,
    federation_id)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
"""

_NEWEST = """
SELECT * FROM audit
WHERE id < $1 AND ($2::text IS NULL OR actor = $2) AND ($3::text IS NULL OR federation_id = $3)
    AND ($4::int IS NULL OR status = $4) AND ($5::timestamptz IS NULL OR at >= $5)
    AND ($6::timestamptz IS NULL OR at < $6)
ORDER BY id DESC LIMIT $7
"""

LARGEST_ID = 2**63 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What is kept of a request: no body, no query, no secret."""

    at: datetime
    actor: str
    issuer: str
    role: str
    tenant: str
    address: str
    method: str
    path: str
    action: str
    status: int
    code: str
    federation_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which rows; what is None does not matter. `before`: only older ones."""

    before: int = LARGEST_ID
    actor: str | None = None
    federation_id: str | None = None
    status: int | None = None
    since: datetime | None = None
    until: datetime | None = None


class AuditRow(View):
    """`role`: that of the actor in the tenant. `action`: the route, or what GraphQL was asked to
    do. `code`: of the refusal, if it was one."""

    id: int
    at: datetime
    actor: str
    issuer: str
    role: str
    tenant: str
    address: str
    method: str
    path: str
    action: str
    status: int
    code: str
    federation_id: str | None


class Trail:
    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: deque[Entry] = deque(maxlen=MOST_WAITING)

    async def add(self, entry: Entry) -> None:
        """Write it; if that cannot be now, later."""
        try:
            await self._write(entry)
        except Unavailable as error:
            logger.warning(
                "audit: %s %s by %s answered %d waits to be written: %s",
                entry.method, entry.path, entry.actor or "nobody", entry.status, error,
            )  # fmt: skip
            self._waiting.append(entry)

    async def run(self) -> None:
        """For ever: write what had to wait."""
        while True:
            await asyncio.sleep(RETRY_SECONDS)
            while self._waiting:
                await self._write(self._waiting[0])
                self._waiting.popleft()

    async def page(self, tenant: str | None, wanted: Wanted, limit: int) -> list[AuditRow]:
        """Newest first: of one tenant, or of all, with those of none."""
        values = (*astuple(wanted), limit)
        if tenant is None:
            async with self._database.read_all() as connection:
                rows = await connection.fetch(_NEWEST, *values)
        else:
            async with self._database.transaction(tenant) as tx:
                rows = await tx.fetch(_NEWEST, *values)
        return [AuditRow(**dict(row)) for row in rows]

    async def _write(self, entry: Entry) -> None:
        async with self._database.transaction(entry.tenant or NO_TENANT) as tx:
            await tx.execute(_INSERT, *astuple(entry))


def storable(text: str, longest: int = LONGEST_PATH) -> str:
    """What Postgres can keep, on one line."""
    kept = "".join(letter if letter.isprintable() else "\ufffd" for letter in text[:longest])
    return kept.encode(errors="replace").decode()
