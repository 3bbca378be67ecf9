"""When an exchange has enough: its terms, the answers so far, the verdict. Pure code."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeAlias

from flowerbed.contracts.update import UpdateAccepted
from flowerbed.contracts.values import Exchange


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What the exchange is about. `cohort`: client ids, each at its place."""

    federation_id: str
    round_number: int
    attempt: int
    exchange: Exchange
    cohort: tuple[str, ...] = ()
    goal: int = 0
    n_required: int = 0
    deadline_at: datetime

    @property
    def stream(self) -> str:
        parts = (self.federation_id, self.round_number, self.attempt, self.exchange)
        return "exchange-" + "-".join(map(str, parts))


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What became of each client's update: accepted, or the code why not."""

    accepted: dict[str, UpdateAccepted] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)

    def of(self, client_id: str) -> bool:
        return client_id in self.accepted or client_id in self.refused


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    until: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Ripe:
    """To be closed with the accepted updates at these places."""

    places: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Missed:
    reason: str


Verdict: TypeAlias = Waiting | Ripe | Missed


def judge(answers: Answers, terms: Terms, at: datetime) -> Verdict:
    n_accepted = len(answers.accepted)
    n_outstanding = sum(not answers.of(client_id) for client_id in terms.cohort)
    if n_accepted + n_outstanding < terms.n_required:
        return Missed(reason=_missing(answers, terms))
    if n_outstanding and n_accepted < terms.goal:
        if at < terms.deadline_at:
            return Waiting(until=terms.deadline_at)
        if n_accepted < terms.n_required:
            return Missed(reason=_missing(answers, terms))
    return Ripe(places=tuple(sorted(one.place for one in answers.accepted.values())))


def _missing(answers: Answers, terms: Terms) -> str:
    names = [
        f"{client_id} ({answers.refused.get(client_id, 'no answer')})"
        for client_id in terms.cohort
        if client_id not in answers.accepted
    ]
    return (
        f"{len(answers.accepted)} of {terms.n_required} required updates accepted;"
        f" missing: {', '.join(names)}"
    )
