"""Facts about rounds. A round is made of exchanges: train first, then evaluate."""

from typing import ClassVar

from pydantic import Field

from flowerbed.contracts.event import Payload
from flowerbed.contracts.federation import FederationEvent
from flowerbed.contracts.values import ArtifactRef, Exchange, Scalar, Timestamp


class CohortMember(Payload):
    """A node chosen for an exchange. Its place in the cohort is its index in the list."""

    client_id: str
    lease_id: str
    lease_epoch: int = Field(ge=1)
    seed: int = Field(ge=0)


class ExchangeStarted(FederationEvent):
    """Everything that an exchange needs, so that it can be done again from this fact alone.

    `goal`: updates wanted; more are asked for where the policy over-selects.
    `n_required`: updates that must be accepted for the exchange to count.
    `config`: what every client app is told; each also gets its own `seed`.
    """

    round_number: int = Field(ge=1)
    attempt: int = Field(ge=1)
    base: ArtifactRef
    cohort: tuple[CohortMember, ...]
    goal: int = Field(ge=1)
    n_required: int = Field(ge=1)
    deadline_at: Timestamp
    seed: int = Field(ge=0)
    config: dict[str, Scalar]


class RoundStarted(ExchangeStarted):
    """The cohort trains from `base`."""

    type: ClassVar[str] = "fl.round.started"
    exchange: ClassVar[Exchange] = "train"


class RoundEvaluationStarted(ExchangeStarted):
    """The cohort evaluates the round's new checkpoint, which is `base` here.

    `n_updates` and `training` are those of the training exchange that made it.
    """

    type: ClassVar[str] = "fl.round.evaluation_started"
    exchange: ClassVar[Exchange] = "evaluate"
    n_updates: int = Field(ge=1)
    training: dict[str, float] = {}


class RoundCompleted(FederationEvent):
    """`evaluation` is empty, with `evaluation_error`, where the evaluation did not succeed.

    `waits_until`: the deadline for the next round to start, None after the last.
    """

    type: ClassVar[str] = "fl.round.completed"
    round_number: int = Field(ge=1)
    attempt: int = Field(ge=1)
    checkpoint: ArtifactRef
    n_updates: int = Field(ge=1)
    training: dict[str, float] = {}
    evaluation: dict[str, float] = {}
    evaluation_error: str = ""
    waits_until: Timestamp | None = None


class RoundFailed(FederationEvent):
    """One attempt came to nothing; another follows by `waits_until` while `attempts_left`."""

    type: ClassVar[str] = "fl.round.failed"
    round_number: int = Field(ge=1)
    attempt: int = Field(ge=1)
    code: str
    reason: str
    attempts_left: int = Field(ge=0)
    waits_until: Timestamp | None = None
