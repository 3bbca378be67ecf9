"""Publish a FederationSpec as its author would on NATS, once per submission id.

What is posted here and what is published on `fl.federation.submitted` is the same message; the
orchestrator cannot tell them apart. The row and the message belong together: the row is written
first, inside the transaction, so of two posts with one key the second waits for the first; it is
committed when JetStream has the message. A crash in between costs nothing: the same key is the
same federation, however often it is published.
"""

import hashlib
import json
import re
from collections.abc import Awaitable, Callable, Collection
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from pydantic import SecretStr

from flowerbed.contracts.actor import proof
from flowerbed.contracts.event import subject
from flowerbed.contracts.federation import FederationCreated
from flowerbed.contracts.ids import federation_id
from flowerbed.contracts.problems import SpecRefused, parse_spec
from flowerbed.contracts.spec import FederationSpec
from flowerbed.contracts.topology import SUBMISSION_SUBJECT
from flowerbed.contracts.trace import of_federation
from flowerbed.events import release
from flowerbed.events.context import Context
from flowerbed.events.database import Connection, Database
from flowerbed.events.documents import DocumentUnreadable, read_document
from flowerbed.events.errors import Rejected
from flowerbed.events.message import MESSAGE_ID, Message
from flowerbed.events.telemetry import span
from flowerbed.gateway.noting import note
from flowerbed.gateway.principal import Role, acting
from flowerbed.gateway.views import Submitted

Publish = Callable[[Message], Awaitable[Any]]
HasApp = Callable[[FederationSpec], Awaitable[bool]]

_KEY = re.compile(r"[!-~]{1,200}")


class DocumentRefused(Rejected):
    """Not YAML or JSON: nothing in it could be checked."""

    code = "document-unreadable"
    status = 400


class SpecProblems(Rejected):
    """Every broken rule is in `errors`."""

    code = "spec-refused"
    status = 422


class KeyUnreadable(Rejected):
    code = "idempotency-key-unreadable"
    status = 400


class KeyReused(Rejected):
    code = "idempotency-key-reused"


class Submissions:
    """`token`: what proves to the orchestrator that the gateway names the actor.

    `otlp_allowed`: origins that a spec may name. `has_app`: whether its tenant has the spec's app.
    """

    def __init__(
        self,
        database: Database,
        publish: Publish,
        token: SecretStr,
        otlp_allowed: Collection[str] = (),
        has_app: HasApp | None = None,
    ) -> None:
        self._database = database
        self._publish = publish
        self._token = token
        self._otlp_allowed = otlp_allowed
        self._has_app = has_app

    async def submit(self, raw: bytes, *, key: str | None, tenant: str | None) -> Submitted:
        """Publish the spec in `raw`; the same key and the same spec give the same federation.

        Raises:
            Rejected: the document, the key, the spec, or who asks; nothing was published.
            Unavailable: Postgres or NATS is away; post again with the same key.
        """
        if key is not None and _KEY.fullmatch(key) is None:
            raise KeyUnreadable("an Idempotency-Key has 1 to 200 visible ASCII characters")
        spec = read_spec(raw, tenant, self._otlp_allowed)
        principal, owner = acting(), spec.metadata.tenant
        principal.require(Role.operator, owner)
        if self._has_app is not None and not await self._has_app(spec):
            raise _unknown_app(spec)
        submission_id = key or str(uuid4())
        identity = federation_id(owner, submission_id)
        note(tenant=owner, federation_id=identity, role=principal.role_in(owner))
        context = Context(tenant=spec.metadata.tenant, correlation_id=identity)
        with span("publish spec", context):
            async with self._database.transaction(spec.metadata.tenant) as tx:
                if spec.release > await release.current(tx):
                    raise release.UpgradeUnfinished()
                await _remember(tx, spec, submission_id, identity)
                said_by = self._said_by(submission_id, principal.actor)
                await self._publish(_message(spec, submission_id, identity, said_by))
        return Submitted(
            federation_id=identity,
            submission_id=submission_id,
            status_url=f"/federations/{identity}",
        )

    def _said_by(self, submission_id: str, actor: str) -> dict[str, str]:
        """Whoever may publish can name anyone as the actor; only the gateway can prove it."""
        shown = proof(self._token.get_secret_value(), submission_id, actor)
        return {"actor": actor, "actorproof": shown}


def read_spec(raw: bytes, tenant: str | None, otlp_allowed: Collection[str]) -> FederationSpec:
    try:
        spec = parse_spec(read_document(raw), otlp_allowed=otlp_allowed)
    except DocumentUnreadable as error:
        raise DocumentRefused(str(error)) from error
    except SpecRefused as refused:
        errors = [problem.model_dump() for problem in refused.problems]
        rules = "1 rule is" if len(errors) == 1 else f"{len(errors)} rules are"
        raise SpecProblems(f"{rules} broken in the FederationSpec", errors=errors) from refused
    if tenant is not None and tenant != spec.metadata.tenant:
        problem = {
            "path": "metadata.tenant",
            "value": repr(spec.metadata.tenant),
            "allowed": f"{tenant!r}, the tenant asked for",
        }
        raise SpecProblems("1 rule is broken in the FederationSpec", errors=[problem])
    return spec


def _unknown_app(spec: FederationSpec) -> SpecProblems:
    pushed = f"an app that was pushed in tenant {spec.metadata.tenant!r}: `flowerbed app push DIR`"
    problem = {"path": "spec.app", "value": repr(spec.spec.app), "allowed": pushed}
    return SpecProblems("1 rule is broken in the FederationSpec", errors=[problem])


async def _remember(
    tx: Connection, spec: FederationSpec, submission_id: str, identity: str
) -> None:
    document = _canonical(spec.brief())
    digest = hashlib.sha256(document.encode()).hexdigest()
    inserted = await tx.fetchval(
        "INSERT INTO submissions"
        " (tenant, submission_id, federation_id, name, n_rounds, spec, spec_sha256)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING RETURNING true",
        spec.metadata.tenant, submission_id, identity, spec.metadata.name, spec.spec.num_rounds,
        document, digest,
    )  # fmt: skip
    there = await _known_digest(tx, identity, fresh=bool(inserted))
    if there not in (None, digest):
        raise KeyReused(
            f"idempotency key {submission_id!r} already belongs to federation {identity},"
            " which has another spec"
        )


async def _known_digest(tx: Connection, identity: str, *, fresh: bool) -> str | None:
    """Of the spec under this identity: posted here before, or published on NATS by its author."""
    if not fresh:
        posted: str = await tx.fetchval(
            "SELECT spec_sha256 FROM submissions WHERE federation_id = $1", identity
        )
        return posted
    published = await tx.fetchval(
        "SELECT data -> 'spec' FROM events WHERE stream = $1 AND type = $2",
        f"federation-{identity}",
        FederationCreated.type,
    )
    if published is None:
        return None
    spec = FederationSpec.model_validate_json(published)
    return hashlib.sha256(_canonical(spec.brief()).encode()).hexdigest()


def _canonical(document: Any) -> str:
    """Of a spec's brief form, which is the same in every release: a key posted again is known."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _message(
    spec: FederationSpec, submission_id: str, identity: str, said_by: dict[str, str]
) -> Message:
    """CloudEvents 1.0 in NATS binary mode. JetStream's own dedup goes by the federation: two
    tenants may use the same key."""
    headers = {
        MESSAGE_ID: identity,
        "ce-specversion": "1.0",
        "ce-id": submission_id,
        "ce-type": SUBMISSION_SUBJECT,
        "ce-source": "/flowerbed/gateway",
        "ce-subject": identity,
        "ce-time": datetime.now(UTC).isoformat(),
        "content-type": "application/json",
        "tenant": spec.metadata.tenant,
        "correlationid": identity,
        "traceparent": of_federation(identity),
        **said_by,
    }
    return Message(
        subject=subject(SUBMISSION_SUBJECT, spec.metadata.tenant, identity),
        headers=headers,
        data=json.dumps(spec.brief(), ensure_ascii=False).encode(),
    )
