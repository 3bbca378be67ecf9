"""Facts about rounds. A round is made of exchanges: train first, then evaluate."""

from typing import ClassVar, Literal

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


class OwedWork(Payload):
    """Training that a client was ordered in an earlier round and has not answered yet.

    Its update may still count here: it moves the model from `base`, what it was trained from.
    `until`: when the work order runs out; nothing is to be expected after it.
    """

    client_id: str
    work_id: str
    round_number: int = Field(ge=1)
    attempt: int = Field(ge=1)
    base: ArtifactRef
    until: Timestamp | None = None


class ExchangeStarted(FederationEvent):
    """Everything that an exchange needs, so that it can be done again from this fact alone.

    `goal`: updates wanted; more are asked for where the policy over-selects.
    `n_required`: updates that must be accepted for the exchange to count.
    `config`: what every client app is told; each also gets its own `seed`.
    `frozen`: where `base` has the trained tensors alone, the base that has the others too.
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
    frozen: ArtifactRef | None = None


class RoundStarted(ExchangeStarted):
    """The cohort trains from `base`.

    `owed`: work of earlier rounds whose late updates count here, by their staleness.
    `staleness_exponent`: a of (1 + staleness)^-a, by which a late update is scaled.
    `work_until`: when the cohort's work orders run out; None is at the deadline.
    `folds_in_order`: of the `cohort`, or of `arrival` in a buffered round.
    """

    type: ClassVar[str] = "fl.round.started"
    exchange: ClassVar[Exchange] = "train"
    owed: tuple[OwedWork, ...] = ()
    staleness_exponent: float = Field(default=0.5, ge=0)
    work_until: Timestamp | None = None
    folds_in_order: Literal["cohort", "arrival"] = "cohort"


class RoundMemberReplaced(FederationEvent):
    """A client left the open training exchange before it answered; another takes its place.

    `replacement` has the place's own seed. Work of the one who left is not waited for.
    """

    type: ClassVar[str] = "fl.round.member_replaced"
    round_number: int = Field(ge=1)
    attempt: int = Field(ge=1)
    place: int = Field(ge=0)
    client_id: str
    replacement: CohortMember
    reason: str = ""


class RoundEvaluationStarted(ExchangeStarted):
    """The cohort evaluates the round's new checkpoint, which is `base` here.

    `n_updates` and `training` are those of the training exchange that made it.
    `owed`: training that it closed without and that may count in the next round: it goes on.
    """

    type: ClassVar[str] = "fl.round.evaluation_started"
    exchange: ClassVar[Exchange] = "evaluate"
    n_updates: int = Field(ge=1)
    training: dict[str, float] = {}
    owed: tuple[OwedWork, ...] = ()


class RoundCompleted(FederationEvent):
    """`evaluation` is empty, with `evaluation_error`, where the evaluation did not succeed.

    `waits_until`: the deadline for the next round to start, None after the last.
    `owed`: training that goes on, because it may count in the next round.
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
    owed: tuple[OwedWork, ...] = ()


class RoundFailed(FederationEvent):
    """One attempt came to nothing; another follows by `waits_until` while `attempts_left`."""

    type: ClassVar[str] = "fl.round.failed"
    round_number: int = Field(ge=1)
    attempt: int = Field(ge=1)
    code: str
    reason: str
    attempts_left: int = Field(ge=0)
    waits_until: Timestamp | None = None
