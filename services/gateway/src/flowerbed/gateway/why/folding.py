"""From a federation's events to the facts. Pure; events of several services in any order.

A federation stands where its own stream's last round started it, so `Told.own` begins there.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from flowerbed.contracts.aggregate import AggregateCompleted, AggregateFailed
from flowerbed.contracts.artifact import ArtifactRecorded
from flowerbed.contracts.client import ClientDeclined
from flowerbed.contracts.federation import (
    FederationCreated,
    FederationPaused,
    FederationPolicyChanged,
    FederationResumed,
)
from flowerbed.contracts.ids import work_id
from flowerbed.contracts.policy import still_required
from flowerbed.contracts.round import (
    ExchangeStarted,
    RoundCompleted,
    RoundEvaluationStarted,
    RoundFailed,
    RoundMemberReplaced,
    RoundStarted,
)
from flowerbed.contracts.server_app import ServerAppStarted
from flowerbed.contracts.update import (
    CLIENT_LEFT,
    UpdateAccepted,
    UpdateEvent,
    UpdateFailed,
    UpdateQuarantined,
    UpdateRejected,
    UpdateSubmitted,
)
from flowerbed.events.recorded import Recorded
from flowerbed.gateway.why.facts import (
    Between,
    Client,
    Exchange,
    Failure,
    Pause,
    Serving,
    Stage,
    Starting,
    Work,
)
from flowerbed.gateway.why.serving import with_messages

VERDICTS: Mapping[type, str] = {
    UpdateAccepted: "accepted",
    UpdateRejected: "rejected",
    UpdateQuarantined: "quarantined",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """`own`: of the federation's stream, since its last round started, or from its beginning.

    `leases`: the newest of each client's lease. `exchanges`: of the making of the base, or of
    the exchanges of the last attempt. `records`: the newest artifacts.
    """

    own: Sequence[Recorded[Any]] = ()
    leases: Sequence[Recorded[Any]] = ()
    exchanges: Sequence[Recorded[Any]] = ()
    records: Sequence[Recorded[Any]] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    stage: Stage
    pause: Pause | None = None


def standing(told: Told, spare: Starting) -> Standing:
    """Where the federation stands; `spare` where its own stream is not known yet."""
    stage: Starting | Exchange | Between | Serving = spare
    pause: Pause | None = None
    for one in told.own:
        match one.event:
            case FederationPaused() as event:
                pause = Pause(since=one.recorded_at, until=event.expires_at, reason=event.reason)
            case FederationResumed():
                pause = None
        stage = _next(stage, one)
    match stage:
        case Starting():
            return Standing(stage=_with_base(stage, told), pause=pause)
        case Exchange():
            return Standing(stage=_with_answers(stage, told), pause=pause)
        case Between():
            return Standing(stage=stage, pause=pause)
        case Serving():
            stage = with_messages(stage, told.exchanges, told.leases)
            return Standing(stage=stage, pause=pause)


def declines(leases: Iterable[Recorded[Any]]) -> dict[str, tuple[int, Failure]]:
    """By client: the epoch of the lease that its site last declined, and why."""
    found: dict[str, tuple[int, Failure]] = {}
    for one in leases:
        if isinstance(event := one.event, ClientDeclined):
            why = Failure(code=event.code, reason=event.detail, at=one.recorded_at)
            found[event.client_id] = event.epoch, why
    return found


def with_decline(client: Client, epoch: int, found: Mapping[str, tuple[int, Failure]]) -> Client:
    """The client, and why it declined this very lease, if it did and has not joined since."""
    declined = found.get(client.client_id)
    if declined is None or declined[0] != epoch or client.status in _HAS_ANSWERED:
        return client
    return replace(client, declined=declined[1])


_HAS_ANSWERED = frozenset({"joined", "dropped", "released"})

# --- stages -----------------------------------------------------------------


def _next(
    stage: Starting | Exchange | Between | Serving, one: Recorded[Any]
) -> Starting | Exchange | Between | Serving:
    at = one.recorded_at
    match one.event:
        case FederationCreated() as event:
            return Starting(since=at, until=event.join_deadline_at)
        case RoundStarted() | RoundEvaluationStarted() as event:
            return _opened(event, at)
        case ServerAppStarted() as event:
            return Serving(since=at, until=event.deadline_at)
        case RoundMemberReplaced() as event if isinstance(stage, Exchange):
            return _replaced(stage, event, at)
        case RoundCompleted() as event:
            number = event.round_number + 1
            return Between(since=at, until=event.waits_until, round_number=number, attempt=1)
        case RoundFailed() as event:
            return Between(
                since=at,
                until=event.waits_until,
                round_number=event.round_number,
                attempt=event.attempt + 1,
                failure=Failure(code=event.code, reason=event.reason or event.code, at=at),
                is_last=event.attempts_left == 0,
            )
        case FederationResumed() | FederationPolicyChanged() as event:
            return _waits_anew(stage, event.waits_until)
        case _:
            return stage


def _waits_anew(
    stage: Starting | Exchange | Between | Serving, until: datetime | None
) -> Starting | Exchange | Between | Serving:
    match stage:
        case Starting() if until is not None:
            return replace(stage, until=until)
        case Between() if until is not None:
            return replace(stage, until=until)
        case _:
            return stage


def _opened(event: ExchangeStarted, at: datetime) -> Exchange:
    owed = event.owed if isinstance(event, RoundStarted) else ()
    asked = tuple(
        Work(client_id=member.client_id, round_number=event.round_number, asked_at=at)
        for member in event.cohort
    )
    still_owed = tuple(
        Work(
            client_id=one.client_id,
            round_number=one.round_number,
            attempt=one.attempt,
            is_owed=True,
        )
        for one in owed
    )
    return Exchange(
        exchange="train" if isinstance(event, RoundStarted) else "evaluate",
        federation_id=event.federation_id,
        round_number=event.round_number,
        attempt=event.attempt,
        started_at=at,
        deadline_at=event.deadline_at,
        goal=event.goal,
        n_required=event.n_required,
        work=tuple(replace(one, attempt=event.attempt) for one in asked) + still_owed,
    )


def _replaced(stage: Exchange, event: RoundMemberReplaced, at: datetime) -> Exchange:
    if event.place >= len(stage.work):
        return stage
    work = list(stage.work)
    work[event.place] = replace(
        work[event.place],
        client_id=event.replacement.client_id,
        instead_of=event.client_id,
        asked_at=at,
    )
    return replace(stage, work=tuple(work))


# --- what others did --------------------------------------------------------


def _with_base(stage: Starting, told: Told) -> Starting:
    for one in told.exchanges:
        match one.event:
            case AggregateCompleted(exchange="initialize"):
                stage = replace(stage, base_made_at=one.recorded_at)
            case AggregateFailed(exchange="initialize") as event:
                failure = Failure(code=event.code, reason=event.reason, at=one.recorded_at)
                stage = replace(stage, base_failure=failure)
    for one in told.records:
        if isinstance(one.event, ArtifactRecorded) and one.event.kind == "base":
            stage = replace(stage, base_recorded_at=one.recorded_at)
    return stage


def _with_answers(stage: Exchange, told: Told) -> Exchange:
    reported = {
        one.event.work_id: one.recorded_at
        for one in told.leases
        if isinstance(one.event, UpdateSubmitted | UpdateFailed)
    }
    mine = [one for one in told.exchanges if _is_of(stage, one.event)]
    verdicts = {
        one.event.work_id: VERDICTS[type(one.event)]
        for one in mine
        if isinstance(one.event, UpdateEvent)
    }
    work = tuple(
        _answered(stage, _holder(stage, one, {*reported, *verdicts}), reported, verdicts)
        for one in stage.work
    )
    judged = [one.recorded_at for one in mine if isinstance(one.event, UpdateEvent)]
    n_left = sum(getattr(one.event, "code", "") == CLIENT_LEFT for one in mine)
    stage = replace(
        stage,
        work=work,
        judged_at=max(judged, default=None),
        n_required=still_required(stage.n_required, n_left),
    )
    for one in mine:
        match one.event:
            case AggregateCompleted():
                stage = replace(stage, closed_at=one.recorded_at)
            case AggregateFailed() as event:
                failure = Failure(code=event.code, reason=event.reason, at=one.recorded_at)
                stage = replace(stage, closed_at=one.recorded_at, failure=failure)
    return replace(stage, recorded_at=_recorded(stage, told.records))


def _holder(stage: Exchange, one: Work, answered: Collection[str]) -> Work:
    """Who had answered before it left keeps its place."""
    before = replace(one, client_id=one.instead_of, instead_of="")
    return before if one.instead_of and _work_id(stage, before) in answered else one


def _answered(
    stage: Exchange, one: Work, reported: Mapping[str, datetime], verdicts: Mapping[str, str]
) -> Work:
    identity = _work_id(stage, one)
    return replace(one, reported_at=reported.get(identity), verdict=verdicts.get(identity, ""))


def _recorded(stage: Exchange, records: Sequence[Recorded[Any]]) -> datetime | None:
    found = [
        one.recorded_at
        for one in records
        if isinstance(one.event, ArtifactRecorded)
        and one.event.kind == "checkpoint"
        and (one.event.round_number, one.event.attempt) == (stage.round_number, stage.attempt)
    ]
    return max(found, default=None)


def _is_of(stage: Exchange, event: Any) -> bool:
    place = (stage.round_number, stage.attempt, stage.exchange)
    if isinstance(event, UpdateEvent | AggregateCompleted | AggregateFailed):
        return (event.round_number, event.attempt, event.exchange) == place or _is_late(
            stage, event
        )
    return False


def _is_late(stage: Exchange, event: Any) -> bool:
    """An answer to work of an earlier round, told in this exchange."""
    owed = {_work_id(stage, one) for one in stage.work if one.is_owed}
    return isinstance(event, UpdateEvent) and event.work_id in owed


def _work_id(stage: Exchange, one: Work) -> str:
    exchange = "train" if one.is_owed else stage.exchange
    return work_id(stage.federation_id, one.round_number, one.attempt, exchange, one.client_id)
