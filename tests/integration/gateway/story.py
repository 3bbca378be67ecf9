"""What four services tell about two federations and their clients, for tests of the read models."""

import json
import random
import uuid
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from flowerbed.contracts.aggregate import AggregateCompleted, FoldedUpdate
from flowerbed.contracts.artifact import ArtifactPromoted, ArtifactRecorded, ArtifactRevoked
from flowerbed.contracts.client import (
    ClientCertificateRenewed,
    ClientDeclined,
    ClientDropped,
    ClientEnrolled,
    ClientInvited,
    ClientJoined,
    ClientLeaseIssued,
    ClientReleased,
    ClientRevoked,
)
from flowerbed.contracts.event import NO_FEDERATION, Event
from flowerbed.contracts.federation import (
    FederationCompleted,
    FederationCreated,
    FederationPaused,
    FederationPolicyChanged,
    FederationRejected,
    FederationResumed,
    FederationStarted,
)
from flowerbed.contracts.policy import RoundPolicy
from flowerbed.contracts.problems import parse_spec
from flowerbed.contracts.round import (
    CohortMember,
    RoundCompleted,
    RoundEvaluationStarted,
    RoundFailed,
    RoundMemberReplaced,
    RoundStarted,
)
from flowerbed.contracts.topology import STREAMS
from flowerbed.contracts.update import (
    UpdateAccepted,
    UpdateFailed,
    UpdateQuarantined,
    UpdateRejected,
    UpdateSubmitted,
)
from flowerbed.contracts.values import ArtifactRef, DatasetRef, Exchange, Problem
from flowerbed.events.context import Context
from flowerbed.events.message import Mark, Message, outgoing
from flowerbed.events.recorded import Recorded

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
FED = "fed-0123456789abcdef"
REFUSED = "fed-ffffffffffffffff"
TENANT = "acme"
OTHER = "rival"
CLIENTS = ("client-a", "client-b", "client-c")
_OWNERS = {event_type: stream.owner for stream in STREAMS for event_type in stream.types}


def document(tenant: str = TENANT, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "flowerbed/v1",
        "metadata": {"name": "demo", "tenant": tenant},
        "spec": {
            "app": "builtin:hospital",
            "model_ref": {"uri": "builtin:hospital"},
            "num_rounds": 2,
            "min_clients": 2,
            **spec,
        },
    }


def ref(name: str) -> ArtifactRef:
    digest = (name.encode().hex() * 64)[:64]
    return ArtifactRef(uri=f"s3://flowerbed/checkpoints/{digest}", sha256=digest, size=len(name))


@dataclass
class Story:
    """Events in the order in which they happened, each a second after the one before."""

    told: list[Recorded[Event]] = field(default_factory=list)
    versions: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def tell(self, stream: str, event: Event, tenant: str = TENANT) -> None:
        self.versions[stream] += 1
        version = self.versions[stream]
        self.told.append(
            Recorded(
                position=len(self.told) + 1,
                stream=stream,
                version=version,
                id=uuid.uuid5(uuid.NAMESPACE_OID, f"{stream}@{version}"),
                type=event.type,
                schema_version=event.schema_version,
                event=event,
                context=Context(
                    tenant=tenant,
                    correlation_id=getattr(event, "federation_id", NO_FEDERATION),
                    causation_id="why",
                    actor="alice",
                ),
                recorded_at=NOON + timedelta(seconds=len(self.told)),
            )
        )

    def shuffled(self, seed: int) -> list[Recorded[Event]]:
        """As four relays may deliver it: each owner's events in order, the owners in any."""
        chosen = random.Random(seed)
        waiting: dict[str, list[Recorded[Event]]] = defaultdict(list)
        for one in self.told:
            waiting[owner(one)].append(one)
        order = [name for name, events in waiting.items() for _ in events]
        chosen.shuffle(order)
        return [waiting[name].pop(0) for name in order]


def owner(recorded: Recorded[Event]) -> str:
    return _OWNERS[recorded.type]


def message(recorded: Recorded[Event]) -> Message:
    """As the owner's relay publishes it."""
    context = recorded.context
    row = {
        "id": recorded.id,
        "type": recorded.type,
        "stream": recorded.stream,
        "version": recorded.version,
        "schema_version": recorded.schema_version,
        "tenant": context.tenant,
        "recorded_at": recorded.recorded_at,
        "data": recorded.event.model_dump_json(),
        "meta": json.dumps(
            {
                "correlation_id": context.correlation_id,
                "causation_id": context.causation_id,
                "actor": context.actor,
            }
        ),
    }
    return outgoing(row, owner(recorded), Mark(1, 2, recorded.position))


# --- the story --------------------------------------------------------------


def whole_story() -> Story:
    story = Story()
    _enrol(story)
    _create(story)
    _join(story)
    _failed_attempt(story)
    _round(story, 1, attempt=2, base="base", made="one")
    paused = FederationPaused(federation_id=FED, reason="lunch", expires_at=NOON)
    story.tell(f"federation-{FED}", paused)
    story.tell(f"federation-{FED}", FederationResumed(federation_id=FED))
    _round(story, 2, attempt=1, base="one", made="two")
    _end(story)
    _of_another_tenant(story)
    return story


def _enrol(story: Story) -> None:
    for client in (*CLIENTS, "client-late"):
        story.tell(
            f"client-{client}",
            ClientInvited(
                client_id=client, secret_sha256="0" * 64, tags=("eu",),
                expires_at=NOON + timedelta(days=1),
            ),
        )  # fmt: skip
    for client in CLIENTS:
        facts = {"public_key_sha256": "1" * 64, "certificate_serial": "7"}
        expires = NOON + timedelta(days=1)
        story.tell(
            f"client-{client}",
            ClientEnrolled(client_id=client, tags=("eu",), certificate_expires_at=expires, **facts),
        )
        story.tell(
            f"client-{client}",
            ClientCertificateRenewed(
                client_id=client, certificate_expires_at=expires + timedelta(hours=1), **facts
            ),
        )


def _create(story: Story) -> None:
    story.tell(
        f"federation-{FED}",
        FederationCreated(
            federation_id=FED,
            submission_id="s1",
            spec=parse_spec(document()).document(),
            code_hash="c" * 64,
            join_deadline_at=NOON + timedelta(hours=1),
        ),
    )
    story.tell(
        f"exchange-{FED}-0-1-initialize",
        AggregateCompleted(
            federation_id=FED, round_number=0, attempt=1, exchange="initialize",
            checkpoint=ref("base"),
        ),
    )  # fmt: skip
    _record(story, 0, 1, "initialize", "base", ())


def _join(story: Story) -> None:
    for client in CLIENTS:
        _lease(story, client, epoch=1)
    dropped = _lease_facts(CLIENTS[2], 1)
    story.tell(f"lease-{FED}-{CLIENTS[2]}", ClientDropped(**dropped, reason="silent"))
    _lease(story, CLIENTS[2], epoch=2)
    story.tell(
        f"federation-{FED}", FederationStarted(federation_id=FED, base=ref("base"), n_clients=3)
    )


def _lease(story: Story, client: str, epoch: int) -> None:
    facts = _lease_facts(client, epoch)
    story.tell(f"lease-{FED}-{client}", ClientLeaseIssued(**facts, ttl_seconds=60))
    data = DatasetRef(label=f"hospital-{client}", sha256="d" * 64)
    story.tell(f"lease-{FED}-{client}", ClientJoined(**facts, dataset=data))


def declining_story() -> Story:
    """client-a takes its lease up after a refusal; client-b refuses and leaves it at that."""
    story = Story()
    for client in CLIENTS[:2]:
        facts, stream = _lease_facts(client, 1), f"lease-{FED}-{client}"
        story.tell(stream, ClientLeaseIssued(**facts, ttl_seconds=60))
        story.tell(stream, ClientDeclined(**facts, code="disk-full", detail="9 MB are free"))
    data = DatasetRef(label="hospital-a", sha256="d" * 64)
    facts = _lease_facts(CLIENTS[0], 1)
    story.tell(f"lease-{FED}-{CLIENTS[0]}", ClientJoined(**facts, dataset=data))
    return story


def steered_story() -> Story:
    """A policy is changed before and after the start; client-c leaves, client-d takes its place."""
    story = Story()
    _create(story)
    stream, policy = f"federation-{FED}", RoundPolicy(quorum=0.5)
    story.tell(stream, _changed(policy, NOON + timedelta(hours=3)))
    story.tell(stream, FederationStarted(federation_id=FED, base=ref("base"), n_clients=3))
    story.tell(stream, RoundStarted(**_exchange(1, 1, "base")))
    _submit(story, 1, 1, "train", "client-a")
    for place, left in ((0, "client-a"), (2, "client-c")):
        member = CohortMember(
            client_id=f"client-{4 + place}", lease_id="lease-d", lease_epoch=1, seed=place
        )
        story.tell(
            stream,
            RoundMemberReplaced(
                federation_id=FED, round_number=1, attempt=1, place=place, client_id=left,
                replacement=member,
            ),
        )  # fmt: skip
    story.tell(stream, _changed(RoundPolicy(quorum=0.5, close_at=2), None))
    return story


def _changed(policy: RoundPolicy, waits_until: datetime | None) -> FederationPolicyChanged:
    return FederationPolicyChanged(
        federation_id=FED, policy=policy.model_dump(mode="json"), changed=("quorum",),
        waits_until=waits_until,
    )  # fmt: skip


def _lease_facts(client: str, epoch: int) -> dict[str, Any]:
    return {
        "client_id": client, "federation_id": FED, "lease_id": f"lease-{client}", "epoch": epoch,
    }  # fmt: skip


def _exchange(number: int, attempt: int, base: str) -> dict[str, Any]:
    cohort = tuple(
        CohortMember(client_id=client, lease_id=f"lease-{client}", lease_epoch=1, seed=place)
        for place, client in enumerate(CLIENTS)
    )
    return {
        "federation_id": FED, "round_number": number, "attempt": attempt, "base": ref(base),
        "cohort": cohort, "goal": 3, "n_required": 2, "seed": 7, "config": {"lr": 0.1},
        "deadline_at": NOON + timedelta(hours=2),
    }  # fmt: skip


def _work(number: int, attempt: int, exchange: Exchange, client: str) -> dict[str, Any]:
    return {
        "federation_id": FED, "round_number": number, "attempt": attempt, "exchange": exchange,
        "client_id": client, "work_id": f"{FED}.{number}.{attempt}.{exchange}.{client}",
    }  # fmt: skip


def _submit(story: Story, number: int, attempt: int, exchange: Exchange, client: str) -> None:
    name = f"{client}{number}{attempt}"
    story.tell(
        f"lease-{FED}-{client}",
        UpdateSubmitted(
            **_work(number, attempt, exchange, client), lease_epoch=1,
            artifact=ref(name) if exchange == "train" else None, n_examples=999,
            metrics={"train-loss": 9.0}, train_seconds=9.0,
            **(_measures(client) if exchange == "train" else {}),
        ),
    )  # fmt: skip


def _measures(client: str) -> dict[str, Any]:
    """One site counts tokens and joules; the others have no counter and no tokens."""
    counted = {"n_tokens": 2000, "joules": 12.5}
    return {"download_seconds": 0.5, "upload_seconds": 1.5} | (
        counted if client == CLIENTS[0] else {"joules_reason": "no-counter"}
    )


def _failed_attempt(story: Story) -> None:
    """One client fails, one is refused, one is held back: nothing comes of it."""
    a, b, c = CLIENTS
    stream = f"exchange-{FED}-1-1-train"
    story.tell(f"federation-{FED}", RoundStarted(**_exchange(1, 1, "base")))
    failed = _work(1, 1, "train", a)
    story.tell(
        f"lease-{FED}-{a}",
        UpdateFailed(**failed, lease_epoch=1, code="app-failed", detail="out of memory"),
    )
    story.tell(
        stream, UpdateRejected(**failed, place=0, code="client-failed", detail="as reported")
    )
    _submit(story, 1, 1, "train", b)
    refused = _work(1, 1, "train", b)
    story.tell(
        stream, UpdateRejected(**refused, place=1, code="not-finite", detail="NaN in fc.weight")
    )
    _submit(story, 1, 1, "train", c)
    held = _work(1, 1, "train", c)
    story.tell(
        stream,
        UpdateQuarantined(**held, place=2, artifact=ref("held"), code="norm", detail="too long"),
    )
    story.tell(
        f"federation-{FED}",
        RoundFailed(
            federation_id=FED, round_number=1, attempt=1, code="below-quorum",
            reason="0 of 2 updates", attempts_left=1,
        ),
    )  # fmt: skip


def _round(story: Story, number: int, attempt: int, base: str, made: str) -> None:
    story.tell(f"federation-{FED}", RoundStarted(**_exchange(number, attempt, base)))
    training = {"train-loss": 1.0 / number, "num-examples": 30.0}
    _answers(story, number, attempt, "train")
    folded = tuple(
        FoldedUpdate(
            client_id=client, place=place, sha256=ref(f"{client}{number}{attempt}").sha256,
            weight=10 + place,
        )
        for place, client in enumerate(CLIENTS)
    )  # fmt: skip
    closed = {"federation_id": FED, "round_number": number, "attempt": attempt}
    story.tell(
        f"exchange-{FED}-{number}-{attempt}-train",
        AggregateCompleted(
            **closed, exchange="train", checkpoint=ref(made), state=ref(f"{made}-state"),
            parents=(ref(base).sha256,), updates=folded, metrics=training, train_seconds=1.5,
        ),
    )  # fmt: skip
    _record(story, number, attempt, "train", made, (ref(base).sha256,))
    story.tell(
        f"federation-{FED}",
        RoundEvaluationStarted(**_exchange(number, attempt, made), n_updates=3, training=training),
    )
    _answers(story, number, attempt, "evaluate")
    measured = {"accuracy": round(0.7 + number / 10, 3), "eval-loss": 0.5 / number}
    story.tell(
        f"exchange-{FED}-{number}-{attempt}-evaluate",
        AggregateCompleted(
            **closed, exchange="evaluate", checkpoint=None, metrics=measured, train_seconds=0.25
        ),
    )
    story.tell(
        f"federation-{FED}",
        RoundCompleted(
            **closed, checkpoint=ref(made), n_updates=3, training=training, evaluation=measured
        ),
    )


def _answers(story: Story, number: int, attempt: int, exchange: Exchange) -> None:
    for place, client in enumerate(CLIENTS):
        _submit(story, number, attempt, exchange, client)
        name = f"{client}{number}{attempt}"
        story.tell(
            f"exchange-{FED}-{number}-{attempt}-{exchange}",
            UpdateAccepted(
                **_work(number, attempt, exchange, client), place=place,
                artifact=ref(name) if exchange == "train" else None, n_examples=10 + place,
                metrics={"train-loss": 1.0}, train_seconds=1.0 + place,
            ),
        )  # fmt: skip


def _record(
    story: Story, number: int, attempt: int, exchange: Exchange, name: str, parents: Sequence[str]
) -> None:
    facts = {
        "federation_id": FED, "round_number": number, "attempt": attempt, "exchange": exchange,
        "parents": tuple(parents),
    }  # fmt: skip
    kind: Any = "base" if exchange == "initialize" else "checkpoint"
    story.tell(
        f"lineage-{FED}",
        ArtifactRecorded(**facts, kind=kind, artifact=ref(name), metrics={"loss": 1.0}),
    )
    if kind == "checkpoint":
        state = ArtifactRecorded(**facts, kind="state", artifact=ref(f"{name}-state"))
        story.tell(f"lineage-{FED}", state)


def _end(story: Story) -> None:
    lineage = f"lineage-{FED}"
    one, two = ref("one").sha256, ref("two").sha256
    story.tell(lineage, ArtifactPromoted(federation_id=FED, sha256=one, channel="stable"))
    story.tell(lineage, ArtifactPromoted(federation_id=FED, sha256=one, channel="beta"))
    story.tell(lineage, ArtifactPromoted(federation_id=FED, sha256=two, channel="stable"))
    story.tell(lineage, ArtifactRevoked(federation_id=FED, sha256=one, reason="poisoned"))
    story.tell(
        f"federation-{FED}", FederationCompleted(federation_id=FED, final=ref("two"), n_rounds=2)
    )
    for client, epoch in zip(CLIENTS, (1, 1, 2), strict=True):
        ended = ClientReleased(**_lease_facts(client, epoch), reason="the federation ended")
        story.tell(f"lease-{FED}-{client}", ended)
    story.tell(f"client-{CLIENTS[2]}", ClientRevoked(client_id=CLIENTS[2], reason="sold"))


def _of_another_tenant(story: Story) -> None:
    problem = Problem(path="spec.num_rounds", value="0", allowed="at least 1")
    refused = FederationRejected(federation_id=REFUSED, submission_id="s2", problems=(problem,))
    story.tell(f"federation-{REFUSED}", refused, tenant=OTHER)
    invited = ClientInvited(
        client_id="client-r", secret_sha256="0" * 64, expires_at=NOON + timedelta(days=1)
    )
    story.tell("client-client-r", invited, tenant=OTHER)


def messages(told: Sequence[Recorded[Event]]) -> Iterator[tuple[str, Message]]:
    """Each event's owner, and its message."""
    for one in told:
        yield owner(one), message(one)
