"""When an exchange has enough: its terms, the answers so far, the verdict. Pure code.

One rule for every policy. Accepted updates count alike, whether the cohort's or owed from
earlier rounds; only the cohort is waited for. Wait for all, k of n, a quorum at the deadline,
over-selection and buffered rounds differ in `goal`, `n_required` and who was asked.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Literal, TypeAlias

from flowerbed.contracts.ids import work_id
from flowerbed.contracts.policy import still_required
from flowerbed.contracts.round import OwedWork
from flowerbed.contracts.update import (
    CLIENT_LEFT,
    UpdateAccepted,
    UpdateQuarantined,
    UpdateRejected,
)
from flowerbed.contracts.values import Exchange


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What the exchange is about, from the orchestrator's facts.

    `cohort`: client ids, each at its place. `replaced`: who left an open exchange, with the place
    that another has now; whoever of a place's clients answers first has answered for it.
    `owed`: work of earlier rounds that may count here, its places behind the cohort's.
    `counts_late`: work without an answer at the close may count in a later round.
    """

    federation_id: str
    round_number: int
    attempt: int
    exchange: Exchange
    cohort: tuple[str, ...] = ()
    replaced: tuple[tuple[int, str], ...] = ()
    owed: tuple[OwedWork, ...] = ()
    goal: int = 0
    n_required: int = 0
    deadline_at: datetime
    counts_late: bool = False
    staleness_exponent: float = 0.5
    folds_in_order: Literal["cohort", "arrival"] = "cohort"

    @property
    def stream(self) -> str:
        parts = (self.federation_id, self.round_number, self.attempt, self.exchange)
        return "exchange-" + "-".join(map(str, parts))

    def work_of(self, client_id: str) -> str:
        """The id of what this exchange orders from a client."""
        return work_id(
            self.federation_id, self.round_number, self.attempt, self.exchange, client_id
        )

    @cached_property
    def wanted(self) -> tuple[str, ...]:
        """The work that is waited for, each at its place: the cohort's, then what is owed."""
        return (*map(self.work_of, self.cohort), *(one.work_id for one in self.owed))

    @cached_property
    def places(self) -> Mapping[str, int]:
        """By work id: the place of all work that may be answered here."""
        left = {self.work_of(client_id): place for place, client_id in self.replaced}
        return left | {work: place for place, work in enumerate(self.wanted)}

    def owed_at(self, place: int) -> OwedWork | None:
        """The owed work at this place; None for one of the cohort's."""
        return self.owed[place - len(self.cohort)] if place >= len(self.cohort) else None


class ServingTerms(Terms):
    """Of a whole ServerApp, which is no exchange but has a stream and a worker like one."""

    @property
    def stream(self) -> str:
        return f"serverapp-{self.federation_id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What became of each piece of work that was reported, by its id, in the order recorded."""

    accepted: dict[str, UpdateAccepted] = field(default_factory=dict)
    refused: dict[str, UpdateRejected | UpdateQuarantined] = field(default_factory=dict)

    def of(self, work: str) -> bool:
        return work in self.accepted or work in self.refused

    @property
    def places(self) -> set[int]:
        """The places that have been answered for."""
        answered = (*self.accepted.values(), *self.refused.values())
        return {update.place for update in answered}


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    until: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Ripe:
    """To be closed with the accepted updates at these places, in the order of the fold."""

    places: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Missed:
    reason: str


Verdict: TypeAlias = Waiting | Ripe | Missed


def judge(answers: Answers, terms: Terms, at: datetime) -> Verdict:
    n_accepted, answered = len(answers.accepted), answers.places
    n_outstanding = sum(place not in answered for place in range(len(terms.wanted)))
    cohort_is_done = answered.issuperset(range(len(terms.cohort)))
    n_required = _n_required(answers, terms)
    is_enough = n_accepted >= n_required
    if n_accepted + n_outstanding < n_required:
        return Missed(reason=_missing(answers, terms))
    if n_accepted < terms.goal and not (cohort_is_done and is_enough):
        if at < terms.deadline_at:
            return Waiting(until=terms.deadline_at)
        if not is_enough:
            return Missed(reason=_missing(answers, terms))
    return Ripe(places=tuple(one.place for one in in_fold_order(answers, terms)))


def in_fold_order(answers: Answers, terms: Terms) -> list[UpdateAccepted]:
    """The accepted updates: the cohort's by place, then those owed; or all as they came."""
    if terms.folds_in_order == "arrival":
        return list(answers.accepted.values())
    return _by_place(answers.accepted.values())


def due_for_fold(answers: Answers, terms: Terms) -> list[UpdateAccepted]:
    """The beginning of the fold order that no answer to come can change any more."""
    if terms.folds_in_order == "arrival":
        return list(answers.accepted.values())
    answered = answers.places
    gap = next((n for n in range(len(terms.wanted)) if n not in answered), len(terms.wanted))
    return _by_place(one for one in answers.accepted.values() if one.place < gap)


def _n_required(answers: Answers, terms: Terms) -> int:
    n_left = sum(update.code == CLIENT_LEFT for update in answers.refused.values())
    return still_required(terms.n_required, n_left)


def owing(answers: Answers, terms: Terms) -> tuple[str, ...]:
    """The work without an answer: the cohort's in its order, then what was owed already."""
    answered = answers.places
    return tuple(work for place, work in enumerate(terms.wanted) if place not in answered)


def _by_place(updates: Iterable[UpdateAccepted]) -> list[UpdateAccepted]:
    return sorted(updates, key=lambda update: update.place)


def _missing(answers: Answers, terms: Terms) -> str:
    refused = {update.place: update.code for update in answers.refused.values()}
    accepted = {update.place for update in answers.accepted.values()}
    names = [
        *terms.cohort,
        *(f"{one.client_id} of round {one.round_number}" for one in terms.owed),
    ]
    missing = [
        f"{name} ({refused.get(place, 'no answer')})"
        for place, name in enumerate(names)
        if place not in accepted
    ]
    return (
        f"{len(answers.accepted)} of {_n_required(answers, terms)} required updates accepted;"
        f" missing: {', '.join(missing)}"
    )
