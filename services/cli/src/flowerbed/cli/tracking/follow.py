"""From the gateway's feed to a sink: each round once, also when a process was killed between."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from flowerbed.cli.api import Api, Unreachable
from flowerbed.cli.tracking.cursor import Cursor
from flowerbed.cli.tracking.rounds import Run, is_all_heard, measured, run_of
from flowerbed.cli.tracking.sinks import Sink

COMPLETED = "fl.round.completed"
ENDS = {f"fl.federation.{how}": how for how in ("completed", "failed", "cancelled")}
PAGE = 500
LOOK_SECONDS = 2.0
"""A tracker may be that much behind; nobody waits for it."""
HEARING_SECONDS, PAUSE_SECONDS = 30.0, 0.5
"""How long after its end a round waits for what the gateway has not heard of its updates yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    tenant: str | None = None
    federation: str | None = None


@dataclass(slots=True)
class Tracker:
    api: Api
    sink: Sink
    cursor: Cursor
    choice: Choice
    say: Callable[[str], None]
    _known: set[str] = field(default_factory=set)
    """Federations of which the sink was asked what it holds: whoever ran before was killed, maybe
    between telling it and moving the cursor."""

    def catch_up(self) -> int:
        """All that the gateway has by now; how many rounds were new."""
        told = 0
        while page := self._page():
            for event in page["events"]:
                told += self._take(event)
            self.cursor.position = page["next_after"]
            self.cursor.save()
        return told

    def follow(self, stopped: Callable[[], bool] = lambda: False) -> None:
        """For ever, or until `stopped`; a gateway that is away is waited for."""
        is_away = False
        while not stopped():
            try:
                self.catch_up()
                is_away = False
            except Unreachable as error:
                if not is_away:
                    self.say(f"waiting for the gateway: {error}")
                is_away = True
            time.sleep(LOOK_SECONDS)

    def _page(self) -> Mapping[str, Any] | None:
        page: Mapping[str, Any] = self.api.get(
            "/events",
            after=self.cursor.position,
            limit=PAGE,
            federation=self.choice.federation,
            tenant=self.choice.tenant,
            type=[COMPLETED, *ENDS],
        )
        return page if page["events"] else None

    def _take(self, event: Mapping[str, Any]) -> int:
        if event["type"] == COMPLETED:
            return self._tell(event)
        if event["type"] in ENDS:
            identity = event["federation_id"]
            if identity in self.cursor.rounds:
                self.sink.end(self._run(identity), ENDS[event["type"]])
                del self.cursor.rounds[identity]
        return 0

    def _tell(self, event: Mapping[str, Any]) -> int:
        identity, number = event["federation_id"], event["data"]["round_number"]
        federation = self.api.federation(identity)
        run = run_of(federation)
        if number <= self._last_told(run):
            return 0
        one = measured(event, federation, self._detail(event))
        self.cursor.begun = (identity, number)
        self.cursor.save()
        self.sink.log(run, one)
        self.cursor.rounds[identity], self.cursor.begun = number, None
        self.cursor.save()
        self.say(f"{run.name} ({identity}) round {number}: {len(one.values)} values")
        return 1

    def _detail(self, event: Mapping[str, Any]) -> Mapping[str, Any]:
        """That a round completed may be heard before what became of its updates."""
        path = f"/federations/{event['federation_id']}/rounds/{event['data']['round_number']}"
        age = (datetime.now(UTC) - datetime.fromisoformat(event["recorded_at"])).total_seconds()
        end = time.monotonic() + min(HEARING_SECONDS, HEARING_SECONDS - age)
        while True:
            detail: Mapping[str, Any] = self.api.get(path)
            if is_all_heard(event, detail) or time.monotonic() > end:
                return detail
            time.sleep(PAUSE_SECONDS)

    def _last_told(self, run: Run) -> int:
        identity = run.federation_id
        told = self.cursor.rounds.get(identity, 0)
        if identity in self._known:
            return told
        self._known.add(identity)
        held = self.sink.last_round(run)
        if held is None and self.cursor.begun is not None and self.cursor.begun[0] == identity:
            held = self.cursor.begun[1]  # nobody can tell: rather missing than twice
        self.cursor.rounds[identity] = max(told, held or 0)
        return self.cursor.rounds[identity]

    def _run(self, identity: str) -> Run:
        return run_of(self.api.federation(identity))
