"""A whole ServerApp's journal: what it sent, what it was handed, how it ended.

    Journal ── push, pull, restart ──> Journal ── complete, fail ──> closed

After a crash `main` is run again, and `replay.py` answers it from here. Stream
`serverapp-<federation>`. Pure code.
"""

from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Literal, TypeAlias, assert_never

from flowerbed.contracts.aggregate import AggregateCompleted, AggregateFailed
from flowerbed.contracts.server_app import (
    MessagesPulled,
    MessagesPushed,
    PulledReply,
    PushedMessage,
    ServerAppCompleted,
    ServerAppRestarted,
    WrittenFile,
)
from flowerbed.contracts.values import ArtifactRef, Sha256
from flowerbed.events.decider import Decider

Entry: TypeAlias = MessagesPushed | MessagesPulled
JournalEvent: TypeAlias = (
    Entry | ServerAppRestarted | ServerAppCompleted | AggregateCompleted | AggregateFailed
)

# --- commands ---------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class PushMessages:
    federation_id: str
    cohort: tuple[PushedMessage, ...]
    n_nodes: int
    deadline_at: datetime
    at: float
    n_empty: int
    is_main: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PullReplies:
    federation_id: str
    round_number: int
    replies: tuple[PulledReply, ...]
    n_open: int
    closed: tuple[int, ...]
    at: float
    n_empty: int
    is_main: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartApp:
    federation_id: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CompleteApp:
    federation_id: str
    checkpoint: ArtifactRef
    arrays_from: Literal["result", "last-sent", "none"]
    app: Sha256
    files: tuple[WrittenFile, ...] = ()
    training: dict[str, float] = field(default_factory=dict)
    evaluation: dict[str, float] = field(default_factory=dict)
    central: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class FailApp:
    federation_id: str
    code: str
    reason: str


JournalCommand: TypeAlias = PushMessages | PullReplies | RestartApp | CompleteApp | FailApp

# --- state ------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Journal:
    """`n_restarts`: since the last entry. `n_attempts`: of `main`, in all."""

    entries: tuple[Entry, ...] = ()
    n_exchanges: int = 0
    n_restarts: int = 0
    n_attempts: int = 1
    is_closed: bool = False


# --- decide -----------------------------------------------------------------


def decide(state: Journal, command: JournalCommand) -> list[JournalEvent]:
    if state.is_closed:
        return []
    match command:
        case PushMessages():
            return [_pushed(state, command)]
        case PullReplies():
            return [_pulled(command)]
        case RestartApp():
            return [_restarted(state, command)]
        case CompleteApp():
            return _completed(state, command)
        case FailApp():
            return [_failed(state, command)]
        case _:
            assert_never(command)


def _pushed(state: Journal, command: PushMessages) -> MessagesPushed:
    return MessagesPushed(
        federation_id=command.federation_id,
        round_number=state.n_exchanges + 1,
        cohort=command.cohort,
        n_nodes=command.n_nodes,
        deadline_at=command.deadline_at,
        at=command.at,
        n_empty=command.n_empty,
        is_main=command.is_main,
    )


def _pulled(command: PullReplies) -> MessagesPulled:
    return MessagesPulled(
        federation_id=command.federation_id,
        round_number=command.round_number,
        replies=command.replies,
        n_open=command.n_open,
        closed=command.closed,
        at=command.at,
        n_empty=command.n_empty,
        is_main=command.is_main,
    )


def _restarted(state: Journal, command: RestartApp) -> ServerAppRestarted:
    return ServerAppRestarted(
        federation_id=command.federation_id,
        attempt=state.n_attempts + 1,
        reason=command.reason,
        n_answered=len(state.entries),
    )


def _completed(state: Journal, command: CompleteApp) -> list[JournalEvent]:
    """The checkpoint is one of the last exchange's; what it was made from is the app."""
    return [
        ServerAppCompleted(
            federation_id=command.federation_id,
            n_exchanges=state.n_exchanges,
            checkpoint=command.checkpoint,
            arrays_from=command.arrays_from,
            files=command.files,
            training=command.training,
            evaluation=command.evaluation,
            central=command.central,
            app=command.app,
        ),
        AggregateCompleted(
            federation_id=command.federation_id,
            round_number=max(1, state.n_exchanges),
            attempt=1,
            exchange="train",
            checkpoint=command.checkpoint,
            parents=(command.app,),
            metrics={**command.training, **command.evaluation, **command.central},
        ),
    ]


def _failed(state: Journal, command: FailApp) -> AggregateFailed:
    return AggregateFailed(
        federation_id=command.federation_id,
        round_number=max(1, state.n_exchanges),
        attempt=1,
        exchange="train",
        code=command.code,
        reason=command.reason,
    )


# --- evolve -----------------------------------------------------------------


def evolve(state: Journal, event: JournalEvent) -> Journal:
    match event:
        case MessagesPushed():
            number = event.round_number
            entries = (*state.entries, event)
            return replace(state, entries=entries, n_exchanges=number, n_restarts=0)
        case MessagesPulled():
            return replace(state, entries=(*state.entries, event), n_restarts=0)
        case ServerAppRestarted():
            return replace(state, n_restarts=state.n_restarts + 1, n_attempts=event.attempt)
        case ServerAppCompleted():
            return state
        case AggregateCompleted() | AggregateFailed():
            return replace(state, is_closed=True)
        case _:
            assert_never(event)


journal: Decider[Journal, JournalCommand, JournalEvent] = Decider(Journal(), decide, evolve)
