"""Facts about aggregates: the combined update of an exchange."""

from typing import ClassVar

from pydantic import Field

from flowerbed.contracts.event import Payload
from flowerbed.contracts.federation import FederationEvent
from flowerbed.contracts.values import ArtifactRef, Exchange, Sha256


class FoldedUpdate(Payload):
    """One update inside an aggregate, in the order folded. `weight`: its number of examples.

    `staleness`: rounds between its base and the aggregate's; it was scaled by its staleness.
    """

    client_id: str
    place: int = Field(ge=0)
    sha256: Sha256 | None
    weight: int = Field(ge=1)
    staleness: int = Field(default=0, ge=0)


class AggregateCompleted(FederationEvent):
    """The exchange is closed. `initialize` has round 0 and yields the base checkpoint.

    `checkpoint` and `state` (the strategy's own state after the round) are None for an evaluation.
    `parents`: digests of the checkpoints that this one was made from.
    `train_seconds`: the slowest client's time in its app; the rest of the round is overhead.
    `owing`: work ids without an answer at the close; a late update may count in a later round.
    `moments`: of a server optimizer, what it keeps of each weight; the next round reads it.
    `selected`: places of the updates that a rule like Krum chose; None where it chooses none.
    """

    type: ClassVar[str] = "fl.aggregate.completed"
    round_number: int = Field(ge=0)
    attempt: int = Field(ge=1)
    exchange: Exchange
    checkpoint: ArtifactRef | None
    state: ArtifactRef | None = None
    parents: tuple[Sha256, ...] = ()
    updates: tuple[FoldedUpdate, ...] = ()
    metrics: dict[str, float] = {}
    train_seconds: float = Field(default=0.0, ge=0)
    owing: tuple[str, ...] = ()
    moments: ArtifactRef | None = None
    selected: tuple[int, ...] | None = None


class AggregateFailed(FederationEvent):
    """Too few updates at the deadline, or the fold could not be done."""

    type: ClassVar[str] = "fl.aggregate.failed"
    round_number: int = Field(ge=0)
    attempt: int = Field(ge=1)
    exchange: Exchange
    code: str
    reason: str
