"""One exchange: who answered what, and when that is enough.

    Open ── accept / reject (one answer a piece of work, one a place) ──> Open
      │
      └── close, when ripe ──> Closed        fail ──> Closed
              (an answer that comes later is rejected as `late`, or counts in a later round)

Ripe: the goal is reached, or all of the cohort answered, or the deadline has passed; the latter
two with at least `n_required` accepted. Missed: `n_required` is out of reach. A client may answer
twice, for work of this round and for work that it owed from an earlier one, so answers go by
work id. Stream `exchange-<federation>-<round>-<attempt>-<exchange>`. What the exchange is about
comes in with each command, from the orchestrator's facts, and so does the time. Pure code.
"""

import math
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar, TypeAlias, assert_never

from flowerbed.aggregator.quorum import (
    Answers,
    Missed,
    Ripe,
    Terms,
    Waiting,
    in_fold_order,
    judge,
    owing,
)
from flowerbed.contracts.aggregate import AggregateCompleted, AggregateFailed, FoldedUpdate
from flowerbed.contracts.update import UpdateAccepted, UpdateQuarantined, UpdateRejected
from flowerbed.contracts.values import ArtifactRef, Sha256
from flowerbed.events.decider import Decider
from flowerbed.events.errors import Rejected

ExchangeEvent: TypeAlias = (
    UpdateAccepted | UpdateRejected | UpdateQuarantined | AggregateCompleted | AggregateFailed
)

LATE = "late"
QUORUM_MISSED = "quorum-missed"
WEIGHT_KEY = "num-examples"
"""Flower's name for an update's weight among its metrics; it is no metric of the aggregate."""


# --- commands ---------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptUpdate:
    """Verified and screened. `norm`: the L2 distance of the update from what it started from.

    The last three: see `fl.update.accepted`.
    """

    terms: Terms
    client_id: str
    work_id: str
    artifact: ArtifactRef | None
    n_examples: int
    metrics: dict[str, float]
    train_seconds: float
    norm: float | None
    form: str | None = None
    full_size: int | None = None
    form_error: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectUpdate:
    terms: Terms
    client_id: str
    work_id: str
    code: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RefuseLate:
    """It is certain that no later exchange counts this work of a closed one."""

    terms: Terms
    client_id: str
    work_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What the fold of the updates at `places` gave."""

    places: tuple[int, ...]
    checkpoint: ArtifactRef
    state: ArtifactRef | None = None
    parents: tuple[Sha256, ...] = ()
    moments: ArtifactRef | None = None
    selected: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseExchange:
    """`result` is None for an evaluation, which yields no checkpoint.

    `metrics`: the aggregate's; None for the weighted means.
    """

    terms: Terms
    at: datetime
    result: Result | None = None
    metrics: dict[str, float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FailExchange:
    terms: Terms
    code: str
    reason: str


Answer: TypeAlias = AcceptUpdate | RejectUpdate | RefuseLate
ExchangeCommand: TypeAlias = Answer | CloseExchange | FailExchange

# --- state ------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Open:
    answers: Answers = field(default_factory=Answers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed:
    answers: Answers


ExchangeState: TypeAlias = Open | Closed

# --- errors -----------------------------------------------------------------


class NotInCohort(Rejected):
    code: ClassVar[str] = "not-in-cohort"


class ExchangeWaits(Rejected):
    code: ClassVar[str] = "exchange-waits"


class FoldDiffers(Rejected):
    code: ClassVar[str] = "fold-differs"


# --- decide -----------------------------------------------------------------


def decide(state: ExchangeState, command: ExchangeCommand) -> list[ExchangeEvent]:
    match command:
        case AcceptUpdate() | RejectUpdate() | RefuseLate():
            return _answer(state, command)
        case CloseExchange():
            return _close(state, command)
        case FailExchange():
            return _fail(state, command)
        case _:
            assert_never(command)


def _answer(state: ExchangeState, command: Answer) -> list[ExchangeEvent]:
    terms, answers = command.terms, state.answers
    place = terms.places.get(command.work_id)
    if place is None:
        raise NotInCohort(f"{command.client_id} is not in the cohort of {terms.stream}")
    if answers.of(command.work_id):
        return []  # one answer a piece of work: saying it again changes nothing
    if isinstance(command, RefuseLate):
        return [_rejected(command, place, LATE, "no round counts it any more")]
    if place in answers.places:
        return [_rejected(command, place, LATE, "another client answered in its place")]
    match state, command:
        case Open(), AcceptUpdate() if len(answers.accepted) < terms.goal:
            return [_accepted(command, place)]
        case Open(), RejectUpdate():
            return [_rejected(command, place, command.code, command.detail)]
        case _ if terms.counts_late or terms.owed_at(place) is not None:
            return []  # it is owed to the next round
        case _:
            return [_rejected(command, place, LATE, "the exchange has what it needs")]


def _accepted(command: AcceptUpdate, place: int) -> UpdateAccepted:
    owed = command.terms.owed_at(place)
    return UpdateAccepted(
        **_of(command.terms),
        client_id=command.client_id,
        work_id=command.work_id,
        place=place,
        artifact=command.artifact,
        n_examples=command.n_examples,
        metrics=command.metrics,
        train_seconds=command.train_seconds,
        norm=command.norm,
        staleness=0 if owed is None else command.terms.round_number - owed.round_number,
        base=None if owed is None else owed.base,
        form=command.form,
        full_size=command.full_size,
        form_error=command.form_error,
    )


def _rejected(command: Answer, place: int, code: str, detail: str) -> UpdateRejected:
    return UpdateRejected(
        **_of(command.terms),
        client_id=command.client_id,
        work_id=command.work_id,
        place=place,
        code=code,
        detail=detail,
    )


def _close(state: ExchangeState, command: CloseExchange) -> list[ExchangeEvent]:
    if isinstance(state, Closed):
        return []
    match judge(state.answers, command.terms, command.at):
        case Waiting(until=until):
            raise ExchangeWaits(f"{command.terms.stream} waits until {until:%H:%M:%S} UTC")
        case Missed(reason=reason):
            return [AggregateFailed(**_of(command.terms), code=QUORUM_MISSED, reason=reason)]
        case Ripe(places=places):
            if command.result is not None and command.result.places != places:
                raise FoldDiffers(f"folded places {command.result.places}, accepted are {places}")
            return [_completed(state.answers, command)]
        case verdict:
            assert_never(verdict)


def _completed(answers: Answers, command: CloseExchange) -> AggregateCompleted:
    terms, result = command.terms, command.result
    updates, metrics = in_fold_order(answers, terms), command.metrics
    if metrics is None:
        metrics = weighted_means([(update.n_examples, update.metrics) for update in updates])
    return AggregateCompleted(
        **_of(terms),
        checkpoint=None if result is None else result.checkpoint,
        state=None if result is None else result.state,
        parents=() if result is None else result.parents,
        moments=None if result is None else result.moments,
        selected=None if result is None else result.selected,
        updates=tuple(
            FoldedUpdate(
                client_id=update.client_id,
                place=update.place,
                sha256=None if update.artifact is None else update.artifact.sha256,
                weight=update.n_examples,
                staleness=update.staleness,
            )
            for update in updates
        ),
        metrics=metrics,
        train_seconds=max((update.train_seconds for update in updates), default=0.0),
        owing=owing(answers, terms) if terms.exchange == "train" else (),
    )


def weighted_means(reports: list[tuple[int, dict[str, float]]]) -> dict[str, float]:
    """Each metric's mean over those who reported it, weighted by examples."""
    keys = sorted({key for _, metrics in reports for key in metrics} - {WEIGHT_KEY})
    return {key: _mean([(w, m[key]) for w, m in reports if key in m]) for key in keys}


def _mean(values: list[tuple[int, float]]) -> float:
    # fsum is exact, so the mean does not depend on an order of adding.
    return math.fsum(w * value for w, value in values) / sum(w for w, _ in values)


def _fail(state: ExchangeState, command: FailExchange) -> list[ExchangeEvent]:
    if isinstance(state, Closed):
        return []
    return [AggregateFailed(**_of(command.terms), code=command.code, reason=command.reason)]


def _of(terms: Terms) -> dict[str, Any]:
    return {
        "federation_id": terms.federation_id,
        "round_number": terms.round_number,
        "attempt": terms.attempt,
        "exchange": terms.exchange,
    }


# --- evolve -----------------------------------------------------------------


def evolve(state: ExchangeState, event: ExchangeEvent) -> ExchangeState:
    answers = state.answers
    match event:
        case UpdateAccepted():
            accepted = {**answers.accepted, event.work_id: event}
            return _with(state, Answers(accepted=accepted, refused=answers.refused))
        case UpdateRejected() | UpdateQuarantined():
            refused = {**answers.refused, event.work_id: event}
            return _with(state, Answers(accepted=answers.accepted, refused=refused))
        case AggregateCompleted() | AggregateFailed():
            return Closed(answers=answers)
        case _:
            assert_never(event)


def _with(state: ExchangeState, answers: Answers) -> ExchangeState:
    return Open(answers=answers) if isinstance(state, Open) else Closed(answers=answers)


exchange: Decider[ExchangeState, ExchangeCommand, ExchangeEvent] = Decider(Open(), decide, evolve)
