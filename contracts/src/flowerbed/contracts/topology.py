"""Which JetStream stream carries which facts, who may write it, and who reads it.

Streams and durables are declared from here by a migration, never by a subscriber.
One JetStream stream an owner, because a relay's fence counts every message of its stream.
"""

from dataclasses import dataclass, replace

SUBMISSION_SUBJECT = "fl.federation.submitted"
"""Where a FederationSpec is published; a tenant and an id may follow as two more tokens."""

SERVICES = ("orchestrator", "lease", "aggregator", "artifact", "gateway")

PARTITIONS = 4
"""A federation's events are handled in one partition, and a partition by one replica at a time."""

WHOLE = frozenset({"gateway"})
"""Services that read each stream as one: the gateway keeps everything in one order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamSpec:
    """A JetStream stream: its name, its only writer, and the event types it carries."""

    name: str
    owner: str
    types: tuple[str, ...]

    @property
    def subjects(self) -> tuple[str, ...]:
        return tuple(f"{event_type}.>" for event_type in self.types)


@dataclass(frozen=True, slots=True, kw_only=True)
class DurableSpec:
    """A durable consumer: one reader's place in one stream, and the types that it wants.

    A reader of one `partition` also gets what was stored before there were partitions, of every
    federation; it has to leave aside what is not its own.
    """

    service: str
    stream: str
    types: tuple[str, ...]
    partition: int | None = None

    @property
    def name(self) -> str:
        return self.service if self.partition is None else f"{self.service}-p{self.partition}"

    @property
    def filter_subjects(self) -> tuple[str, ...]:
        if self.partition is None:
            return tuple(f"{event_type}.>" for event_type in self.types)
        forms = (f"*.*.{self.partition}", "*.*")
        return tuple(f"{event_type}.{form}" for event_type in self.types for form in forms)


def partition(federation_id: str) -> int:
    """Where a federation's events are handled: 32-bit FNV-1a, as JetStream's `partition` has it."""
    digest = 0x811C9DC5
    for byte in federation_id.encode():
        digest = (digest ^ byte) * 0x01000193 & 0xFFFF_FFFF
    return digest % PARTITIONS


def partition_of_subject(subject: str) -> int:
    """`fl.<entity>.<fact>.<tenant>.<federation_id>[.<partition>]`; 0 for what is none of these."""
    tokens = subject.split(".")
    if len(tokens) == 6 and tokens[5].isdecimal():
        return int(tokens[5])
    return partition(tokens[4]) if len(tokens) == 5 else 0


STORED_SUBJECT = {
    "src": "fl.*.*.*.*",
    "dest": "fl.{{wildcard(1)}}.{{wildcard(2)}}.{{wildcard(3)}}.{{wildcard(4)}}."
    f"{{{{partition({PARTITIONS},4)}}}}",
}
"""What a JetStream stream makes of a subject when it stores the event: it adds the partition."""


SUBMISSIONS = "FL_SUBMISSIONS"

_FEDERATION_FACTS = tuple(
    f"fl.federation.{fact}"
    for fact in (
        "created", "rejected", "started", "paused", "resumed", "policy_changed",
        "completed", "failed", "cancelled",
    )
)  # fmt: skip
_ROUND_FACTS = tuple(
    f"fl.round.{fact}"
    for fact in ("started", "member_replaced", "evaluation_started", "completed", "failed")
)
_CLIENT_FACTS = tuple(
    f"fl.client.{fact}"
    for fact in (
        "invited", "enrolled", "certificate_renewed", "revoked",
        "lease_issued", "joined", "declined", "dropped", "released",
    )
)  # fmt: skip

STREAMS = (
    StreamSpec(
        name="FL_ORCHESTRATOR",
        owner="orchestrator",
        types=(
            *_FEDERATION_FACTS, *_ROUND_FACTS,
            "fl.serverapp.started", "fl.serverapp.extended",
        ),
    ),
    StreamSpec(
        name="FL_LEASE",
        owner="lease",
        types=(*_CLIENT_FACTS, "fl.update.submitted", "fl.update.failed", "fl.message.answered"),
    ),
    StreamSpec(
        name="FL_AGGREGATOR",
        owner="aggregator",
        types=(
            "fl.update.accepted", "fl.update.rejected", "fl.update.quarantined",
            "fl.aggregate.completed", "fl.aggregate.failed",
            "fl.message.pushed", "fl.message.pulled",
            "fl.serverapp.restarted", "fl.serverapp.completed",
        ),
    ),
    StreamSpec(
        name="FL_ARTIFACT",
        owner="artifact",
        types=(
            "fl.artifact.recorded", "fl.artifact.promoted", "fl.artifact.revoked",
            "fl.app.pushed",
        ),
    ),
)  # fmt: skip
"""The streams that a relay fills. FL_SUBMISSIONS stands apart: whoever asks writes it."""

_ENDED = ("fl.federation.completed", "fl.federation.failed", "fl.federation.cancelled")

_READERS = (
    DurableSpec(
        service="orchestrator",
        stream="FL_LEASE",
        types=("fl.client.joined", "fl.client.dropped", "fl.client.released"),
    ),
    DurableSpec(
        service="orchestrator",
        stream="FL_AGGREGATOR",
        types=("fl.aggregate.completed", "fl.aggregate.failed", "fl.message.pushed"),
    ),
    DurableSpec(service="orchestrator", stream="FL_ARTIFACT", types=("fl.artifact.recorded",)),
    DurableSpec(
        service="lease",
        stream="FL_ORCHESTRATOR",
        types=(
            "fl.federation.created", "fl.federation.policy_changed",
            "fl.round.started", "fl.round.member_replaced", "fl.round.evaluation_started",
            "fl.round.completed", "fl.round.failed", *_ENDED,
        ),
    ),
    DurableSpec(service="lease", stream="FL_AGGREGATOR", types=("fl.message.pushed",)),
    DurableSpec(
        service="aggregator",
        stream="FL_ORCHESTRATOR",
        types=(
            "fl.federation.created", "fl.federation.policy_changed", "fl.round.started",
            "fl.round.member_replaced", "fl.round.evaluation_started", "fl.serverapp.started",
            *_ENDED,
        ),
    ),
    DurableSpec(
        service="aggregator",
        stream="FL_LEASE",
        types=("fl.update.submitted", "fl.update.failed", "fl.message.answered"),
    ),
    DurableSpec(service="artifact", stream="FL_AGGREGATOR", types=("fl.aggregate.completed",)),
    DurableSpec(service="artifact", stream="FL_ORCHESTRATOR", types=("fl.federation.created",)),
    *(
        DurableSpec(service="gateway", stream=stream.name, types=stream.types)
        for stream in STREAMS
    ),
)  # fmt: skip


def partitions(service: str) -> tuple[int | None, ...]:
    """The parts in which a service reads; a single None where it reads streams as one."""
    return (None,) if service in WHOLE else tuple(range(PARTITIONS))


DURABLES = tuple(
    replace(reader, partition=one) for reader in _READERS for one in partitions(reader.service)
)


def owned_stream(service: str) -> StreamSpec | None:
    """The JetStream stream that this service's relay fills, if it has one."""
    return next((stream for stream in STREAMS if stream.owner == service), None)


def durables(service: str) -> tuple[DurableSpec, ...]:
    return tuple(durable for durable in DURABLES if durable.service == service)


@dataclass(frozen=True, slots=True, kw_only=True)
class Permissions:
    """What a NATS user may publish and subscribe to, as NATS subject patterns."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]


def inbox_prefix(user: str) -> str:
    """Each user hears answers on an inbox of its own, so none can listen to another's."""
    return f"_INBOX.{user}"


def permissions(user: str) -> Permissions:
    """Of a service, or of `submitter`, who may publish FederationSpecs and nothing else."""
    wakes = [f"wake.{user}", f"wake.{user}.>"]
    publish = list(wakes)
    subscribe = [f"{inbox_prefix(user)}.>", *wakes]
    if user in ("submitter", "gateway"):
        publish += [SUBMISSION_SUBJECT, f"{SUBMISSION_SUBJECT}.>"]
    if user == "orchestrator":
        publish += _reading(SUBMISSIONS, user)
    if (owned := owned_stream(user)) is not None:
        publish += owned.subjects
        publish += [
            f"$JS.API.STREAM.INFO.{owned.name}",
            f"$JS.API.STREAM.MSG.GET.{owned.name}",
            f"$JS.API.DIRECT.GET.{owned.name}",
            f"$JS.API.DIRECT.GET.{owned.name}.>",
        ]
    for durable in durables(user):
        publish += _reading(durable.stream, durable.name)
        # A replica of the release without partitions may still run beside the others.
        publish += _reading(durable.stream, durable.service)
    return Permissions(publish=tuple(dict.fromkeys(publish)), subscribe=tuple(subscribe))


def _reading(stream: str, durable: str) -> list[str]:
    return [
        f"$JS.API.CONSUMER.INFO.{stream}.{durable}",
        f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{durable}",
        f"$JS.API.CONSUMER.RESET.{stream}.{durable}",
        f"$JS.API.STREAM.INFO.{stream}",
        f"$JS.ACK.{stream}.{durable}.>",
    ]
