"""What people command: a new federation is published, everything else goes to its owner."""

from typing import Annotated, Any

from fastapi import APIRouter, Header, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from flowerbed.contracts.values import Sha256, Token, Words
from flowerbed.events.documents import MAX_BYTES, DocumentUnreadable, read_document
from flowerbed.events.errors import Rejected
from flowerbed.gateway.auth import (
    ADMIN,
    ADMIN_IN_BODY,
    OPERATOR,
    OPERATOR_IN_BODY,
    Role,
    Tenant,
    acting,
)
from flowerbed.gateway.noting import note
from flowerbed.gateway.openapi import written
from flowerbed.gateway.paths import ClientId, FederationId, RoundNumber
from flowerbed.gateway.reads import Reads
from flowerbed.gateway.status_routes import Digest
from flowerbed.gateway.submissions import DocumentRefused, Submissions
from flowerbed.gateway.upstream import LONG_PATIENCE, Upstream
from flowerbed.gateway.views import Submitted

MONTH = 30 * 86_400
LONGEST_REASON = 1024


class DocumentTooLong(Rejected):
    code = "document-too-long"
    status = 413


class SeveralFederations(Rejected):
    code = "several-federations"


class NoPolicy(Rejected):
    code = "policy-refused"
    status = 422


class Command(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Reason(Command):
    reason: Annotated[Words, Field(max_length=LONGEST_REASON)] = ""


class InviteRequest(Command):
    """`tags` are what a federation's client_selector asks for. Without a `tenant` it is the one
    that the caller is an admin of, or `default`."""

    tenant: Token | None = None
    tags: tuple[str, ...] = ()
    ttl_seconds: Annotated[int, Field(ge=60, le=MONTH)] = 86_400


class Promotion(Command):
    """`federation_id` only where the same bytes are recorded in several."""

    channel: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")] = "stable"
    federation_id: str | None = None


class Revocation(Reason):
    federation_id: str | None = None


def submission_routes(submissions: Submissions) -> APIRouter:
    router = APIRouter()

    @router.post(
        "/federations",
        status_code=202,
        dependencies=[OPERATOR_IN_BODY],
        openapi_extra=written("FederationSpec"),
    )
    async def submit(
        request: Request,
        response: Response,
        idempotency_key: Annotated[str | None, Header()] = None,
        tenant: Tenant = None,
    ) -> Submitted:
        """A FederationSpec as YAML or JSON, published on `fl.federation.submitted`."""
        raw = await _body(request)
        submitted = await submissions.submit(raw, key=idempotency_key, tenant=tenant)
        response.headers["location"] = submitted.status_url
        return submitted

    return router


async def _body(request: Request) -> bytes:
    """Read no more than a document may have, whatever the caller says or sends."""
    received = bytearray()
    async for chunk in request.stream():
        received += chunk
        if len(received) > MAX_BYTES:
            raise DocumentTooLong(f"a document has at most {MAX_BYTES} bytes")
    return bytes(received)


def command_routes(reads: Reads, upstreams: dict[str, Upstream]) -> APIRouter:
    router = APIRouter()

    @router.post("/clients/invites", dependencies=[ADMIN_IN_BODY])
    async def invite(invite: InviteRequest, tenant: Tenant = None) -> Response:
        """A single-use key with which one client enrols."""
        owner = invite.tenant or tenant or "default"
        acting().require(Role.admin, owner)
        note(tenant=owner, role=Role.admin)
        body = {**invite.model_dump(mode="json"), "tenant": owner}
        return await upstreams["lease"].forward("POST", "/internal/invites", body=body)

    @router.post("/clients/{client_id}/revoke", dependencies=[ADMIN])
    async def revoke(client_id: ClientId, reason: Reason, tenant: Tenant = None) -> Response:
        owner = await reads.tenant_of_client(tenant, client_id)
        note(tenant=owner)
        body = {"tenant": owner, "reason": reason.reason}
        path = f"/internal/clients/{client_id}/revoke"
        return await upstreams["lease"].forward("POST", path, body=body)

    @router.post(
        "/federations/{federation_id}/policy",
        dependencies=[OPERATOR],
        openapi_extra=written("PolicyChanges"),
    )
    async def policy(
        federation_id: FederationId, request: Request, tenant: Tenant = None
    ) -> Response:
        """The round policy's changed keys, as YAML or JSON; `reason` is kept in the history."""
        owner = await reads.tenant_of_federation(tenant, federation_id)
        note(tenant=owner)
        changes, reason = read_policy_changes(await _body(request))
        body = {"tenant": owner, "reason": reason, "changes": changes}
        path = f"/internal/federations/{federation_id}/policy"
        return await upstreams["orchestrator"].forward("POST", path, body=body)

    async def steer(
        verb: str, federation_id: str, reason: Reason | None, tenant: str | None
    ) -> Response:
        owner = await reads.tenant_of_federation(tenant, federation_id)
        note(tenant=owner)
        body = {"tenant": owner, "reason": reason.reason if reason else ""}
        path = f"/internal/federations/{federation_id}/{verb}"
        return await upstreams["orchestrator"].forward("POST", path, body=body)

    @router.post("/federations/{federation_id}/pause", dependencies=[OPERATOR])
    async def pause(
        federation_id: FederationId, reason: Reason | None = None, tenant: Tenant = None
    ) -> Response:
        """Start no further exchange until it is resumed; the open one may end."""
        return await steer("pause", federation_id, reason, tenant)

    @router.post("/federations/{federation_id}/resume", dependencies=[OPERATOR])
    async def resume(
        federation_id: FederationId, reason: Reason | None = None, tenant: Tenant = None
    ) -> Response:
        """Go on with a paused federation."""
        return await steer("resume", federation_id, reason, tenant)

    @router.post("/federations/{federation_id}/cancel", dependencies=[OPERATOR])
    async def cancel(
        federation_id: FederationId, reason: Reason | None = None, tenant: Tenant = None
    ) -> Response:
        """End it for good; what it has made stays."""
        return await steer("cancel", federation_id, reason, tenant)

    @router.post("/artifacts/{federation_id}/{number}/verify", dependencies=[OPERATOR])
    async def verify(
        federation_id: FederationId, number: RoundNumber, tenant: Tenant = None
    ) -> Response:
        """Fold the round's updates again and compare the bytes with what is recorded."""
        owner = await reads.tenant_of_federation(tenant, federation_id)  # or it is another's
        note(tenant=owner)
        body = {"federation_id": federation_id, "round_number": number}
        return await upstreams["aggregator"].forward(
            "POST", "/verify", body=body, patience=LONG_PATIENCE
        )

    @router.post("/artifacts/{sha256}/promote", dependencies=[OPERATOR])
    async def promote(sha256: Digest, promotion: Promotion, tenant: Tenant = None) -> Response:
        """Make the artifact its federation's current one of a channel."""
        body = await place(reads, tenant, sha256, promotion.federation_id)
        body["channel"] = promotion.channel
        path = f"/internal/artifacts/{sha256}/promote"
        return await upstreams["artifact"].forward("POST", path, body=body)

    @router.post("/artifacts/{sha256}/revoke", dependencies=[OPERATOR])
    async def revoke_artifact(
        sha256: Digest, revocation: Revocation, tenant: Tenant = None
    ) -> Response:
        """Nobody should use the artifact any more; its bytes and history stay."""
        body = await place(reads, tenant, sha256, revocation.federation_id)
        body["reason"] = revocation.reason
        path = f"/internal/artifacts/{sha256}/revoke"
        return await upstreams["artifact"].forward("POST", path, body=body)

    return router


def read_policy_changes(raw: bytes) -> tuple[dict[str, Any], str]:
    """The changed keys and why.

    Raises:
        Rejected: the document cannot be read, or is no mapping of keys.
    """
    try:
        document = read_document(raw)
    except DocumentUnreadable as error:
        raise DocumentRefused(f"the policy cannot be read: {error}") from error
    if not isinstance(document, dict):
        raise NoPolicy("a round policy is a mapping of its changed keys")
    reason = document.pop("reason", "")
    if not isinstance(reason, str) or len(reason) > LONGEST_REASON:
        raise NoPolicy(f"a reason is text of at most {LONGEST_REASON} characters")
    return document, reason


async def place(
    reads: Reads, tenant: str | None, sha256: Sha256, federation_id: str | None
) -> dict[str, Any]:
    """Whose artifact is meant: digests do not tell two runs with the same bytes apart."""
    records = (await reads.artifact(tenant, sha256)).records
    places = {(one.tenant, one.federation_id) for one in records}
    if federation_id is not None:
        places = {place for place in places if place[1] == federation_id}
    if len(places) != 1:
        named = ", ".join(sorted(place[1] for place in places)) or "none of that name"
        raise SeveralFederations(f"artifact {sha256} is recorded in {named}: name one of them")
    owner, federation = places.pop()
    note(tenant=owner, federation_id=federation)
    return {"tenant": owner, "federation_id": federation}
