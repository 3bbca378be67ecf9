"""Commands that the gateway forwards. Internal token only."""

from collections.abc import Callable, Sequence
from typing import Any

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, SecretStr

from flowerbed.contracts.federation import FederationPolicyChanged
from flowerbed.contracts.round import RoundStarted
from flowerbed.contracts.values import Token, Words
from flowerbed.events.context import Context
from flowerbed.events.database import Database
from flowerbed.events.http import Actor, internal_only
from flowerbed.events.release import UpgradeUnfinished
from flowerbed.orchestrator.commanding import Federations, Situation
from flowerbed.orchestrator.commands import (
    CancelFederation,
    ChangePolicy,
    Command,
    PauseFederation,
    ResumeFederation,
)
from flowerbed.orchestrator.evolve import OrchestratorEvent
from flowerbed.orchestrator.state import Evaluating, State, Training, Waiting, policy_of


class FederationCommand(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    tenant: Token
    reason: Words = ""
    actor: str | None = None


class PolicyCommand(FederationCommand):
    """`changes`: the policy's changed keys, in either spelling."""

    changes: dict[str, Any]


class Answer(BaseModel):
    """`events`: the types of what was recorded; empty where the command changed nothing."""

    federation_id: str
    events: list[str]


class PolicyAnswer(Answer):
    """`policy`: as it is now, snake_case. `changed`: its keys that are another than before.

    `counts_from`: in words, what follows it first.
    """

    policy: dict[str, Any]
    changed: tuple[str, ...]
    counts_from: str


def internal_routes(token: SecretStr, database: Database, federations: Federations) -> APIRouter:
    router = APIRouter(prefix="/internal/federations", dependencies=[Depends(internal_only(token))])

    async def give(context: Context, make: Callable[[Situation], Command]) -> Answer:
        federation_id = context.correlation_id
        recorded = await federations.handle(database, federation_id, make, context)
        return Answer(federation_id=federation_id, events=[one.type for one in recorded])

    @router.post("/{federation_id}/pause")
    async def pause(federation_id: str, request: FederationCommand, actor: Actor = None) -> Answer:
        def make(now: Situation) -> Command:
            return PauseFederation(reason=request.reason, at=now.at)

        return await give(_context(federation_id, request, actor), make)

    @router.post("/{federation_id}/resume")
    async def resume(federation_id: str, request: FederationCommand, actor: Actor = None) -> Answer:
        def make(now: Situation) -> Command:
            return ResumeFederation(base=now.base, pool=now.pool, at=now.at)

        return await give(_context(federation_id, request, actor), make)

    @router.post("/{federation_id}/policy")
    async def policy(
        federation_id: str, request: PolicyCommand, actor: Actor = None
    ) -> PolicyAnswer:
        def make(now: Situation) -> Command:
            if not now.is_upgraded:
                raise UpgradeUnfinished()
            return ChangePolicy(
                changes=request.changes,
                reason=request.reason,
                base=now.base,
                pool=now.pool,
                at=now.at,
            )

        context = _context(federation_id, request, actor)
        async with database.transaction(request.tenant) as tx:
            recorded = await federations.command(tx, federation_id, make, context)
            state = await federations.state(tx, federation_id)
        return _policy_answer(federation_id, [one.event for one in recorded], state)

    @router.post("/{federation_id}/cancel")
    async def cancel(federation_id: str, request: FederationCommand, actor: Actor = None) -> Answer:
        def make(now: Situation) -> Command:
            return CancelFederation(reason=request.reason)

        return await give(_context(federation_id, request, actor), make)

    return router


def _context(federation_id: str, request: FederationCommand, actor: str | None) -> Context:
    return Context(
        tenant=request.tenant, correlation_id=federation_id, actor=actor or request.actor
    )


def _policy_answer(
    federation_id: str, events: Sequence[OrchestratorEvent], state: State
) -> PolicyAnswer:
    assert isinstance(state, Waiting | Training | Evaluating)  # what is over refuses the command
    changed = [event for event in events if isinstance(event, FederationPolicyChanged)]
    return PolicyAnswer(
        federation_id=federation_id,
        events=[event.type for event in events],
        policy=policy_of(state).model_dump(mode="json"),
        changed=changed[0].changed if changed else (),
        counts_from=_counts_from(state, is_opened=any(isinstance(e, RoundStarted) for e in events)),
    )


def _counts_from(state: Waiting | Training | Evaluating, *, is_opened: bool) -> str:
    match state:
        case Waiting():
            return f"round {state.next_round}, attempt {state.next_attempt}, which starts next"
        case Training() if is_opened:
            return f"round {state.round_number}, attempt {state.attempt}, which starts now"
        case Training() | Evaluating():
            doing = "training" if isinstance(state, Training) else "evaluation"
            return f"what follows the {doing} of round {state.round_number}, which is open"
