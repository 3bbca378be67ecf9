"""What a federation can be. `commands.py` has what may be asked of it.

    Nothing ── submit ──> Waiting ── start ──> Training ── checkpoint ──> Evaluating
                 │           ^  │                 │  ^                        │
                 v           │  │ deadline        │  └── another attempt      │
              Refused        │  v                 v                           │
                             │ Ended <── attempts used up                     │
                             └───────────── round completed ──────────────────┘

With `server_app: whole`, Waiting ── start ──> Serving ── checkpoint ──> Ended.

`Waiting` is every pause between exchanges: before the first round, and between two rounds while
too few clients are joined or a person has paused the federation. Work that clients still owe
goes along from state to state, while the policy lets it count.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TypeAlias

from flowerbed.contracts.policy import Budget, RoundPolicy
from flowerbed.contracts.round import CohortMember, OwedWork
from flowerbed.contracts.spec import FederationSpec
from flowerbed.contracts.values import ArtifactRef


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A joined client. `dataset_sha256` orders the pool, because it is the same in every run."""

    client_id: str
    lease_id: str
    lease_epoch: int
    dataset_sha256: str


Pool: TypeAlias = tuple[Member, ...]
Owed: TypeAlias = tuple[OwedWork, ...]
Cohort: TypeAlias = tuple[CohortMember, ...]


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
    `owed`: training of earlier rounds that goes on.
    `asked_before`: the cohort of the attempt that failed, if one did.
    `whole`: the base that the federation started from.
    """

    federation_id: str
    spec: FederationSpec
    next_round: int
    next_attempt: int
    base: ArtifactRef | None
    until: datetime
    is_paused: bool = False
    owed: Owed = ()
    asked_before: Cohort = ()
    whole: ArtifactRef | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """`owed`: work of earlier rounds that counts here. `work_until`: when the cohort's runs out.

    `replace_until`: a client that leaves later is not replaced.
    `give_up_at`: when the aggregator is waited for no longer.
    """

    federation_id: str
    spec: FederationSpec
    round_number: int
    attempt: int
    base: ArtifactRef
    deadline_at: datetime
    give_up_at: datetime
    replace_until: datetime
    work_until: datetime
    cohort: Cohort
    owed: Owed = ()
    paused_until: datetime | None = None
    whole: ArtifactRef | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluating:
    """`n_updates` and `training` wait here for `round.completed`."""

    federation_id: str
    spec: FederationSpec
    round_number: int
    attempt: int
    checkpoint: ArtifactRef
    deadline_at: datetime
    give_up_at: datetime
    n_updates: int
    training: tuple[tuple[str, float], ...]
    owed: Owed = ()
    paused_until: datetime | None = None
    whole: ArtifactRef | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """The app's own ServerApp runs. `until`: when the aggregator is waited for no longer, unless
    the app has sent messages since."""

    federation_id: str
    spec: FederationSpec
    until: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """`outcome`: completed, failed or cancelled."""

    outcome: str


State: TypeAlias = Nothing | Refused | Waiting | Training | Evaluating | Serving | Ended


def policy_of(state: Waiting | Training | Evaluating | Serving) -> RoundPolicy:
    return state.spec.spec.round_policy


def with_policy(
    state: Waiting | Training | Evaluating, policy: RoundPolicy
) -> Waiting | Training | Evaluating:
    spec = state.spec.spec.model_copy(update={"round_policy": policy})
    return replace(state, spec=state.spec.model_copy(update={"spec": spec}))


def join_wait(state: Waiting | Training | Evaluating, at: datetime) -> datetime:
    """The end of a wait for clients that begins at `at`."""
    return at + timedelta(seconds=policy_of(state).join_deadline_seconds)


def patience(policy: RoundPolicy) -> timedelta:
    """How long after an exchange's deadline the aggregator is waited for."""
    budget = Budget.of(policy)
    return budget.give_up - budget.exchange
