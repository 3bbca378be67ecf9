"""What the control plane signs for a client, as JWS claims (RFC 7515; RFC 7519 names; EdDSA).

The signature is made by the lease service and checked by the runner before anything runs.
"""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from flowerbed.contracts.event import Payload
from flowerbed.contracts.forms import label
from flowerbed.contracts.values import ArtifactRef, Exchange, Scalar, Sha256

ALGORITHM = "EdDSA"
ISSUER = "flowerbed-lease"
MANIFEST_TYPE = "flowerbed-manifest+jwt"
WORK_ORDER_TYPE = "flowerbed-work-order+jwt"


MessageType = Annotated[
    str, StringConstraints(pattern=r"^(train|evaluate|query)(\.[A-Za-z_][A-Za-z0-9_]{0,62})?$")
]
"""Flower's: a category, and after a dot the name of an action of the app's own."""


class Claims(BaseModel):
    """Who says it (`iss`), to whom (`aud`, a client id), from and until when (epoch seconds)."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    iss: str
    aud: str
    nbf: int
    exp: int
    iat: int
    jti: str
    tenant: str
    federation_id: str
    client_id: str
    lease_id: str
    lease_epoch: int = Field(ge=1)
    app: str
    code_hash: Sha256


class Limits(Payload):
    """Bounds on all the work under one lease; None is unbounded."""

    ttl_seconds: int = Field(ge=1)
    max_epochs: int | None = None
    max_tokens: int | None = None


class Download(Payload):
    """A presigned GET."""

    url: str


class UpdateTerms(Payload):
    """The form in which updates are wanted; see `forms.UpdateForm`. A site that has not heard of
    `form` does not claim the lease."""

    form: str
    block: int | None = None
    fraction: float | None = None
    trainable: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        return label(self.form, self.trainable)


class Manifest(Claims):
    """The terms of a lease, read by the site before it claims: what will run, on which data.

    `app_download`: where the bundle of an app that does not ship with this version lies.
    `otlp_endpoint`, `otlp_protocol`: where the spec wants the spans of its federation; whether any
    go there is the site's decision.
    `weighs_by_entropy`: each update is to say how evenly the site's labels are spread.
    `update`: None is whole, as the first release sends it.
    `runtime`: how its work travels; over a `superlink` the site's SuperNode fetches it.
    """

    model_uri: str
    model_sha256: Sha256 | None
    strategy: str
    hyper_parameters: dict[str, Scalar]
    dataset_uris: tuple[str, ...] = ()
    dataset_shards: tuple[str, ...] = ()
    dataset_hashes: tuple[Sha256, ...] = ()
    limits: Limits
    app_download: Download | None = None
    otlp_endpoint: str | None = None
    otlp_protocol: str | None = None
    weighs_by_entropy: bool = False
    update: UpdateTerms | None = None
    runtime: str = "bus"


class Upload(Payload):
    """A presigned PUT; `headers` must be sent as they are, or the signature does not hold."""

    url: str
    headers: dict[str, str] = {}
    uri: str


class WholeMessage(Payload):
    """A message of a ServerApp of the app's own: the order's `base` is its whole content.

    `place`: of the node among the `n_nodes` of the run.
    """

    message_id: str
    group_id: str = ""
    node_id: int = Field(ge=0)
    place: int = Field(ge=0)
    n_nodes: int = Field(ge=1)


class WorkOrder(Claims):
    """One Flower message for one client. `exp` is the exchange's deadline.

    `message`: the message is an app's own; its reply is uploaded as it is, whatever its type.
    `traceparent` (W3C): what the spans of this work belong to.
    `takes_measures`: the report may hold `measures`.
    `frozen`: where `base` has the trained tensors alone, the file that has the others.
    """

    work_id: str
    round_number: int = Field(ge=1)
    attempt: int = Field(ge=1)
    exchange: Exchange
    message_type: MessageType
    seed: int = Field(ge=0)
    config: dict[str, Scalar]
    base: ArtifactRef
    download: Download
    upload: Upload | None
    dataset_sha256: Sha256
    traceparent: str | None = None
    takes_measures: bool = False
    frozen: ArtifactRef | None = None
    frozen_download: Download | None = None
    message: WholeMessage | None = None
