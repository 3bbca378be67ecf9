"""How a round moves on: opened, trained, evaluated, failed, given up. Pure."""

from datetime import datetime
from typing import TypeAlias

from flowerbed.contracts.federation import (
    FederationCompleted,
    FederationFailed,
    FederationStarted,
)
from flowerbed.contracts.round import RoundCompleted, RoundFailed
from flowerbed.contracts.values import ArtifactRef
from flowerbed.orchestrator.cohorts import (
    can_open,
    closed_without,
    idle,
    n_needed,
    still_owed,
)
from flowerbed.orchestrator.commands import (
    CheckDeadline,
    CompleteEvaluation,
    FailExchange,
    RecordCheckpoint,
)
from flowerbed.orchestrator.evolve import OrchestratorEvent, evolve
from flowerbed.orchestrator.exchanges import Trained, evaluation_exchange, training_exchange
from flowerbed.orchestrator.serving import overdue, serving
from flowerbed.orchestrator.state import (
    Evaluating,
    Owed,
    Pool,
    Serving,
    State,
    Training,
    Waiting,
    join_wait,
    policy_of,
)

Events: TypeAlias = list[OrchestratorEvent]


def open_round(state: State, base: ArtifactRef | None, pool: Pool, at: datetime) -> Events:
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
    if state.spec.spec.is_whole:
        return [*events, serving(state.federation_id, state.spec, pool, at)]
    events.append(
        training_exchange(
            state.federation_id,
            state.spec,
            (state.next_round, state.next_attempt),
            start,
            pool,
            at,
            owed=still_owed(state.owed, policy_of(state), state.next_round, pool, at),
            asked_before=state.asked_before,
            whole=state.whole,
        )
    )
    return events


def checkpoint(state: State, command: RecordCheckpoint) -> Events:
    """The training is done: evaluate its checkpoint, or go on where nobody can."""
    if isinstance(state, Serving):
        n = max(1, command.round_number)
        final = command.checkpoint
        return [FederationCompleted(federation_id=state.federation_id, final=final, n_rounds=n)]
    if not isinstance(state, Training) or not _is_current(state, command):
        return []  # of an attempt that was given up, or told twice
    owed = _owed_next(state, closed_without(state, command.owing), command.pool, command.at)
    trained = Trained(
        checkpoint=command.checkpoint,
        n_updates=command.n_updates,
        training=command.training,
        owed=owed,
        whole=state.whole,
    )
    if idle(command.pool, owed):
        place = (state.round_number, state.attempt)
        return [
            evaluation_exchange(
                state.federation_id, state.spec, place, trained, command.pool, command.at
            )
        ]
    busy = "every joined client is still training" if command.pool else ""
    completed = RoundCompleted(
        federation_id=state.federation_id,
        round_number=state.round_number,
        attempt=state.attempt,
        checkpoint=command.checkpoint,
        n_updates=command.n_updates,
        training=command.training,
        evaluation_error=busy or "no client was joined to evaluate",
        waits_until=_next_wait(state, command.at),
        owed=owed,
    )
    return _and_go_on(state, completed, command.pool, command.at)


def evaluated(state: State, command: CompleteEvaluation) -> Events:
    if not isinstance(state, Evaluating) or not _is_current(state, command):
        return []
    return _end_round(state, command.metrics, "", command.pool, command.at)


def exchange_failed(state: State, command: FailExchange) -> Events:
    match state:
        case Waiting(base=None) if command.exchange == "initialize":
            return [_failed(state.federation_id, command.code, command.reason)]
        case Serving() if command.exchange == "train":
            return [_failed(state.federation_id, command.code, command.reason)]
        case Training() if command.exchange == "train" and _is_current(state, command):
            return _attempt_failed(state, command.code, command.reason, command.pool, command.at)
        case Evaluating() if command.exchange == "evaluate" and _is_current(state, command):
            return _end_round(state, {}, command.reason, command.pool, command.at)
        case _:
            return []


def deadline(state: State, command: CheckDeadline) -> Events:
    match state:
        case Waiting(is_paused=True) if command.at >= state.until:
            told = f"paused until {state.until:%Y-%m-%d %H:%M} and never resumed"
            return [_failed(state.federation_id, "paused-too-long", told)]
        case Waiting() if command.at >= state.until:
            return [_failed(state.federation_id, "too-few-clients", _waited_for(state, command))]
        case Training() if command.at >= state.give_up_at:
            told = f"no aggregate {_patience(state)} s after the round's deadline"
            return _attempt_failed(state, "aggregator-silent", told, command.pool, command.at)
        case Evaluating() if command.at >= state.give_up_at:
            told = f"no evaluation {_patience(state)} s after its deadline"
            return _end_round(state, {}, told, command.pool, command.at)
        case Serving() if command.at >= state.until:
            return overdue(state, command.heard, command.at)
        case _:
            return []


# --- parts ------------------------------------------------------------------


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
        owed=_owed_next(state, state.owed, pool, at),
    )
    return _and_go_on(state, completed, pool, at)


def _attempt_failed(state: Training, code: str, reason: str, pool: Pool, at: datetime) -> Events:
    left = max(0, policy_of(state).max_attempts - state.attempt)
    failed = RoundFailed(
        federation_id=state.federation_id,
        round_number=state.round_number,
        attempt=state.attempt,
        code=code,
        reason=reason,
        attempts_left=left,
        waits_until=state.paused_until or join_wait(state, at) if left else None,
    )
    if left == 0:
        n = state.attempt
        told = f"round {state.round_number} failed {n} of {n} attempts, the last: {reason}"
        return [failed, _failed(state.federation_id, "round-failed", told)]
    return _and_go_on(state, failed, pool, at)


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
    return [event, *open_round(after, None, pool, at)]


def _owed_next(state: Training | Evaluating, owed: Owed, pool: Pool, at: datetime) -> Owed:
    """What may count in the round after this one; nothing after the last."""
    if _is_last(state):
        return ()
    return still_owed(owed, policy_of(state), state.round_number + 1, pool, at)


def _waited_for(state: Waiting, command: CheckDeadline) -> str:
    n, needed = len(command.pool), n_needed(state.spec)
    if n >= needed:
        return f"the base checkpoint was not recorded by {state.until:%H:%M:%S}"
    return f"{n} of {needed} clients had joined by {state.until:%H:%M:%S}"


def _patience(state: Training | Evaluating) -> str:
    return f"{(state.give_up_at - state.deadline_at).total_seconds():g}"


def _failed(federation_id: str, code: str, reason: str) -> FederationFailed:
    return FederationFailed(federation_id=federation_id, code=code, reason=reason)


def _is_current(
    state: Training | Evaluating, command: RecordCheckpoint | CompleteEvaluation | FailExchange
) -> bool:
    return (state.round_number, state.attempt) == (command.round_number, command.attempt)


def _is_last(state: Training | Evaluating) -> bool:
    return state.round_number >= state.spec.spec.num_rounds


def _next_wait(state: Training | Evaluating, at: datetime) -> datetime | None:
    return None if _is_last(state) else state.paused_until or join_wait(state, at)
