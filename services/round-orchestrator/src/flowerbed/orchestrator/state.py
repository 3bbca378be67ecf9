"""What a federation can be, and what may be asked of it.

    Nothing ── submit ──> Waiting ── start ──> Training ── checkpoint ──> Evaluating
                 │           ^  │                 │  ^                        │
                 v           │  │ deadline        │  └── another attempt      │
              Refused        │  v                 v                           │
                             │ Ended <── attempts used up                     │
                             └───────────── round completed ──────────────────┘

`Waiting` is every pause between exchanges: before the first round, and between two rounds while
too few clients are joined or a person has paused the federation. Time, the joined clients and the
base checkpoint come in with the command.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

from flowerbed.contracts.spec import FederationSpec
from flowerbed.contracts.values import ArtifactRef, Problem

# --- commands ---------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A joined client. `dataset_sha256` orders the pool, because it is the same in every run."""

    client_id: str
    lease_id: str
    lease_epoch: int
    dataset_sha256: str


Pool: TypeAlias = tuple[Member, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmitFederation:
    federation_id: str
    submission_id: str
    spec: FederationSpec | None
    problems: tuple[Problem, ...]
    code_hash: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenRound:
    """Start the next round if the base checkpoint is there and enough clients are joined."""

    base: ArtifactRef | None
    pool: Pool
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordCheckpoint:
    """The round's new checkpoint is verified and recorded."""

    round_number: int
    attempt: int
    checkpoint: ArtifactRef
    n_updates: int
    training: dict[str, float]
    pool: Pool
    at: datetime


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
    """Time passed. Early or late, it is never wrong."""

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
    | PauseFederation
    | ResumeFederation
    | CancelFederation
)

# --- state ------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Nothing:
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """Before a round. `base` is None until the federation has started.

    `until`: the deadline, of the pause where `is_paused`.
    """

    federation_id: str
    spec: FederationSpec
    next_round: int
    next_attempt: int
    base: ArtifactRef | None
    until: datetime
    is_paused: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    federation_id: str
    spec: FederationSpec
    round_number: int
    attempt: int
    base: ArtifactRef
    deadline_at: datetime
    paused_until: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluating:
    """`n_updates` and `training` wait here for `round.completed`."""

    federation_id: str
    spec: FederationSpec
    round_number: int
    attempt: int
    checkpoint: ArtifactRef
    deadline_at: datetime
    n_updates: int
    training: tuple[tuple[str, float], ...]
    paused_until: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """`outcome`: completed, failed or cancelled."""

    outcome: str


State: TypeAlias = Nothing | Refused | Waiting | Training | Evaluating | Ended
