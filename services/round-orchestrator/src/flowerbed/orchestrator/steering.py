"""What a person commands a federation: pause, resume, another policy, the end. Pure."""

from datetime import timedelta
from typing import assert_never

from flowerbed.contracts.federation import (
    FederationCancelled,
    FederationPaused,
    FederationPolicyChanged,
    FederationResumed,
)
from flowerbed.contracts.policy import RoundPolicy
from flowerbed.contracts.problems import SpecRefused, parse_policy_changes
from flowerbed.contracts.values import Problem
from flowerbed.events.errors import NotFound, Rejected
from flowerbed.orchestrator.commands import (
    CancelFederation,
    ChangePolicy,
    PauseFederation,
    ResumeFederation,
)
from flowerbed.orchestrator.evolve import evolve
from flowerbed.orchestrator.rounds import Events, open_round
from flowerbed.orchestrator.state import (
    Ended,
    Evaluating,
    Nothing,
    Refused,
    Serving,
    State,
    Training,
    Waiting,
    join_wait,
    policy_of,
    with_policy,
)

LONGEST_PAUSE = timedelta(days=30)


class FederationEnded(Rejected):
    code = "federation-ended"


class SteersItself(Rejected):
    """A whole ServerApp decides itself when it sends messages; it can only be cancelled."""

    code = "server-app-whole"


class PolicyRefused(Rejected):
    """With every broken rule in `errors`."""

    code = "policy-refused"
    status = 422


def pause(state: State, command: PauseFederation) -> Events:
    match state:
        case Nothing() | Refused() | Ended():
            raise _over(state, "paused")
        case Serving():
            raise SteersItself("a whole ServerApp runs, which cannot be paused: cancel it")
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


def resume(state: State, command: ResumeFederation) -> Events:
    match state:
        case Nothing() | Refused() | Ended():
            raise _over(state, "resumed")
        case (
            Waiting(is_paused=False)
            | Training(paused_until=None)
            | Evaluating(paused_until=None)
            | Serving()
        ):
            return []
        case _:
            until = join_wait(state, command.at) if isinstance(state, Waiting) else None
            resumed = FederationResumed(federation_id=state.federation_id, waits_until=until)
            after = evolve(state, resumed)
            return [resumed, *open_round(after, command.base, command.pool, command.at)]


def change_policy(state: State, command: ChangePolicy) -> Events:
    """Exchanges that start from here on follow it; a wait for clients is counted anew."""
    if isinstance(state, Nothing | Refused | Ended):
        raise _over(state, "given another policy")
    if isinstance(state, Serving):
        raise SteersItself("a whole ServerApp runs, whose time-outs stay as they were submitted")
    before, after = policy_of(state), _changed(state, command)
    changed = tuple(
        name for name in RoundPolicy.model_fields if getattr(before, name) != getattr(after, name)
    )
    if not changed:
        return []
    waits = isinstance(state, Waiting) and not state.is_paused
    event = FederationPolicyChanged(
        federation_id=state.federation_id,
        policy=after.model_dump(mode="json"),
        changed=changed,
        reason=command.reason,
        waits_until=join_wait(with_policy(state, after), command.at) if waits else None,
    )
    opened = open_round(evolve(state, event), command.base, command.pool, command.at)
    return [event, *opened]


def cancel(state: State, command: CancelFederation) -> Events:
    match state:
        case Ended(outcome="cancelled"):
            return []
        case Nothing() | Refused() | Ended():
            raise _over(state, "cancelled")
        case _:
            return [FederationCancelled(federation_id=state.federation_id, reason=command.reason)]


def _changed(state: Waiting | Training | Evaluating, command: ChangePolicy) -> RoundPolicy:
    spec = state.spec.spec
    try:
        policy = parse_policy_changes(policy_of(state), command.changes)
        if told := spec.strategy.refusal_of(policy, spec.min_clients):
            value = str(dict(command.changes))[:80]
            raise SpecRefused((Problem(path="round_policy", value=value, allowed=told),))
        return policy
    except SpecRefused as refused:
        problems = [problem.model_dump() for problem in refused.problems]
        n = f"{len(problems)} broken rule{'' if len(problems) == 1 else 's'}"
        raise PolicyRefused(f"{n} in the policy; nothing changed", errors=problems) from refused


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
