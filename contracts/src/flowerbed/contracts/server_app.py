"""Facts about a whole ServerApp: its `main` runs here, and what it exchanges is its journal.

An exchange is one push of messages; its number is the event's `round_number`. After a crash `main`
runs again, and these facts answer it until it is where it was.
"""

from typing import ClassVar, Literal

from pydantic import Field

from flowerbed.contracts.event import Payload
from flowerbed.contracts.federation import FederationEvent
from flowerbed.contracts.round import CohortMember
from flowerbed.contracts.values import ArtifactRef, Scalar, Sha256, Timestamp


class ServerAppStarted(FederationEvent):
    """The app's `main` may run, with these nodes. Their order is the same in every run.

    `deadline_at`: when it must have sent its first messages.
    """

    type: ClassVar[str] = "fl.serverapp.started"
    nodes: tuple[CohortMember, ...]
    seed: int = Field(ge=0)
    deadline_at: Timestamp


class ServerAppExtended(FederationEvent):
    """Messages were sent since, so the ServerApp may go on until `deadline_at`."""

    type: ClassVar[str] = "fl.serverapp.extended"
    deadline_at: Timestamp


class ServerAppRestarted(FederationEvent):
    """Its process is gone and is started again. `main` begins anew, and is answered as before."""

    type: ClassVar[str] = "fl.serverapp.restarted"
    attempt: int = Field(ge=2)
    reason: str
    n_answered: int = Field(ge=0)


class PushedMessage(CohortMember):
    """One Flower message. `content`: its RecordDict, as Flower's protobuf has it.

    `place`: of the node among the run's.
    `config`: what its ConfigRecords say of passes over the data, for the site's limits.
    """

    place: int = Field(ge=0)
    node_id: int = Field(ge=0)
    message_id: str
    message_type: str
    group_id: str = ""
    ttl: float = Field(gt=0)
    content: ArtifactRef
    config: dict[str, Scalar] = {}


class MessagesPushed(FederationEvent):
    """The ServerApp sent messages, each to another node: exchange `round_number` is open.

    `at`: the time that the app sees. `n_empty`: fruitless pulls since the last fact.
    `is_main`: pushed by the thread that runs `main`.
    """

    type: ClassVar[str] = "fl.message.pushed"
    exchange: ClassVar[str] = "message"
    round_number: int = Field(ge=1)
    attempt: int = Field(default=1, ge=1)
    cohort: tuple[PushedMessage, ...]
    n_nodes: int = Field(ge=1)
    deadline_at: Timestamp
    at: float
    n_empty: int = Field(default=0, ge=0)
    is_main: bool = True


class MessageAnswered(FederationEvent):
    """A node's answer to one message, or why there is none. `content` lay in S3 before this.

    `code` and `detail`: empty for an answer; else the site's or the lease's reason.
    """

    type: ClassVar[str] = "fl.message.answered"
    round_number: int = Field(ge=1)
    client_id: str
    work_id: str
    lease_epoch: int = Field(ge=1)
    content: ArtifactRef | None = None
    code: str = ""
    detail: str = ""
    train_seconds: float = Field(default=0.0, ge=0)


class PulledReply(Payload):
    """What the ServerApp got for a message: the node's content, or one of Flower's errors.

    `error`: Flower's error code; 0 for none. `round_number`: the message's exchange; 0: the pull's.
    """

    message_id: str
    node_id: int
    round_number: int = Field(default=0, ge=0)
    content: ArtifactRef | None = None
    error: int = Field(default=0, ge=0)
    reason: str = ""


class MessagesPulled(FederationEvent):
    """The ServerApp was handed replies, in the order in which their messages were sent.

    `round_number`: the newest exchange among them, of which `n_open` replies are still to come.
    `closed`: exchanges of which nothing is to come any more; None where only that one is known of.
    `is_main`, `at`, `n_empty`: see MessagesPushed.
    """

    type: ClassVar[str] = "fl.message.pulled"
    round_number: int = Field(ge=1)
    replies: tuple[PulledReply, ...]
    n_open: int = Field(default=0, ge=0)
    closed: tuple[int, ...] | None = None
    at: float
    n_empty: int = Field(default=0, ge=0)
    is_main: bool = True

    @property
    def closes(self) -> tuple[int, ...]:
        """Numbers of the exchanges that are over with this pull."""
        if self.closed is not None:
            return self.closed
        return () if self.n_open else (self.round_number,)


class WrittenFile(Payload):
    """A file that the app left in its folder."""

    name: str
    artifact: ArtifactRef


class ServerAppCompleted(FederationEvent):
    """`main` returned. `checkpoint` has the arrays of `arrays_from`: what `Strategy.start` gave, or
    without one the last that were sent, or none.

    `training`, `evaluation`, `central`: the last metrics that the strategy aggregated.
    """

    type: ClassVar[str] = "fl.serverapp.completed"
    n_exchanges: int = Field(ge=0)
    checkpoint: ArtifactRef
    arrays_from: Literal["result", "last-sent", "none"]
    files: tuple[WrittenFile, ...] = ()
    training: dict[str, float] = {}
    evaluation: dict[str, float] = {}
    central: dict[str, float] = {}
    app: Sha256
