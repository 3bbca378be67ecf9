"""Facts about artifacts: immutable bytes by digest, with their lineage."""

from typing import ClassVar

from pydantic import Field

from flowerbed.contracts.federation import FederationEvent
from flowerbed.contracts.values import ArtifactKind, ArtifactRef, Exchange, Sha256


class ArtifactRecorded(FederationEvent):
    """The object was read back from S3 and its digest was right.

    `owing`: of a checkpoint, the work ids that its aggregate closed without.
    """

    type: ClassVar[str] = "fl.artifact.recorded"
    round_number: int = Field(ge=0)
    attempt: int = Field(ge=1)
    exchange: Exchange
    kind: ArtifactKind
    artifact: ArtifactRef
    parents: tuple[Sha256, ...] = ()
    n_updates: int = Field(default=0, ge=0)
    metrics: dict[str, float] = {}
    owing: tuple[str, ...] = ()


class ArtifactPromoted(FederationEvent):
    """The artifact is the current one of a channel, e.g. `stable`."""

    type: ClassVar[str] = "fl.artifact.promoted"
    sha256: Sha256
    channel: str


class ArtifactRevoked(FederationEvent):
    """Nobody should use the artifact any more; its bytes and history stay."""

    type: ClassVar[str] = "fl.artifact.revoked"
    sha256: Sha256
    reason: str
