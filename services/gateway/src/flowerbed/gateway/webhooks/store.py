"""The webhooks' table: who is called, how far each has come, what went wrong last.

A row's `revision` rises when a person changes it, so that what was under way for the row as it was
moves no cursor any more.
"""

import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from flowerbed.events.database import Connection, Database
from flowerbed.events.errors import NotFound, Rejected
from flowerbed.gateway.feed import Filter
from flowerbed.gateway.webhooks.signing import new_secret
from flowerbed.gateway.webhooks.targets import checked_url
from flowerbed.gateway.webhooks.view import (
    EVERY_TENANT,
    Webhook,
    WebhookCreated,
    WebhookRequest,
)

MOST = 200
"""Of one tenant. Each is a connection that may be open all the time."""
COUNTED = 1000

_ROWS = f"""
SELECT w.*, (
    SELECT count(*) FROM (
        SELECT FROM events e WHERE e.gpos > w.position
            AND (w.tenant = '{EVERY_TENANT}' OR e.tenant = w.tenant)
            AND (w.federation_id IS NULL OR e.meta ->> 'correlation_id' = w.federation_id)
            AND (w.types IS NULL OR e.type = ANY (w.types))
        LIMIT {COUNTED}) AS behind) AS lag
FROM webhooks w
WHERE ($1::text IS NULL OR w.tenant = $1) AND ($2::text IS NULL OR w.webhook_id = $2)
ORDER BY w.created_at, w.webhook_id
"""
_LAG = f"SELECT coalesce(sum(lag), 0)::float8 FROM ({_ROWS}) AS w WHERE status = 'active'"
_INSERT = """
INSERT INTO webhooks (tenant, webhook_id, url, secret, federation_id, types, position, created_by)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
"""
_WELL = "n_failures = 0, failing_since = NULL, last_error = '', next_attempt_at = NULL, reason = ''"
_DELIVERED = f"""
UPDATE webhooks SET position = $3, delivered_at = clock_timestamp(), {_WELL}
WHERE webhook_id = $1 AND revision = $2 AND position < $3
"""
_PASSED = """
UPDATE webhooks SET position = $3 WHERE webhook_id = $1 AND revision = $2 AND position < $3
"""
_FAILED = """
UPDATE webhooks SET n_failures = n_failures + 1, last_error = $3, next_attempt_at = $4,
    failing_since = coalesce(failing_since, clock_timestamp())
WHERE webhook_id = $1 AND revision = $2
"""
_DISABLED = """
UPDATE webhooks SET status = 'disabled', reason = $3, next_attempt_at = NULL,
    revision = revision + 1
WHERE webhook_id = $1 AND revision = $2
"""


class TooManyWebhooks(Rejected):
    code = "too-many-webhooks"


@dataclass(frozen=True, slots=True, kw_only=True)
class Active:
    """A webhook to work for, as it is now."""

    tenant: str
    webhook_id: str
    revision: int
    url: str
    secret: str
    wanted: Filter
    position: int
    n_failures: int
    failing_since: datetime | None
    next_attempt_at: datetime | None

    @property
    def key(self) -> tuple[str, int]:
        return self.webhook_id, self.revision


class Webhooks:
    def __init__(self, database: Database) -> None:
        self._database = database

    # --- for people -------------------------------------------------------------------------

    async def create(
        self, asked: WebhookRequest, owner: str, *, after: int, by: str
    ) -> WebhookCreated:
        """`owner`: the tenant whose webhook it will be, or all of them.

        Raises:
            Rejected: its url is not called, or the owner has too many.
        """
        url, secret = checked_url(asked.url), new_secret()
        identity = f"wh-{secrets.token_hex(8)}"
        types = None if asked.types is None else sorted(set(asked.types))
        async with self._database.transaction(owner) as tx:
            await tx.execute("SELECT pg_advisory_xact_lock(hashtext('flowerbed.webhooks'))")
            if await tx.fetchval("SELECT count(*) FROM webhooks") >= MOST:
                raise TooManyWebhooks(f"there are {MOST} webhooks; delete one first")
            await tx.execute(
                _INSERT, owner, identity, url, secret, asked.federation_id, types, after, by
            )
        made = await self.one(None, identity)
        return WebhookCreated(secret=secret, **made.model_dump())

    async def all(self, tenant: str | None) -> list[Webhook]:
        async with self._reading(tenant) as connection:
            rows = await connection.fetch(_ROWS, tenant, None)
        return [Webhook(**_plain(row)) for row in rows]

    async def one(self, tenant: str | None, identity: str) -> Webhook:
        async with self._reading(tenant) as connection:
            rows = await connection.fetch(_ROWS, tenant, identity)
        if not rows:
            raise NotFound(f"no webhook {identity[:80]} is known")
        return Webhook(**_plain(rows[0]))

    async def delete(self, tenant: str | None, identity: str) -> None:
        await self._change(tenant, identity, "DELETE FROM webhooks WHERE webhook_id = $1")

    async def replay(self, tenant: str | None, identity: str, after: int) -> None:
        """Go on behind `after`, wherever it was; one that was disabled is active again."""
        await self._change(
            tenant,
            identity,
            "UPDATE webhooks SET status = 'active', position = $2, revision = revision + 1,"
            f" {_WELL} WHERE webhook_id = $1",
            after,
        )

    async def pause(self, tenant: str | None, identity: str) -> None:
        await self._change(
            tenant,
            identity,
            "UPDATE webhooks SET status = 'paused', revision = revision + 1"
            " WHERE webhook_id = $1 AND status <> 'paused'",
        )

    async def resume(self, tenant: str | None, identity: str) -> None:
        """Go on where it was: at once, whatever had been waited for."""
        await self._change(
            tenant,
            identity,
            f"UPDATE webhooks SET status = 'active', revision = revision + 1, {_WELL}"
            " WHERE webhook_id = $1",
        )

    # --- for the one that delivers ----------------------------------------------------------

    async def active(self) -> list[Active]:
        async with self._database.read_all() as connection:
            rows = await connection.fetch("SELECT * FROM webhooks WHERE status = 'active'")
        return [_active(row) for row in rows]

    async def lag(self) -> float:
        """How many events the active ones have still to deliver, as far as that is counted."""
        async with self._database.read_all() as connection:
            return float(await connection.fetchval(_LAG, None, None))

    async def delivered(self, hook: Active, position: int) -> bool:
        """False: a person has changed it meanwhile."""
        return await self._note(hook, _DELIVERED, position)

    async def passed(self, hook: Active, position: int) -> bool:
        """Up to there is nothing more that is meant."""
        return await self._note(hook, _PASSED, position)

    async def failed(self, hook: Active, error: str, next_attempt_at: datetime) -> bool:
        return await self._note(hook, _FAILED, error, next_attempt_at)

    async def disable(self, hook: Active, reason: str) -> None:
        await self._note(hook, _DISABLED, reason)

    async def _note(self, hook: Active, statement: str, *values: Any) -> bool:
        async with self._database.transaction(hook.tenant) as tx:
            done = await tx.execute(statement, hook.webhook_id, hook.revision, *values)
        return bool(done == "UPDATE 1")

    async def _change(
        self, tenant: str | None, identity: str, statement: str, *values: Any
    ) -> None:
        owner = (await self.one(tenant, identity)).tenant or EVERY_TENANT
        async with self._database.transaction(owner) as tx:
            await tx.execute(statement, identity, *values)

    @asynccontextmanager
    async def _reading(self, tenant: str | None) -> AsyncIterator[Connection]:
        opened = self._database.read_all() if tenant is None else self._database.transaction(tenant)
        async with opened as connection:
            yield connection


def _plain(row: Any) -> dict[str, Any]:
    found = dict(row)
    found.pop("secret")
    return found | {"tenant": None if row["tenant"] == EVERY_TENANT else row["tenant"]}


def _active(row: Any) -> Active:
    types: Sequence[str] | None = row["types"]
    return Active(
        tenant=row["tenant"],
        webhook_id=row["webhook_id"],
        revision=row["revision"],
        url=row["url"],
        secret=row["secret"],
        wanted=Filter(
            tenant=None if row["tenant"] == EVERY_TENANT else row["tenant"],
            federation_id=row["federation_id"],
            types=None if types is None else frozenset(types),
        ),
        position=row["position"],
        n_failures=row["n_failures"],
        failing_since=row["failing_since"],
        next_attempt_at=row["next_attempt_at"],
    )
