"""One exchange: who answered what, and when that is enough.

    Open ── accept / reject (one answer a cohort member) ──> Open
      │
      └── close, when ripe ──> Closed        fail ──> Closed
              (an answer that comes later is rejected as `late`)

Ripe: everyone answered, or the goal is reached where more were asked than needed, or the
deadline has passed; each with at least `n_required` accepted. Missed: `n_required` is out of
reach. Stream `exchange-<federation>-<round>-<attempt>-<exchange>`. What the exchange is about
comes in with each command, from the orchestrator's fact, and so does the time. Pure code.
"""

import math
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar, TypeAlias, assert_never

from flowerbed.aggregator.quorum import Answers, Missed, Ripe, Terms, Waiting, judge
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
    """Verified and screened. `norm`: the L2 distance of the update from its base."""

    terms: Terms
    client_id: str
    work_id: str
    artifact: ArtifactRef | None
    n_examples: int
    metrics: dict[str, float]
    train_seconds: float
    norm: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectUpdate:
    terms: Terms
    client_id: str
    work_id: str
    code: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What the fold of the updates at `places` gave."""

    places: tuple[int, ...]
    checkpoint: ArtifactRef
    state: ArtifactRef | None = None
    parents: tuple[Sha256, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseExchange:
    """`result` is None for an evaluation, which yields no checkpoint."""

    terms: Terms
    at: datetime
    result: Result | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FailExchange:
    terms: Terms
    code: str
    reason: str


ExchangeCommand: TypeAlias = AcceptUpdate | RejectUpdate | CloseExchange | FailExchange

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
        case AcceptUpdate() | RejectUpdate():
            return _answer(state, command)
        case CloseExchange():
            return _close(state, command)
        case FailExchange():
            return _fail(state, command)
        case _:
            assert_never(command)


def _answer(state: ExchangeState, command: AcceptUpdate | RejectUpdate) -> list[ExchangeEvent]:
    terms, answers = command.terms, state.answers
    if command.client_id not in terms.cohort:
        raise NotInCohort(f"{command.client_id} is not in the cohort of {terms.stream}")
    if answers.of(command.client_id):
        return []  # one answer a client: saying it again changes nothing
    place = terms.cohort.index(command.client_id)
    match state, command:
        case Open(), AcceptUpdate() if len(answers.accepted) < terms.goal:
            return [_accepted(command, place)]
        case Open(), RejectUpdate():
            return [_rejected(command, place, command.code, command.detail)]
        case _:
            return [_rejected(command, place, LATE, "the exchange has what it needs")]


def _accepted(command: AcceptUpdate, place: int) -> UpdateAccepted:
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
    )


def _rejected(
    command: AcceptUpdate | RejectUpdate, place: int, code: str, detail: str
) -> UpdateRejected:
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
    updates = sorted(answers.accepted.values(), key=lambda update: update.place)
    result = command.result
    return AggregateCompleted(
        **_of(command.terms),
        checkpoint=None if result is None else result.checkpoint,
        state=None if result is None else result.state,
        parents=() if result is None else result.parents,
        updates=tuple(
            FoldedUpdate(
                client_id=update.client_id,
                place=update.place,
                sha256=None if update.artifact is None else update.artifact.sha256,
                weight=update.n_examples,
            )
            for update in updates
        ),
        metrics=weighted_means([(update.n_examples, update.metrics) for update in updates]),
        train_seconds=max((update.train_seconds for update in updates), default=0.0),
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
            accepted = {**answers.accepted, event.client_id: event}
            return _with(state, Answers(accepted=accepted, refused=answers.refused))
        case UpdateRejected() | UpdateQuarantined():
            refused = {**answers.refused, event.client_id: event.code}
            return _with(state, Answers(accepted=answers.accepted, refused=refused))
        case AggregateCompleted() | AggregateFailed():
            return Closed(answers=answers)
        case _:
            assert_never(event)


def _with(state: ExchangeState, answers: Answers) -> ExchangeState:
    return Open(answers=answers) if isinstance(state, Open) else Closed(answers=answers)


exchange: Decider[ExchangeState, ExchangeCommand, ExchangeEvent] = Decider(Open(), decide, evolve)
