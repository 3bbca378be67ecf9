"""The clients' door: what a runner says to the lease service, and hears.

Two listeners, both TLS with the control plane's own CA:
    enrol door    GET /ca.pem, POST /v1/enrol               (the client has no certificate yet)
    client door   everything else under /v1, and /.well-known/jwks.json      (mTLS only)

    POST /v1/certificate                         CertificateRequest -> Certificate
    POST /v1/leases/poll                         LeasePoll -> LeaseOffers     (long poll)
    POST /v1/leases/{lease_id}/claim             LeaseClaim -> LeaseHeld
    POST /v1/leases/{lease_id}/decline           LeaseDecline -> Accepted
    POST /v1/leases/{lease_id}/heartbeat         LeaseBeat -> LeaseHeld
    POST /v1/leases/{lease_id}/work/next         WorkPoll -> WorkOffer        (long poll)
    POST /v1/leases/{lease_id}/work/{work_id}/report    WorkReport -> Accepted
    POST /v1/leases/{lease_id}/work/{work_id}/failure   WorkFailure -> Accepted
    POST /v1/leases/{lease_id}/logs              LogBatch -> Accepted
    POST /v1/leases/{lease_id}/release           LeaseRelease -> Accepted

A lease that is lost (old epoch, dropped, federation over, revoked) answers 410 with code
`lease-lost`; a client that is not admitted answers 403. Every call may be repeated.
"""

import base64
import json
import re
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from flowerbed.contracts.values import ArtifactRef, DatasetRef, NodeKey, Timestamp, Token, Words

INVITE_PREFIX = "fbi_"
MAX_WAIT_SECONDS = 50.0
LONGEST_LOG_LINE = 1000
MOST_LOG_LINES = 100
"""In one batch."""

_CONTROLS = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")

Metric = Annotated[str, StringConstraints(pattern=r"^[^\x00]{1,200}$")]
FormWord = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_+-]{0,63}$")]
FailureCode = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,63}$")]


class DoorMessage(BaseModel):
    """A request from a client is a person's input: unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class DoorAnswer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Invite(DoorMessage):
    """What an invite key holds: whom to ask, whom to trust, and the single-use secret."""

    enrol_url: str
    ca_sha256: str
    client_id: str
    tenant: str
    secret: str

    def encode(self) -> str:
        body = json.dumps(self.model_dump(), separators=(",", ":")).encode()
        return INVITE_PREFIX + base64.urlsafe_b64encode(body).decode().rstrip("=")

    @classmethod
    def decode(cls, key: str) -> "Invite":
        """Read an invite key.

        Raises:
            ValueError: the text is not an invite key.
        """
        if not key.startswith(INVITE_PREFIX):
            raise ValueError(f"an invite key begins with {INVITE_PREFIX}")
        body = key.removeprefix(INVITE_PREFIX)
        try:
            return cls.model_validate_json(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        except ValueError as error:
            raise ValueError("the invite key is damaged: copy it whole") from error


class Enrolment(DoorMessage):
    client_id: Token
    tenant: Token
    secret: str
    csr_pem: Annotated[str, StringConstraints(max_length=8192)]


class Enrolled(DoorAnswer):
    client_id: str
    tenant: str
    certificate_pem: str
    ca_pem: str
    client_url: str
    jwks: dict[str, Any]


class CertificateRequest(DoorMessage):
    csr_pem: Annotated[str, StringConstraints(max_length=8192)]


class Certificate(DoorAnswer):
    certificate_pem: str


class LeaseKey(DoorMessage):
    lease_id: str
    epoch: int = Field(ge=1)


class LeasePoll(DoorMessage):
    """`known`: leases that the client already works under; only others are offered."""

    wait_seconds: Annotated[float, Field(ge=0, le=MAX_WAIT_SECONDS)] = 0
    known: tuple[LeaseKey, ...] = ()


class LeaseOffer(DoorAnswer):
    """`manifest` is a JWS of `signed.Manifest`."""

    lease_id: str
    federation_id: str
    epoch: int
    manifest: str


class LeaseOffers(DoorAnswer):
    offers: tuple[LeaseOffer, ...] = ()


class LeaseClaim(DoorMessage):
    """`node_key`: of the SuperNode that works under the lease, where its runtime has one.
    `update_form`: that of the manifest, which the client will keep; None where it names none.
    """

    epoch: int = Field(ge=1)
    dataset: DatasetRef
    update_form: FormWord | None = Field(default=None, exclude_if=lambda form: form is None)
    node_key: NodeKey | None = Field(default=None, exclude_if=lambda key: key is None)


class LeaseDecline(DoorMessage):
    """Why the site does not take the lease up now. `code`: `dataset-gone`, `disk-full`, …"""

    epoch: int = Field(ge=1)
    code: FailureCode
    detail: Words = ""


class LeaseBeat(DoorMessage):
    """`idle_seconds`: how long ago a SuperNode last asked for a message and was given none."""

    epoch: int = Field(ge=1)
    idle_seconds: float | None = Field(default=None, ge=0, exclude_if=lambda idle: idle is None)


class LeaseHeld(DoorAnswer):
    """Silent past `expires_at`, the client is dropped; beat every `heartbeat_seconds`."""

    lease_id: str
    epoch: int
    expires_at: Timestamp
    heartbeat_seconds: float


class WorkPoll(DoorMessage):
    """Asking for work is a heartbeat too."""

    epoch: int = Field(ge=1)
    wait_seconds: Annotated[float, Field(ge=0, le=MAX_WAIT_SECONDS)] = 0


class WorkOffer(DoorAnswer):
    """`order` is a JWS of `signed.WorkOrder`; None where no work came up in time."""

    order: str | None = None


class Measures(DoorMessage):
    """What was measured beside the work; None is not measured, and for `joules_reason` why."""

    download_seconds: float | None = Field(default=None, ge=0)
    upload_seconds: float | None = Field(default=None, ge=0)
    n_tokens: int | None = Field(default=None, ge=0, lt=2**63)
    joules: float | None = Field(default=None, ge=0)
    joules_reason: FailureCode | None = None
    form_error: float | None = Field(default=None, ge=0, exclude_if=lambda error: error is None)


class WorkReport(DoorMessage):
    """The finished work: its update already lies in S3 at the order's `upload.uri`.

    `measures`: only where the work order takes them; a service of the first release does not.
    """

    epoch: int = Field(ge=1)
    artifact: ArtifactRef | None
    n_examples: int = Field(ge=-(2**63), lt=2**63)
    metrics: Annotated[dict[Metric, float], Field(max_length=1000)] = {}
    train_seconds: float = Field(default=0.0, ge=0)
    measures: Measures | None = Field(default=None, exclude_if=lambda measures: measures is None)


class WorkFailure(DoorMessage):
    """Work not done. `code`: `limit-exceeded`, `dataset-changed`, `code-hash`, `app-failed`, …"""

    epoch: int = Field(ge=1)
    code: FailureCode
    detail: Words = ""


def _printable(text: str) -> str:
    """One line that does nothing to the terminal of whoever reads it."""
    return _CONTROLS.sub("\ufffd", text)


LogKind: TypeAlias = Literal["line", "left-out", "kept"]


class LogLine(DoorMessage):
    """What the ClientApp wrote at the site, scrubbed there. `at`: when, by the door's clock.

    `left-out`: lines are missing here, `text` says how many. `kept`: the site keeps its lines.
    """

    number: int = Field(ge=1, lt=2**63)
    at: Timestamp
    kind: LogKind = "line"
    text: Annotated[str, StringConstraints(max_length=LONGEST_LOG_LINE), AfterValidator(_printable)]


class LogBatch(DoorMessage):
    """Lines in order. Each `run` of an agent numbers its lines from 1: one that comes again under
    its number changes nothing."""

    epoch: int = Field(ge=1)
    run: Token
    lines: Annotated[tuple[LogLine, ...], Field(min_length=1, max_length=MOST_LOG_LINES)]


class LeaseRelease(DoorMessage):
    epoch: int = Field(ge=1)
    reason: Words = ""


class Accepted(DoorAnswer):
    status: str = "recorded"
