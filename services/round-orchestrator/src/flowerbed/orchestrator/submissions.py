"""The public door on the bus: whoever publishes a FederationSpec gets a federation.

FastStream has this edge: typed, low-rate, and written into the AsyncAPI document. The stream and
the durable are declared by the migration; a spec is acknowledged when its event has committed.
"""

import asyncio
import logging
from collections.abc import Collection, Mapping

from faststream import AckPolicy
from faststream.nats import JStream, NatsBroker, NatsMessage, PullSub
from faststream.security import SASLPlaintext
from pydantic import SecretStr

from flowerbed.contracts.actor import is_proven, spelled
from flowerbed.contracts.event import is_token
from flowerbed.contracts.ids import federation_id
from flowerbed.contracts.problems import SpecRefused, parse_spec
from flowerbed.contracts.spec import FederationSpec
from flowerbed.contracts.topology import SUBMISSION_SUBJECT, SUBMISSIONS, inbox_prefix
from flowerbed.contracts.values import Problem
from flowerbed.events.context import Context
from flowerbed.events.database import Database
from flowerbed.events.documents import DocumentUnreadable, read_document
from flowerbed.events.errors import Conflict, Unavailable
from flowerbed.events.jetstream import PINGS, servers
from flowerbed.events.release import FIRST
from flowerbed.events.settings import ServiceSettings
from flowerbed.orchestrator.commanding import Federations, Situation
from flowerbed.orchestrator.commands import Command, SubmitFederation

logger = logging.getLogger(__name__)

RETRY_SECONDS = 1.0
ASK_SECONDS, ASK_CLUSTER_SECONDS = 30.0, 5.0
"""How long one request for a submission stands. A server of a cluster that dies may take it along
without a word."""

MAX_PROBLEMS = 100
"""A rejection is an event, and an event has to fit into a message."""


async def submit(
    database: Database,
    federations: Federations,
    raw: bytes,
    headers: Mapping[str, str],
    seq: int,
    otlp_allowed: Collection[str] = (),
) -> str:
    """One submission to one federation, created or rejected. Returns its id.

    The submission id is the `ce-id` or `Nats-Msg-Id` header; without one, every message is a
    submission of its own, named by its place in the stream. `headers` went through `trusted`.
    `otlp_allowed`: origins that a spec may have spans sent to.
    """
    spec, tenant, problems = _read(raw, otlp_allowed)
    submission_id = headers.get("ce-id") or headers.get("Nats-Msg-Id") or f"seq-{seq}"
    identity = federation_id(tenant, submission_id)
    code_hash = "" if spec is None else spec.spec.code_hash

    def make(now: Situation) -> Command:
        if spec is not None and spec.release > FIRST and not now.is_upgraded:
            raise Unavailable("an older replica still runs, which cannot read this spec")
        return SubmitFederation(
            federation_id=identity,
            submission_id=submission_id,
            spec=spec,
            problems=problems,
            code_hash=code_hash,
            at=now.at,
            is_upgraded=now.is_upgraded,
        )

    context = Context(
        tenant=tenant,
        correlation_id=identity,
        causation_id=submission_id,
        traceparent=headers.get("traceparent"),
        actor=spelled(headers.get("actor") or headers.get("ce-source") or "") or None,
    )
    await federations.handle(database, identity, make, context)
    return identity


def trusted(headers: Mapping[str, str], token: SecretStr | None) -> dict[str, str]:
    """Who asked counts only if the gateway says so: whoever may publish could name anyone."""
    actor, given = headers.get("actor", ""), headers.get("actorproof", "")
    kept = {name: value for name, value in headers.items() if name not in ("actor", "actorproof")}
    if token and is_proven(given, token.get_secret_value(), headers.get("ce-id", ""), actor):
        kept["actor"] = actor
    return kept


def _read(
    raw: bytes, otlp_allowed: Collection[str]
) -> tuple[FederationSpec | None, str, tuple[Problem, ...]]:
    """The spec, its tenant, and what is wrong with it. Who it is for is known even if refused."""
    try:
        document = read_document(raw)
    except DocumentUnreadable as error:
        problem = Problem(path="", value="", allowed=f"a YAML or JSON document: {error}")
        return None, "default", (problem,)
    try:
        spec = parse_spec(document, otlp_allowed=otlp_allowed)
    except SpecRefused as refused:
        return None, _tenant(document), _fitting(refused.problems)
    return spec, spec.metadata.tenant, ()


def _fitting(problems: tuple[Problem, ...]) -> tuple[Problem, ...]:
    if len(problems) <= MAX_PROBLEMS:
        return problems
    told = f"the rules: {len(problems) - MAX_PROBLEMS} more are broken"
    return (*problems[:MAX_PROBLEMS], Problem(path="", value="…", allowed=told))


def _tenant(document: object) -> str:
    metadata = document.get("metadata") if isinstance(document, Mapping) else None
    tenant = metadata.get("tenant") if isinstance(metadata, Mapping) else None
    return tenant if isinstance(tenant, str) and is_token(tenant) else "default"


class Submissions:
    """The subscriber's broker, for as long as the service runs."""

    def __init__(
        self, settings: ServiceSettings, database: Database, federations: Federations
    ) -> None:
        self._broker = NatsBroker(
            servers(settings.nats_url),
            security=SASLPlaintext(
                username=settings.nats_user,
                password=settings.nats_password.get_secret_value(),
            ),
            name="orchestrator-submissions",
            inbox_prefix=inbox_prefix(settings.nats_user),
            allow_reconnect=True,
            max_reconnect_attempts=-1,
            logger=None,
            **PINGS,
        )
        inbox = f"{inbox_prefix(settings.nats_user)}.".encode()
        is_cluster = len(servers(settings.nats_url)) > 1
        ask_seconds = ASK_CLUSTER_SECONDS if is_cluster else ASK_SECONDS
        subscribe(
            self._broker,
            database,
            federations,
            inbox,
            ask_seconds,
            token=settings.internal_token,
            otlp_allowed=settings.otlp_allowed,
        )

    async def run(self, stopping: asyncio.Event) -> None:
        """Until `stopping`. The first connection is tried again by whoever runs this."""
        await self._broker.start()
        try:
            await stopping.wait()
        finally:
            await self._broker.stop()


def subscribe(
    broker: NatsBroker,
    database: Database,
    federations: Federations,
    inbox: bytes,
    ask_seconds: float = ASK_SECONDS,
    *,
    token: SecretStr | None = None,
    otlp_allowed: Collection[str] = (),
) -> None:
    """Binds the durable that the migration declared. What is not acknowledged comes again."""

    @broker.subscriber(
        f"{SUBMISSION_SUBJECT}.>",
        stream=JStream(SUBMISSIONS, declare=False),
        durable="orchestrator",
        pull_sub=PullSub(batch_size=1, timeout=ask_seconds),
        inbox_prefix=inbox,
        ack_policy=AckPolicy.MANUAL,
        title="FederationSpec",
        description="A FederationSpec, as YAML or JSON. `ce-id` or `Nats-Msg-Id` names it.",
        decoder=_undecoded,
    )
    async def on_submitted(body: bytes, message: NatsMessage) -> None:
        headers = trusted({key: str(value) for key, value in message.headers.items()}, token)
        seq = message.raw_message.metadata.sequence.stream
        try:
            identity = await submit(database, federations, body, headers, seq, otlp_allowed)
        except (Unavailable, Conflict) as error:
            logger.warning("submission %d waits: %s", seq, error)
            await message.nack(delay=RETRY_SECONDS)
            return
        except Exception:
            logger.exception("submission %d cannot be recorded, it comes again later", seq)
            raise
        await message.ack()
        logger.info("submission %d is %s", seq, identity, extra={"federation_id": identity})


async def _undecoded(message: NatsMessage) -> bytes:
    """The document is ours to read: YAML too, and with better errors than a JSON decoder's."""
    return message.body
