"""Facts about a federation: one FederationSpec and all its rounds."""

from typing import Any, ClassVar

from pydantic import Field

from flowerbed.contracts.event import Event
from flowerbed.contracts.policy import RoundPolicy
from flowerbed.contracts.spec import FederationSpec
from flowerbed.contracts.values import ArtifactRef, Problem, Sha256, Timestamp


class FederationEvent(Event):
    """Any fact about one federation."""

    federation_id: str


class FederationCreated(FederationEvent):
    """A spec was accepted. `spec` is the document with every default written out."""

    type: ClassVar[str] = "fl.federation.created"
    submission_id: str
    spec: dict[str, Any]
    code_hash: Sha256
    join_deadline_at: Timestamp

    @property
    def federation_spec(self) -> FederationSpec:
        return FederationSpec.model_validate(self.spec)


class FederationRejected(FederationEvent):
    """A spec was refused, with every reason. Nothing else will happen."""

    type: ClassVar[str] = "fl.federation.rejected"
    submission_id: str
    problems: tuple[Problem, ...]


class FederationStarted(FederationEvent):
    """Enough clients have joined and the base checkpoint is recorded."""

    type: ClassVar[str] = "fl.federation.started"
    base: ArtifactRef
    n_clients: int = Field(ge=1)


class FederationPaused(FederationEvent):
    """No round starts until it is resumed; an open one may end. Past `expires_at` it fails.

    `is_between_rounds`: no exchange was open, so the wait begins at once.
    """

    type: ClassVar[str] = "fl.federation.paused"
    reason: str = ""
    expires_at: Timestamp
    is_between_rounds: bool = True


class FederationResumed(FederationEvent):
    """`waits_until`: the deadline for the next round to start; None while an exchange is open."""

    type: ClassVar[str] = "fl.federation.resumed"
    waits_until: Timestamp | None = None


class FederationPolicyChanged(FederationEvent):
    """A person changed the round policy of a running federation; exchanges started from here on
    follow it. `policy` is the whole policy with every default written out.
    """

    type: ClassVar[str] = "fl.federation.policy_changed"
    policy: dict[str, Any]
    changed: tuple[str, ...]
    reason: str = ""
    waits_until: Timestamp | None = None

    @property
    def round_policy(self) -> RoundPolicy:
        return RoundPolicy.model_validate(self.policy)


class FederationCompleted(FederationEvent):
    """Every round is done; `final` is the verified global checkpoint."""

    type: ClassVar[str] = "fl.federation.completed"
    final: ArtifactRef
    n_rounds: int = Field(ge=1)


class FederationFailed(FederationEvent):
    """`code` is stable; `reason` is for people."""

    type: ClassVar[str] = "fl.federation.failed"
    code: str
    reason: str


class FederationCancelled(FederationEvent):
    type: ClassVar[str] = "fl.federation.cancelled"
    reason: str = ""
