"""What a federation does next. Pure: see `state.py` for the picture, `exchanges.py` for cohorts."""

from datetime import datetime, timedelta
from typing import TypeAlias, assert_never

from flowerbed.contracts.federation import (
    FederationCancelled,
    FederationCompleted,
    FederationCreated,
    FederationFailed,
    FederationPaused,
    FederationRejected,
    FederationResumed,
    FederationStarted,
)
from flowerbed.contracts.round import (
    RoundCompleted,
    RoundFailed,
)
from flowerbed.contracts.spec import FederationSpec
from flowerbed.contracts.values import ArtifactRef
from flowerbed.events.decider import Decider
from flowerbed.events.errors import NotFound, Rejected
from flowerbed.orchestrator.evolve import OrchestratorEvent, evolve
from flowerbed.orchestrator.exchanges import can_open, evaluation_exchange, training_exchange
from flowerbed.orchestrator.state import (
    CancelFederation,
    CheckDeadline,
    Command,
    CompleteEvaluation,
    Ended,
    Evaluating,
    FailExchange,
    Nothing,
    OpenRound,
    PauseFederation,
    Pool,
    RecordCheckpoint,
    Refused,
    ResumeFederation,
    State,
    SubmitFederation,
    Training,
    Waiting,
)

AGGREGATOR_GRACE = timedelta(minutes=5)
"""An exchange is the aggregator's to close at its deadline; this much later it is given up."""
LONGEST_PAUSE = timedelta(days=30)

Events: TypeAlias = list[OrchestratorEvent]


class FederationEnded(Rejected):
    code = "federation-ended"


def decide(state: State, command: Command) -> Events:
    match command:
        case SubmitFederation():
            return _submit(state, command)
        case OpenRound():
            return _open(state, command.base, command.pool, command.at)
        case RecordCheckpoint():
            return _checkpoint(state, command)
        case CompleteEvaluation():
            return _evaluated(state, command)
        case FailExchange():
            return _exchange_failed(state, command)
        case CheckDeadline():
            return _deadline(state, command)
        case PauseFederation():
            return _pause(state, command)
        case ResumeFederation():
            return _resume(state, command)
        case CancelFederation():
            return _cancel(state, command)
        case _:
            assert_never(command)


def _submit(state: State, command: SubmitFederation) -> Events:
    if not isinstance(state, Nothing):
        return []  # the same submission twice is one federation
    if command.spec is None or command.problems:
        return [
            FederationRejected(
                federation_id=command.federation_id,
                submission_id=command.submission_id,
                problems=command.problems,
            )
        ]
    wait = timedelta(seconds=command.spec.spec.round_policy.join_deadline_seconds)
    return [
        FederationCreated(
            federation_id=command.federation_id,
            submission_id=command.submission_id,
            spec=command.spec.document(),
            code_hash=command.code_hash,
            join_deadline_at=command.at + wait,
        )
    ]


def _open(state: State, base: ArtifactRef | None, pool: Pool, at: datetime) -> Events:
    """The next round, where one may start now."""
    if not isinstance(state, Waiting) or state.is_paused or not can_open(state.spec, pool):
        return []
    start = state.base or base
    if start is None:
        return []
    events: Events = []
    if state.base is None:
        events.append(
            FederationStarted(federation_id=state.federation_id, base=start, n_clients=len(pool))
        )
    place = (state.next_round, state.next_attempt)
    events.append(training_exchange(state.federation_id, state.spec, place, start, pool, at))
    return events


def _checkpoint(state: State, command: RecordCheckpoint) -> Events:
    if not isinstance(state, Training) or not _is_current(state, command):
        return []  # of an attempt that was given up, or told twice
    place = (state.round_number, state.attempt)
    trained = (command.checkpoint, command.n_updates, command.training)
    if command.pool:
        return [
            evaluation_exchange(
                state.federation_id, state.spec, place, trained, command.pool, command.at
            )
        ]
    completed = RoundCompleted(
        federation_id=state.federation_id,
        round_number=state.round_number,
        attempt=state.attempt,
        checkpoint=command.checkpoint,
        n_updates=command.n_updates,
        training=command.training,
        evaluation_error="no client was joined to evaluate",
        waits_until=_next_wait(state, command.at),
    )
    return _and_go_on(state, completed, command.pool, command.at)


def _evaluated(state: State, command: CompleteEvaluation) -> Events:
    if not isinstance(state, Evaluating) or not _is_current(state, command):
        return []
    return _end_round(state, command.metrics, "", command.pool, command.at)


def _end_round(
    state: Evaluating, metrics: dict[str, float], error: str, pool: Pool, at: datetime
) -> Events:
    completed = RoundCompleted(
        federation_id=state.federation_id,
        round_number=state.round_number,
        attempt=state.attempt,
        checkpoint=state.checkpoint,
        n_updates=state.n_updates,
        training=dict(state.training),
        evaluation=metrics,
        evaluation_error=error,
        waits_until=_next_wait(state, at),
    )
    return _and_go_on(state, completed, pool, at)


def _and_go_on(
    state: Training | Evaluating, event: RoundCompleted | RoundFailed, pool: Pool, at: datetime
) -> Events:
    """The event, and what follows from it at once."""
    after = evolve(state, event)
    if isinstance(event, RoundCompleted) and event.waits_until is None:
        return [
            event,
            FederationCompleted(
                federation_id=state.federation_id,
                final=event.checkpoint,
                n_rounds=event.round_number,
            ),
        ]
    return [event, *_open(after, None, pool, at)]


def _exchange_failed(state: State, command: FailExchange) -> Events:
    match state:
        case Waiting(base=None) if command.exchange == "initialize":
            return [_failed(state.federation_id, command.code, command.reason)]
        case Training() if command.exchange == "train" and _is_current(state, command):
            return _attempt_failed(state, command.code, command.reason, command.pool, command.at)
        case Evaluating() if command.exchange == "evaluate" and _is_current(state, command):
            return _end_round(state, {}, command.reason, command.pool, command.at)
        case _:
            return []


def _attempt_failed(state: Training, code: str, reason: str, pool: Pool, at: datetime) -> Events:
    left = max(0, state.spec.spec.round_policy.max_attempts - state.attempt)
    failed = RoundFailed(
        federation_id=state.federation_id,
        round_number=state.round_number,
        attempt=state.attempt,
        code=code,
        reason=reason,
        attempts_left=left,
        waits_until=state.paused_until or _wait(state.spec, at) if left else None,
    )
    if left == 0:
        n = state.attempt
        told = f"round {state.round_number} failed {n} of {n} attempts, the last: {reason}"
        return [failed, _failed(state.federation_id, "round-failed", told)]
    return _and_go_on(state, failed, pool, at)


def _deadline(state: State, command: CheckDeadline) -> Events:
    match state:
        case Waiting(is_paused=True) if command.at >= state.until:
            told = f"paused until {state.until:%Y-%m-%d %H:%M} and never resumed"
            return [_failed(state.federation_id, "paused-too-long", told)]
        case Waiting() if command.at >= state.until:
            return [_failed(state.federation_id, "too-few-clients", _waited_for(state, command))]
        case Training() if command.at >= state.deadline_at + AGGREGATOR_GRACE:
            told = f"no aggregate {AGGREGATOR_GRACE.seconds} s after the round's deadline"
            return _attempt_failed(state, "aggregator-silent", told, command.pool, command.at)
        case Evaluating() if command.at >= state.deadline_at + AGGREGATOR_GRACE:
            told = f"no evaluation {AGGREGATOR_GRACE.seconds} s after its deadline"
            return _end_round(state, {}, told, command.pool, command.at)
        case _:
            return []


def _waited_for(state: Waiting, command: CheckDeadline) -> str:
    n, needed = len(command.pool), state.spec.spec.min_clients
    if n >= needed:
        return f"the base checkpoint was not recorded by {state.until:%H:%M:%S}"
    return f"{n} of {needed} clients had joined by {state.until:%H:%M:%S}"


def _pause(state: State, command: PauseFederation) -> Events:
    match state:
        case Nothing() | Refused() | Ended():
            raise _over(state, "paused")
        case Waiting(is_paused=True):
            return []
        case Training() | Evaluating() if state.paused_until is not None:
            return []
        case _:
            return [
                FederationPaused(
                    federation_id=state.federation_id,
                    reason=command.reason,
                    expires_at=command.at + LONGEST_PAUSE,
                    is_between_rounds=isinstance(state, Waiting),
                )
            ]


def _resume(state: State, command: ResumeFederation) -> Events:
    match state:
        case Nothing() | Refused() | Ended():
            raise _over(state, "resumed")
        case Waiting(is_paused=False) | Training(paused_until=None) | Evaluating(paused_until=None):
            return []
        case _:
            until = _wait(state.spec, command.at) if isinstance(state, Waiting) else None
            resumed = FederationResumed(federation_id=state.federation_id, waits_until=until)
            after = evolve(state, resumed)
            return [resumed, *_open(after, command.base, command.pool, command.at)]


def _cancel(state: State, command: CancelFederation) -> Events:
    match state:
        case Ended(outcome="cancelled"):
            return []
        case Nothing() | Refused() | Ended():
            raise _over(state, "cancelled")
        case _:
            return [FederationCancelled(federation_id=state.federation_id, reason=command.reason)]


def _over(state: Nothing | Refused | Ended, wanted: str) -> Exception:
    match state:
        case Nothing():
            return NotFound("no such federation")
        case Refused():
            return FederationEnded(f"the federation was rejected and cannot be {wanted}")
        case Ended():
            return FederationEnded(f"the federation is {state.outcome} and cannot be {wanted}")
        case _:
            assert_never(state)


def _failed(federation_id: str, code: str, reason: str) -> FederationFailed:
    return FederationFailed(federation_id=federation_id, code=code, reason=reason)


def _is_current(
    state: Training | Evaluating, command: RecordCheckpoint | CompleteEvaluation | FailExchange
) -> bool:
    return (state.round_number, state.attempt) == (command.round_number, command.attempt)


def _wait(spec: FederationSpec, at: datetime) -> datetime:
    return at + timedelta(seconds=spec.spec.round_policy.join_deadline_seconds)


def _next_wait(state: Training | Evaluating, at: datetime) -> datetime | None:
    is_last = state.round_number >= state.spec.spec.num_rounds
    return None if is_last else state.paused_until or _wait(state.spec, at)


federation: Decider[State, Command, OrchestratorEvent] = Decider(Nothing(), decide, evolve)
