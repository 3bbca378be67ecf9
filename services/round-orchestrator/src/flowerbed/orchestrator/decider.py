"""What a federation does next. Pure: see `state.py` for the picture.

`rounds.py` moves rounds on, `steering.py` does what a person commands, `cohorts.py` chooses who
is asked.
"""

from datetime import timedelta
from typing import assert_never

from flowerbed.contracts.federation import FederationCreated, FederationRejected
from flowerbed.events.decider import Decider
from flowerbed.orchestrator.cohorts import replacements
from flowerbed.orchestrator.commands import (
    CancelFederation,
    ChangePolicy,
    CheckDeadline,
    Command,
    CompleteEvaluation,
    FailExchange,
    OpenRound,
    PauseFederation,
    RecordCheckpoint,
    ReplaceMembers,
    ResumeFederation,
    SubmitFederation,
)
from flowerbed.orchestrator.evolve import OrchestratorEvent, evolve
from flowerbed.orchestrator.rounds import (
    Events,
    checkpoint,
    deadline,
    evaluated,
    exchange_failed,
    open_round,
)
from flowerbed.orchestrator.state import Nothing, State, Training
from flowerbed.orchestrator.steering import cancel, change_policy, pause, resume


def decide(state: State, command: Command) -> Events:
    match command:
        case SubmitFederation():
            return _submit(state, command)
        case OpenRound():
            return open_round(state, command.base, command.pool, command.at)
        case RecordCheckpoint():
            return checkpoint(state, command)
        case CompleteEvaluation():
            return evaluated(state, command)
        case FailExchange():
            return exchange_failed(state, command)
        case CheckDeadline():
            return deadline(state, command)
        case ReplaceMembers():
            return _replace(state, command)
        case PauseFederation():
            return pause(state, command)
        case ResumeFederation():
            return resume(state, command)
        case ChangePolicy():
            return change_policy(state, command)
        case CancelFederation():
            return cancel(state, command)
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
    spec = command.spec.document() if command.is_upgraded else command.spec.brief()
    wait = timedelta(seconds=command.spec.spec.round_policy.join_deadline_seconds)
    return [
        FederationCreated(
            federation_id=command.federation_id,
            submission_id=command.submission_id,
            spec=spec,
            code_hash=command.code_hash,
            join_deadline_at=command.at + wait,
        )
    ]


def _replace(state: State, command: ReplaceMembers) -> Events:
    """An evaluation replaces nobody: what it lacks is only a figure."""
    if not isinstance(state, Training):
        return []
    return [*replacements(state, command.pool, command.at)]


federation: Decider[State, Command, OrchestratorEvent] = Decider(Nothing(), decide, evolve)
