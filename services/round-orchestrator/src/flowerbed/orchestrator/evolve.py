"""What each event makes of a federation. Obeys, never judges."""

from dataclasses import replace
from datetime import datetime
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
    RoundEvaluationStarted,
    RoundFailed,
    RoundStarted,
)
from flowerbed.contracts.values import ArtifactRef
from flowerbed.orchestrator.state import (
    Ended,
    Evaluating,
    Nothing,
    Refused,
    State,
    Training,
    Waiting,
)

OrchestratorEvent: TypeAlias = (
    FederationCreated
    | FederationRejected
    | FederationStarted
    | FederationPaused
    | FederationResumed
    | FederationCompleted
    | FederationFailed
    | FederationCancelled
    | RoundStarted
    | RoundEvaluationStarted
    | RoundCompleted
    | RoundFailed
)


def evolve(state: State, event: OrchestratorEvent) -> State:
    match event:
        case FederationCreated():
            return Waiting(
                federation_id=event.federation_id,
                spec=event.federation_spec,
                next_round=1,
                next_attempt=1,
                base=None,
                until=event.join_deadline_at,
            )
        case FederationRejected():
            return Refused()
        case FederationCompleted():
            return Ended(outcome="completed")
        case FederationFailed():
            return Ended(outcome="failed")
        case FederationCancelled():
            return Ended(outcome="cancelled")
        case _ if isinstance(state, Nothing | Refused | Ended):
            return state  # nothing can happen to what never began or is over
        case FederationStarted():
            return replace(state, base=event.base) if isinstance(state, Waiting) else state
        case FederationPaused():
            return _paused(state, event.expires_at)
        case FederationResumed():
            return _resumed(state, event.waits_until)
        case RoundStarted():
            return _training(state, event)
        case RoundEvaluationStarted():
            return _evaluating(state, event)
        case RoundCompleted():
            place = (event.round_number + 1, 1)
            return _waiting(state, place, event.checkpoint, event.waits_until)
        case RoundFailed():
            place = (event.round_number, event.attempt + 1)
            return _waiting(state, place, _base(state), event.waits_until)
        case _:
            assert_never(event)


def _paused(state: Waiting | Training | Evaluating, until: datetime) -> State:
    if isinstance(state, Waiting):
        return replace(state, is_paused=True, until=until)
    return replace(state, paused_until=until)


def _resumed(state: Waiting | Training | Evaluating, waits_until: datetime | None) -> State:
    if isinstance(state, Waiting):
        return replace(state, is_paused=False, until=waits_until or state.until)
    return replace(state, paused_until=None)


def _training(state: Waiting | Training | Evaluating, event: RoundStarted) -> Training:
    return Training(
        federation_id=event.federation_id,
        spec=state.spec,
        round_number=event.round_number,
        attempt=event.attempt,
        base=event.base,
        deadline_at=event.deadline_at,
    )


def _evaluating(
    state: Waiting | Training | Evaluating, event: RoundEvaluationStarted
) -> Evaluating:
    return Evaluating(
        federation_id=event.federation_id,
        spec=state.spec,
        round_number=event.round_number,
        attempt=event.attempt,
        checkpoint=event.base,
        deadline_at=event.deadline_at,
        n_updates=event.n_updates,
        training=tuple(sorted(event.training.items())),
        paused_until=None if isinstance(state, Waiting) else state.paused_until,
    )


def _waiting(
    state: Waiting | Training | Evaluating,
    place: tuple[int, int],
    base: ArtifactRef | None,
    waits_until: datetime | None,
) -> State:
    """Between rounds. Without a deadline nothing follows but the end, which is told next."""
    if isinstance(state, Waiting):
        return state
    until = waits_until or state.deadline_at
    return Waiting(
        federation_id=state.federation_id,
        spec=state.spec,
        next_round=place[0],
        next_attempt=place[1],
        base=base,
        until=until,
        is_paused=state.paused_until is not None,
    )


def _base(state: Waiting | Training | Evaluating) -> ArtifactRef | None:
    return state.checkpoint if isinstance(state, Evaluating) else state.base
