"""What a ServerApp writes: its newest lines. Best effort; nothing waits for it."""

import asyncio
import logging
import re
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime

from pydantic import BaseModel

from flowerbed.contracts.door import LONGEST_LOG_LINE, LogLine
from flowerbed.events.database import Database
from flowerbed.events.errors import Unavailable

logger = logging.getLogger(__name__)

LINES_KEPT = 2_000
SHIP_SECONDS = 0.5
PAGE = 500
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(slots=True)
class ServerLines:
    database: Database
    tenant: str
    federation_id: str
    _waiting: deque[LogLine] = field(default_factory=lambda: deque(maxlen=LINES_KEPT))

    def take(self, line: str) -> None:
        self.say(line)

    def say(self, line: str, *, is_ours: bool = False) -> None:
        """`is_ours`: it is about the app, not by it."""
        line = _COLOURS.sub("", line)
        if not line.strip():
            return
        self._waiting.append(
            LogLine(
                number=1,
                at=datetime.now(UTC),
                kind="left-out" if is_ours else "line",
                text=line[:LONGEST_LOG_LINE],
            )
        )

    async def ship(self) -> None:
        """For ever."""
        while True:
            await asyncio.sleep(SHIP_SECONDS)
            try:
                await self.flush()
            except Unavailable as error:
                logger.info("lines of %s wait: %s", self.federation_id, error)

    async def flush(self) -> None:
        lines = list(self._waiting)
        if not lines:
            return
        async with self.database.transaction(self.tenant) as tx:
            await tx.executemany(
                "INSERT INTO server_lines (tenant, federation_id, at, kind, text)"
                " VALUES ($1, $2, $3, $4, $5)",
                [(self.tenant, self.federation_id, one.at, one.kind, one.text) for one in lines],
            )
            await tx.execute(
                "DELETE FROM server_lines WHERE federation_id = $1 AND position <= (SELECT position"
                " FROM server_lines WHERE federation_id = $1"
                " ORDER BY position DESC OFFSET $2 LIMIT 1)",
                self.federation_id,
                LINES_KEPT,
            )
        for _ in lines:
            self._waiting.popleft()


class ServerLine(BaseModel):
    position: int
    at: datetime
    kind: str
    text: str


class ServerLogs(BaseModel):
    """Ask again with `after=next_after`; nothing more comes once it is not `is_open`."""

    federation_id: str
    lines: list[ServerLine]
    next_after: int
    is_open: bool


async def read_lines(
    database: Database, tenant: str, federation_id: str, after: int, tail: int | None
) -> ServerLogs:
    """The first past a position, or the last so many."""
    query = "SELECT position, at, kind, text FROM server_lines WHERE federation_id = $1"
    async with database.transaction(tenant) as tx:
        if tail is None:
            query += " AND position > $2 ORDER BY position LIMIT $3"
            rows = await tx.fetch(query, federation_id, after, PAGE)
        else:
            query += " ORDER BY position DESC LIMIT $2"
            rows = list(reversed(await tx.fetch(query, federation_id, tail)))
        is_open = await tx.fetchval(
            "SELECT NOT is_ended FROM federations WHERE federation_id = $1", federation_id
        )
    return ServerLogs(
        federation_id=federation_id,
        lines=[ServerLine(**dict(row)) for row in rows],
        next_after=rows[-1]["position"] if rows else after,
        is_open=bool(is_open),
    )
