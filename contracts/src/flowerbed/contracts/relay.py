"""What a relay of messages and the lease service say to each other, behind the internal token.

A relay carries a federation's work to clients over a transport that is not the clients' door: the
lease service hands it what is open, and takes its answers as if each client had given its own.

    POST /internal/relay/{federation_id}/members    RelayMembers -> RelayHeld
    POST /internal/relay/{federation_id}/beats      RelayBeats -> RelayHeld
    POST /internal/relay/{federation_id}/work       RelayPoll -> RelayWork      (long poll)
    POST /internal/relay/{federation_id}/answers    RelayAnswers -> RelayRefusals
    POST /internal/relay/{federation_id}/nodes      RelayQuestion -> RelayNodes

A federation that is over answers 410 with code `lease-lost`. Every call may be repeated.
"""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from flowerbed.contracts.door import (
    MAX_WAIT_SECONDS,
    DoorAnswer,
    DoorMessage,
    FailureCode,
    WorkFailure,
    WorkReport,
)
from flowerbed.contracts.values import (
    ArtifactRef,
    DatasetRef,
    Exchange,
    NodeKey,
    Scalar,
    Timestamp,
    Token,
    Words,
)

MOST_AT_ONCE = 1000
"""Clients or answers in one call."""


class RelayMember(DoorMessage):
    """A virtual client: the partition that it joins with, or why it cannot."""

    client_id: Annotated[str, StringConstraints(pattern=r"^sim-[0-9]{5}$")]
    dataset: DatasetRef | None = None
    code: FailureCode = "app-failed"
    detail: Words = ""


class RelayMembers(DoorMessage):
    """Virtual clients, of whom the relay answers for: they are enrolled nowhere."""

    tenant: Token
    members: Annotated[tuple[RelayMember, ...], Field(max_length=MOST_AT_ONCE)]


class RelayBeats(DoorMessage):
    """These clients are alive."""

    tenant: Token
    clients: Annotated[tuple[str, ...], Field(max_length=MOST_AT_ONCE)]


class RelayHeld(DoorAnswer):
    """Those of the clients that hold a lease. They are to beat every `heartbeat_seconds`."""

    clients: tuple[str, ...] = ()
    heartbeat_seconds: float


class RelayPoll(DoorMessage):
    """`known`: work that the relay has on its way; only other work is handed out."""

    tenant: Token
    wait_seconds: Annotated[float, Field(ge=0, le=MAX_WAIT_SECONDS)] = 0
    known: tuple[str, ...] = ()


class RelayQuestion(DoorMessage):
    tenant: Token


class RelayNode(DoorAnswer):
    """The SuperNode that a client works with. `idle_at`: when it last asked for a message and was
    given none; what was sent to it before then is done, or lost."""

    client_id: str
    lease_id: str
    node_key: NodeKey
    idle_at: Timestamp | None = None


class RelayNodes(DoorAnswer):
    """Of the leases that are held, at the moment `now`."""

    nodes: tuple[RelayNode, ...] = ()
    now: Timestamp


class RelayOrder(DoorAnswer):
    """One Flower message for one client. `until`: when it runs out.

    `upload`: where the update is to lie, None where none is asked for.
    """

    work_id: str
    client_id: str
    lease_id: str
    lease_epoch: int
    round_number: int
    attempt: int
    exchange: Exchange
    message_type: Literal["train", "evaluate", "query"]
    seed: int
    config: dict[str, Scalar]
    base: ArtifactRef
    upload: str | None
    until: Timestamp


class RelayWork(DoorAnswer):
    """`closed`: what of the known work nobody waits for any more."""

    orders: tuple[RelayOrder, ...] = ()
    closed: tuple[str, ...] = ()


class RelayAnswer(DoorMessage):
    """What one client made of one order: its report, or why there is none."""

    client_id: str
    lease_id: str
    work_id: str
    answer: WorkReport | WorkFailure


class RelayAnswers(DoorMessage):
    tenant: Token
    answers: Annotated[tuple[RelayAnswer, ...], Field(max_length=MOST_AT_ONCE)]


class RelayRefusal(DoorAnswer):
    """An answer that came too late or does not fit; the others of its call are recorded."""

    work_id: str
    code: str
    detail: str


class RelayRefusals(DoorAnswer):
    refused: tuple[RelayRefusal, ...] = ()
