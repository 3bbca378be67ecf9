"""Which release's facts may be recorded: a number in each service's database.

While services of two releases run side by side, only what both understand is recorded. The
number is raised when every replica runs the newer release, and never falls.
"""

from flowerbed.events.connection import Connection
from flowerbed.events.errors import FlowerbedError, Rejected

FIRST = 1
"""Of releases that did not write their number down."""

RELEASE = 2
"""Of this code."""


class NewerRelease(FlowerbedError):
    """The database belongs to a release that this code does not know."""


class UpgradeUnfinished(Rejected):
    """A replica of the release before would not understand what is asked for."""

    code = "upgrade-unfinished"

    def __init__(self) -> None:
        super().__init__("finish the upgrade first: an older replica still runs")


async def current(tx: Connection) -> int:
    """The release whose facts may be recorded in this database; one small read."""
    return int(await tx.fetchval("SELECT coalesce(max(number), $1) FROM release", FIRST))


async def reached(tx: Connection) -> bool:
    """True once no replica of an older release reads what is recorded here."""
    return await current(tx) >= RELEASE


async def raise_to(owner: Connection, number: int = RELEASE) -> None:
    """Let the facts of `number` be recorded; the owner's role alone may."""
    await owner.execute(
        "INSERT INTO release AS known (number) VALUES ($1)"
        " ON CONFLICT (is_one) DO UPDATE SET number = EXCLUDED.number, raised_at = now()"
        " WHERE known.number < EXCLUDED.number",
        number,
    )


async def refuse_newer(owner: Connection) -> None:
    """Before anything is changed.

    Raises:
        NewerRelease: a later release has been here, and its facts may have been recorded.
    """
    if await owner.fetchval("SELECT to_regclass('public.release')") is None:
        return
    if (found := await current(owner)) > RELEASE:
        raise NewerRelease(f"the database is of release {found}, this is release {RELEASE}")
