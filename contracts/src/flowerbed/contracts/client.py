"""Facts about clients and their leases. A client is a node; a lease is its right to work."""

from typing import ClassVar

from pydantic import Field

from flowerbed.contracts.event import Event
from flowerbed.contracts.values import DatasetRef, NodeKey, Sha256, Timestamp


class ClientEvent(Event):
    client_id: str


class ClientInvited(ClientEvent):
    """A single-use invite key was made; only its digest is known."""

    type: ClassVar[str] = "fl.client.invited"
    secret_sha256: Sha256
    tags: tuple[str, ...] = ()
    expires_at: Timestamp


class ClientEnrolled(ClientEvent):
    """The invite was used: this key pair is the client from now on."""

    type: ClassVar[str] = "fl.client.enrolled"
    public_key_sha256: Sha256
    tags: tuple[str, ...] = ()
    certificate_serial: str
    certificate_expires_at: Timestamp


class ClientCertificateRenewed(ClientEvent):
    type: ClassVar[str] = "fl.client.certificate_renewed"
    public_key_sha256: Sha256
    certificate_serial: str
    certificate_expires_at: Timestamp


class ClientRevoked(ClientEvent):
    type: ClassVar[str] = "fl.client.revoked"
    reason: str = ""


class LeaseEvent(ClientEvent):
    """A fact about one client's lease in one federation.

    `epoch` is the fencing number: it rises by one with every lease issued, and work under an
    older epoch is refused.
    """

    federation_id: str
    lease_id: str
    epoch: int = Field(ge=1)


class ClientLeaseIssued(LeaseEvent):
    type: ClassVar[str] = "fl.client.lease_issued"
    ttl_seconds: int = Field(ge=1)


class ClientJoined(LeaseEvent):
    """The client claimed its lease, with this dataset.

    `node_key`: of its SuperNode, where the federation's runtime is `superlink`.
    """

    type: ClassVar[str] = "fl.client.joined"
    dataset: DatasetRef
    node_key: NodeKey | None = Field(default=None, exclude_if=lambda key: key is None)


class ClientDeclined(LeaseEvent):
    """The site will not, or cannot, take the lease up now. `code` is stable, `detail` its words.

    The lease stays offered: the site looks at it again when what hindered it may be over.
    """

    type: ClassVar[str] = "fl.client.declined"
    code: str
    detail: str = ""


class ClientDropped(LeaseEvent):
    """Silent for longer than the lease's ttl."""

    type: ClassVar[str] = "fl.client.dropped"
    reason: str = ""


class ClientReleased(LeaseEvent):
    """The lease ended in order: the federation ended, or the client let it go."""

    type: ClassVar[str] = "fl.client.released"
    reason: str = ""
