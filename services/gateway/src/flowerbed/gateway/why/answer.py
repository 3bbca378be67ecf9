"""What the parts of the engine give each other, and the answer where a service should act."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from flowerbed.gateway.why.facts import Client, Facts
from flowerbed.gateway.why.view import WaitedFor
from flowerbed.gateway.why.words import ago, lasted

USUAL = {
    "orchestrator": timedelta(seconds=5),
    "lease": timedelta(seconds=5),
    "artifact": timedelta(seconds=15),
    "aggregator": timedelta(seconds=30),
}
"""A service that should act usually does within this time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """See `Why`."""

    code: str
    what: str
    on: tuple[WaitedFor, ...] = ()
    since: datetime | None = None
    until: datetime | None = None
    then: str = ""
    is_overdue: bool = False
    hints: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What a service is to do. `doing`: that it has not, e.g. `has not started the round`."""

    service: str
    doing: str
    since: datetime | None
    usual: timedelta | None = None

    def is_overdue(self, facts: Facts, at: datetime) -> bool:
        return self.service in facts.away or self._is_slow(at)

    def waited_for(self, facts: Facts, at: datetime) -> WaitedFor:
        doing = self.doing
        if self.since is not None:
            doing += f" for {lasted(at - self.since)}"
        if self._is_slow(at):
            doing += f"; it usually takes less than {lasted(self._usually)}"
        if self.service in facts.away:
            doing += "; it does not answer"
        return WaitedFor(kind="service", id=self.service, doing=doing, since=self.since)

    def hints(self, facts: Facts, at: datetime) -> tuple[str, ...]:
        if not self.is_overdue(facts, at):
            return ()
        return ("flowerbed status", f"flowerbed logs {self.service}")

    @property
    def _usually(self) -> timedelta:
        return self.usual or USUAL[self.service]

    def _is_slow(self, at: datetime) -> bool:
        return self.since is not None and at - self.since > self._usually


def to_act(
    facts: Facts,
    at: datetime,
    task: Task,
    *,
    code: str,
    what: str,
    until: datetime | None = None,
    then: str = "",
) -> Answer:
    """Nobody but a service is waited for."""
    return Answer(
        code=code,
        what=what,
        on=(task.waited_for(facts, at),),
        since=task.since,
        until=until,
        then=then,
        is_overdue=task.is_overdue(facts, at),
        hints=task.hints(facts, at),
    )


def on_client(client: Client, doing: str, since: datetime | None) -> WaitedFor:
    return WaitedFor(
        kind="client", id=client.client_id, label=client.shown_label, doing=doing, since=since
    )


def absence(client: Client, at: datetime) -> str:
    """Why a client that is not joined is not."""
    when, reason = ago(client.since, at), f" ({client.reason})" if client.reason else ""
    if client.declined is not None:
        told = client.declined
        detail = f": {told.reason}" if told.reason else ""
        return f"declined the lease{ago(told.at, at)} with {told.code}{detail}"
    match client.status:
        case "enrolled":
            return "is enrolled, and its runner has not asked for work"
        case "dropped" | "released":
            return f"{'dropped' if client.status == 'dropped' else 'left'}{when}{reason}"
        case _:
            return f"was offered a lease{when} and has not taken it up"
