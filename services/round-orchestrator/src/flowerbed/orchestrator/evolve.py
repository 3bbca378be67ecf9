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
    FederationPolicyChanged,
    FederationRejected,
    FederationResumed,
    FederationStarted,
)
from flowerbed.contracts.policy import Budget
from flowerbed.contracts.round import (
    RoundCompleted,
    RoundEvaluationStarted,
    RoundFailed,
    RoundMemberReplaced,
    RoundStarted,
)
from flowerbed.contracts.server_app import ServerAppExtended, ServerAppStarted
from flowerbed.contracts.values import ArtifactRef
from flowerbed.orchestrator.state import (
    Ended,
    Evaluating,
    Nothing,
    Refused,
    Serving,
    State,
    Training,
    Waiting,
    patience,
    policy_of,
    with_policy,
)

OrchestratorEvent: TypeAlias = (
    FederationCreated
    | FederationRejected
    | FederationStarted
    | FederationPaused
    | FederationResumed
    | FederationPolicyChanged
    | FederationCompleted
    | FederationFailed
    | FederationCancelled
    | RoundStarted
    | RoundMemberReplaced
    | RoundEvaluationStarted
    | RoundCompleted
    | RoundFailed
    | ServerAppStarted
    | ServerAppExtended
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
        case ServerAppStarted() | ServerAppExtended():
            until = event.deadline_at + patience(policy_of(state))
            return Serving(federation_id=state.federation_id, spec=state.spec, until=until)
        case _ if isinstance(state, Serving):
            return state  # its exchanges are the aggregator's
        case FederationStarted():
            return _started(state, event.base)
        case FederationPaused():
            return _paused(state, event.expires_at)
        case FederationResumed():
            return _resumed(state, event.waits_until)
        case FederationPolicyChanged():
            return _changed(state, event)
        case RoundStarted():
            return _training(state, event)
        case RoundMemberReplaced():
            return _replaced(state, event)
        case RoundEvaluationStarted():
            return _evaluating(state, event)
        case RoundCompleted():
            return _next_round(state, event)
        case RoundFailed():
            return _next_attempt(state, event)
        case _:
            assert_never(event)


def _started(state: Waiting | Training | Evaluating, base: ArtifactRef) -> State:
    return replace(state, base=base, whole=base) if isinstance(state, Waiting) else state


def _paused(state: Waiting | Training | Evaluating, until: datetime) -> State:
    if isinstance(state, Waiting):
        return replace(state, is_paused=True, until=until)
    return replace(state, paused_until=until)


def _resumed(state: Waiting | Training | Evaluating, waits_until: datetime | None) -> State:
    if isinstance(state, Waiting):
        return replace(state, is_paused=False, until=waits_until or state.until)
    return replace(state, paused_until=None)


def _changed(
    state: Waiting | Training | Evaluating, event: FederationPolicyChanged
) -> Waiting | Training | Evaluating:
    """The open exchange keeps the time-outs that it began with."""
    changed = with_policy(state, event.round_policy)
    if isinstance(changed, Waiting) and event.waits_until is not None:
        return replace(changed, until=event.waits_until)
    return changed


def _training(state: Waiting | Training | Evaluating, event: RoundStarted) -> Training:
    budget = Budget.of(policy_of(state))
    return Training(
        federation_id=event.federation_id,
        spec=state.spec,
        round_number=event.round_number,
        attempt=event.attempt,
        base=event.base,
        deadline_at=event.deadline_at,
        give_up_at=event.deadline_at + patience(policy_of(state)),
        replace_until=event.deadline_at - (budget.exchange - budget.replace_until),
        work_until=event.work_until or event.deadline_at,
        cohort=event.cohort,
        owed=event.owed,
        whole=state.whole,
    )


def _replaced(state: Waiting | Training | Evaluating, event: RoundMemberReplaced) -> State:
    if not isinstance(state, Training):
        return state
    before, after = state.cohort[: event.place], state.cohort[event.place + 1 :]
    return replace(state, cohort=(*before, event.replacement, *after))


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
        give_up_at=event.deadline_at + patience(policy_of(state)),
        n_updates=event.n_updates,
        training=tuple(sorted(event.training.items())),
        owed=event.owed,
        paused_until=None if isinstance(state, Waiting) else state.paused_until,
        whole=state.whole,
    )


def _next_round(state: Waiting | Training | Evaluating, event: RoundCompleted) -> State:
    if isinstance(state, Waiting):
        return state
    return replace(
        _waiting(state, event.waits_until),
        next_round=event.round_number + 1,
        next_attempt=1,
        base=event.checkpoint,
        owed=event.owed,
    )


def _next_attempt(state: Waiting | Training | Evaluating, event: RoundFailed) -> State:
    """The same round again, with the same clients first; work owed before it still is."""
    if not isinstance(state, Training):
        return state
    return replace(
        _waiting(state, event.waits_until),
        next_attempt=event.attempt + 1,
        owed=state.owed,
        asked_before=state.cohort,
    )


def _waiting(state: Training | Evaluating, waits_until: datetime | None) -> Waiting:
    """Between rounds. Without a deadline nothing follows but the end, which is told next."""
    return Waiting(
        federation_id=state.federation_id,
        spec=state.spec,
        next_round=state.round_number,
        next_attempt=state.attempt,
        base=state.checkpoint if isinstance(state, Evaluating) else state.base,
        until=waits_until or state.deadline_at,
        is_paused=state.paused_until is not None,
        whole=state.whole,
    )
