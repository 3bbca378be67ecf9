"""Federations one after the other, several open at once, while things break."""

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import asyncpg  # type: ignore[import-untyped]  # has no stubs

from flowerbed.cli.api import Api, CommandFailed, Refused
from flowerbed.embedded.stack import Stack
from scripts.faults.checker import ENDED
from scripts.faults.plan import Planned

STEP = 0.5
PAUSED_FOR = 3.0
WATCH_EVERY = 2.0

_GAPS = """
SELECT e.meta ->> 'correlation_id' AS federation FROM events e
WHERE e.type = 'fl.federation.created'
AND NOT EXISTS (SELECT FROM events f WHERE f.stream = e.stream AND f.type = ANY($1))
AND NOT EXISTS (
    SELECT FROM deadlines d WHERE d.federation_id = e.meta ->> 'correlation_id'
)
"""
_ENDS = [f"fl.federation.{outcome}" for outcome in ENDED]


@dataclass(slots=True)
class Open:
    """A federation that has been submitted."""

    planned: Planned
    federation_id: str
    paused_at: float | None = None
    is_ordered: bool = False
    status: str = "submitted"


@dataclass(slots=True)
class Load:
    """Submits, orders and watches, in a thread of its own: it waits while the gateway is away.

    `gaps`: federations that were seen open and without a deadline. `ended_at`: the last end.
    """

    stack: Callable[[], Stack]
    planned: Sequence[Planned]
    batch: int
    key: str
    said: Callable[[str], None]
    all: list[Open] = field(default_factory=list)
    gaps: set[str] = field(default_factory=set)
    ended_at: float = field(default_factory=time.monotonic)
    _thread: threading.Thread | None = None
    _stopping: threading.Event = field(default_factory=threading.Event)
    _watched_at: float = 0.0

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(60)

    @property
    def is_done(self) -> bool:
        return len(self.all) == len(self.planned) and not self.open

    @property
    def open(self) -> list[Open]:
        return [one for one in self.all if one.status not in ENDED]

    def _run(self) -> None:
        while not self._stopping.is_set() and not self.is_done:
            stack = self.stack()
            with contextlib.suppress(CommandFailed):
                self._step(Api(stack.gateway_url, stack.api_token))
            with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                self._watch(stack)
            self._stopping.wait(STEP)

    def _step(self, api: Api) -> None:
        try:
            for one in self.open:
                self._look(api, one)
            while len(self.open) < self.batch and len(self.all) < len(self.planned):
                self._submit(api, self.planned[len(self.all)])
        finally:
            api.close()

    def _submit(self, api: Api, planned: Planned) -> None:
        """The key makes it the same federation when no answer came and it is posted again."""
        content = json.dumps(planned.document()).encode()
        answer = api.submit(content, f"{self.key}-{planned.number}")
        self.all.append(Open(planned=planned, federation_id=answer["federation_id"]))

    def _look(self, api: Api, one: Open) -> None:
        found = api.federation(one.federation_id)
        if found["status"] in ENDED and one.status not in ENDED:
            self.said(f"{one.federation_id} ({one.planned.spec}) {found['status']}")
            self.ended_at = time.monotonic()
        one.status = found["status"]
        if one.status not in ENDED:
            self._order(api, one, found)

    def _order(self, api: Api, one: Open, found: dict[str, Any]) -> None:
        """Pause in the first round, resume a little later; cancel after the first round."""
        if one.status == "paused":
            one.paused_at = one.paused_at or time.monotonic()
            if time.monotonic() - one.paused_at > PAUSED_FOR:
                self._command(api, one, "resume")
            return
        rounds_needed = {"pause": 1, "cancel": 2}.get(one.planned.order)
        if rounds_needed and not one.is_ordered and len(found["rounds"]) >= rounds_needed:
            self._command(api, one, one.planned.order)
            one.is_ordered = True

    def _command(self, api: Api, one: Open, verb: str) -> None:
        """A federation that ended or changed meanwhile refuses; so be it."""
        with contextlib.suppress(Refused):
            api.post(f"/federations/{one.federation_id}/{verb}", {"reason": "chaos"})

    def _watch(self, stack: Stack) -> None:
        if time.monotonic() - self._watched_at > WATCH_EVERY:
            self._watched_at = time.monotonic()
            self.gaps |= asyncio.run(_without_deadline(stack))


async def _without_deadline(stack: Stack) -> set[str]:
    connection = await asyncpg.connect(stack.postgres_dsn("orchestrator"), timeout=3)
    try:
        rows = await connection.fetch(_GAPS, _ENDS, timeout=3)
    finally:
        connection.terminate()
    return {row["federation"] for row in rows}
