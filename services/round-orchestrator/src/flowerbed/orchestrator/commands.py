"""What may be asked of a federation. Time, the joined clients and the base come in with it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

from flowerbed.contracts.spec import FederationSpec
from flowerbed.contracts.values import ArtifactRef, Problem
from flowerbed.orchestrator.state import Pool


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmitFederation:
    """`is_upgraded`: no replica of the release before reads what is recorded."""

    federation_id: str
    submission_id: str
    spec: FederationSpec | None
    problems: tuple[Problem, ...]
    code_hash: str
    at: datetime
    is_upgraded: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenRound:
    """Start the next round if the base checkpoint is there and enough clients are joined."""

    base: ArtifactRef | None
    pool: Pool
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordCheckpoint:
    """The round's new checkpoint is verified and recorded.

    `owing`: work ids that its aggregate closed without.
    """

    round_number: int
    attempt: int
    checkpoint: ArtifactRef
    n_updates: int
    training: dict[str, float]
    pool: Pool
    at: datetime
    owing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CompleteEvaluation:
    round_number: int
    attempt: int
    metrics: dict[str, float]
    pool: Pool
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class FailExchange:
    """The aggregator gave an exchange up. `round_number` 0 is the making of the base."""

    round_number: int
    attempt: int
    exchange: str
    code: str
    reason: str
    pool: Pool
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckDeadline:
    """Time passed. Early or late, it is never wrong.

    `heard`: when the newest messages of a whole ServerApp run out.
    """

    pool: Pool
    at: datetime
    heard: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplaceMembers:
    """The pool changed: give the places of clients that left the open training to others."""

    pool: Pool
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangePolicy:
    """`changes`: the policy's changed keys, as a person wrote them."""

    changes: Mapping[str, object]
    reason: str
    base: ArtifactRef | None
    pool: Pool
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class PauseFederation:
    reason: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumeFederation:
    base: ArtifactRef | None
    pool: Pool
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelFederation:
    reason: str


Command: TypeAlias = (
    SubmitFederation
    | OpenRound
    | RecordCheckpoint
    | CompleteEvaluation
    | FailExchange
    | CheckDeadline
    | ReplaceMembers
    | ChangePolicy
    | PauseFederation
    | ResumeFederation
    | CancelFederation
)
