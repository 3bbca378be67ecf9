"""Apply plain SQL files, in order, each once.

0001 to 0099 are the library's (beside this module), 0101 and up a service's own. `:app` and
`:reader` in a file stand for the service's roles. Every file is a transaction of its own.

    NNNN_what.sql         before services of this release start: those of the release before go
                          on working beside it, so it adds and takes nothing away
    NNNN_what.after.sql   when every replica runs this release: what the older one needed goes
"""

import hashlib
import re
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal, TypeAlias

import asyncpg  # type: ignore[import-untyped]  # has no stubs

from flowerbed.events import release
from flowerbed.events.connection import Connection
from flowerbed.events.database import translated
from flowerbed.events.errors import FlowerbedError

MIGRATIONS = Path(__file__).parent / "migrations"

Step: TypeAlias = Literal["before", "after", "both"]

_ROLE = re.compile(r"(?<!:):(app|reader)\b")
_NAME = re.compile(r"\d{4}_[a-z0-9_]+(\.after)?\.sql")
_AFTER = ".after.sql"
_HAS_RELEASE = "0003_release.sql"
ATTEMPTS = 5


class MigrationChanged(FlowerbedError):
    """A file that was applied is no longer what it was."""


async def migrate(
    owner: str | Connection,
    service: str,
    directories: Sequence[Path] = (),
    *,
    step: Step = "both",
    only: Collection[str] | None = None,
) -> list[str]:
    """Bring the database up to date as its owner; the names of the files applied now.

    With `before`, only what the release before can live with; a new database gets everything.
    What comes `after` also lets the facts of this release be recorded. Repeating changes nothing.
    `only`: nothing but these files, for a database that is to be as it was on an earlier day.

    Raises:
        MigrationChanged: a file that was applied is no longer what it was.
        NewerRelease: a later release has been here.
    """
    with translated():
        async with _connected(owner) as connection:
            await connection.execute("SELECT pg_advisory_lock(hashtext('flowerbed.migrate'))")
            try:
                return await _apply_all(connection, service, files(directories, only), step)
            finally:
                if not connection.is_closed():
                    await connection.execute(
                        "SELECT pg_advisory_unlock(hashtext('flowerbed.migrate'))"
                    )


def files(directories: Sequence[Path], only: Collection[str] | None = None) -> list[Path]:
    """The library's and the service's migrations, by number; each before its own `after`."""
    found = [path for folder in (MIGRATIONS, *directories) for path in folder.glob("*.sql")]
    for path in found:
        if _NAME.fullmatch(path.name) is None:
            raise FlowerbedError(
                f"migration {path.name!r} is not named NNNN_what.sql or NNNN_what.after.sql"
            )
    if unknown := set(only or ()) - {path.name for path in found}:
        raise FlowerbedError(f"migration {min(unknown)} is not known here")
    wanted = [path for path in found if only is None or path.name in only]
    return sorted(wanted, key=lambda path: (path.name.partition(".")[0], is_after(path)))


def is_after(path: Path) -> bool:
    """True if it may only be applied when no service of the release before runs any more."""
    return path.name.endswith(_AFTER)


async def _apply_all(
    connection: Connection, service: str, paths: Sequence[Path], step: Step
) -> list[str]:
    await connection.execute(
        "CREATE TABLE IF NOT EXISTS schema_migrations ("
        " name text PRIMARY KEY, sha256 text NOT NULL,"
        " applied_at timestamptz NOT NULL DEFAULT now())"
    )
    await release.refuse_newer(connection)
    rows = await connection.fetch("SELECT name, sha256 FROM schema_migrations")
    applied = {row["name"]: row["sha256"] for row in rows}
    if not applied:
        step = "both"  # nobody has been here who could mind
    done = []
    for path in paths:
        text = path.read_text(encoding="utf-8")
        digest = hashlib.sha256(text.encode()).hexdigest()
        if path.name not in applied:
            if step == "before" and is_after(path):
                continue
            await _apply(connection, service, path.name, text, digest)
            done.append(path.name)
        elif applied[path.name] != digest:
            raise MigrationChanged(f"{path.name} was changed after it had been applied")
    if step != "before" and _HAS_RELEASE in (*applied, *done):
        await release.raise_to(connection)
    return done


async def _apply(connection: Connection, service: str, name: str, text: str, digest: str) -> None:
    """Services may work on the same tables meanwhile, and a deadlock may end this side."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return await _apply_once(connection, service, name, text, digest)
        except asyncpg.DeadlockDetectedError:
            if attempt == ATTEMPTS:
                raise


async def _apply_once(
    connection: Connection, service: str, name: str, text: str, digest: str
) -> None:
    async with connection.transaction():
        await connection.execute(_ROLE.sub(lambda match: f'"{service}_{match[1]}"', text))
        await connection.execute(
            "INSERT INTO schema_migrations (name, sha256) VALUES ($1, $2)", name, digest
        )


@asynccontextmanager
async def _connected(owner: str | Connection) -> AsyncIterator[Connection]:
    if not isinstance(owner, str):
        yield owner
        return
    connection: Connection = await asyncpg.connect(owner)
    try:
        yield connection
    finally:
        await connection.close()
