"""One client's right to work in one federation, and the work it reports under it.

    Free ── issue ──> Offered ── claim ──> Held ── submit, fail ──> Held
                    decline: says why not, and changes neither Offered nor Held
     ^                   │                   │
     └── drop, release ──┴───────────────────┘   an evaluation that Free or Offered owes: missed

Every issue raises the epoch by one. The epoch is the fencing token: work done under an older
epoch is refused. A heartbeat is no event: it only moves the moment at which silence counts.
"""

from dataclasses import dataclass, replace
from typing import TypeAlias, assert_never

from flowerbed.contracts.client import (
    ClientDeclined,
    ClientDropped,
    ClientJoined,
    ClientLeaseIssued,
    ClientReleased,
)
from flowerbed.contracts.server_app import MessageAnswered
from flowerbed.contracts.update import UpdateFailed, UpdateSubmitted
from flowerbed.contracts.values import DatasetRef
from flowerbed.events.decider import Decider
from flowerbed.events.errors import Rejected

# --- commands ---------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class IssueLease:
    federation_id: str
    client_id: str
    lease_id: str
    ttl_seconds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimLease:
    epoch: int
    dataset: DatasetRef
    node_key: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeclineLease:
    """The site says why it does not work under the lease now."""

    epoch: int
    code: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmitUpdate:
    """`update` names the work; it was ordered, which the caller has looked up."""

    update: UpdateSubmitted


@dataclass(frozen=True, slots=True, kw_only=True)
class FailUpdate:
    failure: UpdateFailed


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerMessage:
    """Of a whole ServerApp's: the reply, or why there is none."""

    answer: MessageAnswered


@dataclass(frozen=True, slots=True, kw_only=True)
class MissWork:
    """Nobody holds the lease, and nobody is waited for: the work counts as failed."""

    failure: UpdateFailed | MessageAnswered


@dataclass(frozen=True, slots=True, kw_only=True)
class DropClient:
    """Silence. `epoch` None drops whatever is held."""

    epoch: int | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseLease:
    epoch: int | None
    reason: str


LeaseCommand: TypeAlias = (
    IssueLease
    | ClaimLease
    | DeclineLease
    | SubmitUpdate
    | FailUpdate
    | AnswerMessage
    | MissWork
    | DropClient
    | ReleaseLease
)
LeaseEvent: TypeAlias = (
    ClientLeaseIssued
    | ClientJoined
    | ClientDeclined
    | ClientDropped
    | ClientReleased
    | UpdateSubmitted
    | UpdateFailed
    | MessageAnswered
)

# --- state ------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    federation_id: str
    client_id: str
    lease_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Free:
    epoch: int = 0
    answered: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Offered:
    """`declined`: the last reason that the site gave, so that saying it again changes nothing."""

    identity: Identity
    epoch: int
    answered: frozenset[str]
    declined: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """`answered`: the work ids that were reported, so that a repeated report changes nothing.
    `node_key`: of the SuperNode that works under it, if one does."""

    identity: Identity
    epoch: int
    dataset: DatasetRef
    answered: frozenset[str]
    declined: str = ""
    node_key: str | None = None


LeaseState: TypeAlias = Free | Offered | Held

# --- errors -----------------------------------------------------------------


class LeaseLost(Rejected):
    code = "lease-lost"
    status = 410


class DatasetChanged(Rejected):
    code = "dataset-changed"


class NodeChanged(Rejected):
    code = "node-changed"


def answering(answer: UpdateSubmitted | UpdateFailed | MessageAnswered) -> LeaseCommand:
    """The command that records it."""
    match answer:
        case UpdateSubmitted():
            return SubmitUpdate(update=answer)
        case UpdateFailed():
            return FailUpdate(failure=answer)
        case MessageAnswered():
            return AnswerMessage(answer=answer)
        case _:
            assert_never(answer)


# --- decide -----------------------------------------------------------------


def decide(state: LeaseState, command: LeaseCommand) -> list[LeaseEvent]:
    match command:
        case IssueLease():
            return _issue(state, command)
        case ClaimLease():
            return _claim(state, command)
        case DeclineLease():
            return _decline(state, command)
        case SubmitUpdate():
            return _answer(state, command.update)
        case FailUpdate():
            return _answer(state, command.failure)
        case AnswerMessage():
            return _answer(state, command.answer)
        case MissWork():
            return _miss(state, command.failure)
        case DropClient():
            return _drop(state, command)
        case ReleaseLease():
            return _release(state, command)
        case _:
            assert_never(command)


def _issue(state: LeaseState, command: IssueLease) -> list[LeaseEvent]:
    if not isinstance(state, Free):
        return []  # offered or held already
    return [
        ClientLeaseIssued(
            federation_id=command.federation_id,
            client_id=command.client_id,
            lease_id=command.lease_id,
            epoch=state.epoch + 1,
            ttl_seconds=command.ttl_seconds,
        )
    ]


def _claim(state: LeaseState, command: ClaimLease) -> list[LeaseEvent]:
    match state:
        case Offered(epoch=command.epoch):
            return [
                ClientJoined(
                    federation_id=state.identity.federation_id,
                    client_id=state.identity.client_id,
                    lease_id=state.identity.lease_id,
                    epoch=state.epoch,
                    dataset=command.dataset,
                    node_key=command.node_key,
                )
            ]
        case Held(epoch=command.epoch, dataset=command.dataset, node_key=command.node_key):
            return []  # claiming again is the same claim
        case Held(epoch=command.epoch, dataset=command.dataset):
            raise NodeChanged("the lease was claimed with another SuperNode's key")
        case Held(epoch=command.epoch):
            raise DatasetChanged(
                f"the lease was claimed with dataset {state.dataset.sha256[:12]},"
                f" not {command.dataset.sha256[:12]}"
            )
        case _:
            raise _lost(state, command.epoch)


def _decline(state: LeaseState, command: DeclineLease) -> list[LeaseEvent]:
    if isinstance(state, Free) or state.epoch != command.epoch:
        raise _lost(state, command.epoch)
    if state.declined == command.code:
        return []
    return [
        ClientDeclined(
            federation_id=state.identity.federation_id,
            client_id=state.identity.client_id,
            lease_id=state.identity.lease_id,
            epoch=state.epoch,
            code=command.code,
            detail=command.detail,
        )
    ]


def _answer(
    state: LeaseState, answer: UpdateSubmitted | UpdateFailed | MessageAnswered
) -> list[LeaseEvent]:
    if not isinstance(state, Held) or state.epoch != answer.lease_epoch:
        raise _lost(state, answer.lease_epoch)
    return [] if answer.work_id in state.answered else [answer]


def _miss(state: LeaseState, failure: UpdateFailed | MessageAnswered) -> list[LeaseEvent]:
    if isinstance(state, Held) or failure.work_id in state.answered:
        return []  # whoever holds the lease answers
    return [failure]


def _drop(state: LeaseState, command: DropClient) -> list[LeaseEvent]:
    if isinstance(state, Free) or command.epoch not in (None, state.epoch):
        return []  # the sweeper may be late; it is never wrong
    return [
        ClientDropped(
            federation_id=state.identity.federation_id,
            client_id=state.identity.client_id,
            lease_id=state.identity.lease_id,
            epoch=state.epoch,
            reason=command.reason,
        )
    ]


def _release(state: LeaseState, command: ReleaseLease) -> list[LeaseEvent]:
    if isinstance(state, Free) or command.epoch not in (None, state.epoch):
        return []  # already let go: releasing twice is not an error
    return [
        ClientReleased(
            federation_id=state.identity.federation_id,
            client_id=state.identity.client_id,
            lease_id=state.identity.lease_id,
            epoch=state.epoch,
            reason=command.reason,
        )
    ]


def _lost(state: LeaseState, epoch: int) -> LeaseLost:
    return LeaseLost(f"epoch {epoch} does not hold the lease (now {state.epoch})")


# --- evolve -----------------------------------------------------------------


def evolve(state: LeaseState, event: LeaseEvent) -> LeaseState:
    match event:
        case ClientLeaseIssued():
            identity = Identity(
                federation_id=event.federation_id,
                client_id=event.client_id,
                lease_id=event.lease_id,
            )
            return Offered(identity=identity, epoch=event.epoch, answered=state.answered)
        case ClientJoined():
            identity = Identity(
                federation_id=event.federation_id,
                client_id=event.client_id,
                lease_id=event.lease_id,
            )
            return Held(
                identity=identity,
                epoch=event.epoch,
                dataset=event.dataset,
                answered=state.answered,
                node_key=event.node_key,
            )
        case ClientDeclined():
            return state if isinstance(state, Free) else replace(state, declined=event.code)
        case UpdateSubmitted() | UpdateFailed() | MessageAnswered():
            return replace(state, answered=state.answered | {event.work_id})
        case ClientDropped() | ClientReleased():
            return Free(epoch=event.epoch, answered=state.answered)
        case _:
            assert_never(event)


lease: Decider[LeaseState, LeaseCommand, LeaseEvent] = Decider(Free(), decide, evolve)
