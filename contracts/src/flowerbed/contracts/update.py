"""Facts about updates: what a node returned, and what became of it."""

from typing import ClassVar

from pydantic import Field

from flowerbed.contracts.federation import FederationEvent
from flowerbed.contracts.values import ArtifactRef, Exchange

CLIENT_LEFT = "client-left"
"""Of an evaluation: who was asked holds no lease any more. The quorum is of those who stayed."""


class UpdateEvent(FederationEvent):
    """A fact about one client's answer in one exchange."""

    round_number: int = Field(ge=1)
    attempt: int = Field(ge=1)
    exchange: Exchange
    client_id: str
    work_id: str


class UpdateSubmitted(UpdateEvent):
    """The node's claim: nothing in it is verified yet. The update lay in S3 before this.

    `artifact` is None for an evaluation. `train_seconds` is the time inside the client app.
    What the node did not or could not measure is None, and never estimated:
    `download_seconds`, `upload_seconds`: between the site and S3, with every try.
    `n_tokens`: what the app counted itself.
    `joules`: used by the node's machine while the app ran. `joules_reason`: why there is none.
    `form_error`: the relative L2 error of the form in which the update was written.
    """

    type: ClassVar[str] = "fl.update.submitted"
    lease_epoch: int = Field(ge=1)
    artifact: ArtifactRef | None
    n_examples: int
    metrics: dict[str, float] = {}
    train_seconds: float = Field(default=0.0, ge=0)
    download_seconds: float | None = Field(default=None, ge=0)
    upload_seconds: float | None = Field(default=None, ge=0)
    n_tokens: int | None = Field(default=None, ge=0)
    joules: float | None = Field(default=None, ge=0)
    joules_reason: str | None = None
    form_error: float | None = Field(default=None, ge=0)


class UpdateFailed(UpdateEvent):
    """The node could not or would not do the work: `code` is stable, `detail` is its words."""

    type: ClassVar[str] = "fl.update.failed"
    lease_epoch: int = Field(ge=1)
    code: str
    detail: str = ""


class UpdateAccepted(UpdateEvent):
    """Verified and screened. `place` is the client's place in the cohort; an update that was owed
    from an earlier round has its place behind the cohort.

    `norm`: the L2 distance of the update from its base; None for an evaluation.
    `staleness`: how many rounds passed since the update's `base` was current; 0 in time.
    `base`: what a late update was trained from; None for the exchange's own base.
    `form`: in which it travelled, `artifact.size` bytes of it; `full_size`: what it would have had
    as `full`. `form_error`: what that cost, as the site says. None of a full update.
    """

    type: ClassVar[str] = "fl.update.accepted"
    place: int = Field(ge=0)
    artifact: ArtifactRef | None
    n_examples: int = Field(ge=1)
    metrics: dict[str, float] = {}
    train_seconds: float = Field(default=0.0, ge=0)
    norm: float | None = Field(default=None, ge=0)
    staleness: int = Field(default=0, ge=0)
    base: ArtifactRef | None = None
    form: str | None = None
    full_size: int | None = Field(default=None, ge=0)
    form_error: float | None = Field(default=None, ge=0)


class UpdateRejected(UpdateEvent):
    """Refused by screening, or reported as failed by the node: it is not in the aggregate."""

    type: ClassVar[str] = "fl.update.rejected"
    place: int = Field(ge=0)
    code: str
    detail: str = ""


class UpdateQuarantined(UpdateEvent):
    """Held out of the fold until a person decides."""

    type: ClassVar[str] = "fl.update.quarantined"
    place: int = Field(ge=0)
    artifact: ArtifactRef
    code: str
    detail: str = ""
