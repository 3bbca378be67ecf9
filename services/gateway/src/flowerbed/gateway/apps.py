"""Flower apps of people's own: what was pushed, and whether a spec may name it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime

from flowerbed.contracts.apps import PUSHED, is_pushed
from flowerbed.contracts.spec import FederationSpec
from flowerbed.contracts.values import Sha256
from flowerbed.events.connection import Connection
from flowerbed.events.database import Database
from flowerbed.events.errors import NotFound, Unavailable
from flowerbed.gateway.cursors import encoded, moment, parsed
from flowerbed.gateway.upstream import Upstream
from flowerbed.gateway.views import View

_LIST = """
SELECT * FROM apps WHERE ($1::timestamptz IS NULL OR (pushed_at, sha256) < ($1, $2::text))
ORDER BY pushed_at DESC, sha256 DESC LIMIT $3
"""


class App(View):
    """`app`: what `spec.app` says to name it. `name`, `version`, `publisher`: as it says itself."""

    app: str
    sha256: Sha256
    tenant: str
    name: str
    version: str
    publisher: str
    size: int
    uri: str
    pushed_by: str
    pushed_at: datetime


class AppList(View):
    apps: list[App]
    next_cursor: str | None = None


class Apps:
    def __init__(self, database: Database, artifact: Upstream) -> None:
        self._database = database
        self._artifact = artifact

    async def listed(self, tenant: str | None, *, cursor: str | None, limit: int) -> AppList:
        at, sha256 = parsed(cursor, moment) if cursor else (None, None)
        async with self._reading(tenant) as connection:
            rows = await connection.fetch(_LIST, at, sha256, limit + 1)
        found = [App(app=f"{PUSHED}{row['sha256']}", **dict(row)) for row in rows[:limit]]
        last = found[-1] if len(rows) > limit else None
        following = encoded(last.pushed_at.isoformat(), last.sha256) if last else None
        return AppList(apps=found, next_cursor=following)

    async def shown(self, tenant: str | None, sha256: Sha256) -> AppList:
        """In each tenant that is to be seen.

        Raises:
            NotFound: in none.
        """
        async with self._reading(tenant) as connection:
            rows = await connection.fetch(
                "SELECT * FROM apps WHERE sha256 = $1 ORDER BY pushed_at, tenant", sha256
            )
        if not rows:
            raise NotFound(f"no app {PUSHED}{sha256} is known")
        return AppList(apps=[App(app=f"{PUSHED}{sha256}", **dict(row)) for row in rows])

    async def has(self, spec: FederationSpec) -> bool:
        """Whether the spec's app ships with this version, or was pushed in the spec's tenant.

        Its owner is asked: what was pushed this moment need not be in our own tables yet.

        Raises:
            Unavailable: the artifact service does not answer.
        """
        if not is_pushed(spec.spec.app):
            return True
        path = f"/internal/apps/{spec.spec.code_hash}"
        answer = await self._artifact.forward("GET", path, params={"tenant": spec.metadata.tenant})
        if answer.status_code not in (200, 404):
            raise Unavailable(f"the artifact service answered {answer.status_code}")
        return answer.status_code == 200

    @asynccontextmanager
    async def _reading(self, tenant: str | None) -> AsyncIterator[Connection]:
        if tenant is None:
            opened = self._database.read_all()
        else:
            opened = self._database.transaction(tenant)
        async with opened as connection:
            yield connection
