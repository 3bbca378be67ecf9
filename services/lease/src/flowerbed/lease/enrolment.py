"""Invites, enrolment, renewal and revocation: how a key pair becomes a client."""

import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from flowerbed.contracts.door import (
    Certificate,
    CertificateRequest,
    Enrolled,
    Enrolment,
    Invite,
)
from flowerbed.events.commands import handle
from flowerbed.events.context import Context
from flowerbed.events.database import Database
from flowerbed.events.store import EventStore
from flowerbed.lease.clients import (
    ClientCommand,
    ClientNotAdmitted,
    EnrolClient,
    InviteClient,
    RenewCertificate,
    RevokeClient,
    client,
)
from flowerbed.lease.pki import Authority, Issued, Peer
from flowerbed.lease.projections import clients


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrolments:
    """`enrol_url` and `client_url`: where runners reach the two doors."""

    database: Database
    store: EventStore
    authority: Authority
    jwks: dict[str, Any]
    enrol_url: str
    client_url: str
    certificate_ttl: timedelta
    now: Callable[[], datetime]

    async def invite(
        self, tenant: str, tags: tuple[str, ...], ttl: timedelta, actor: str | None
    ) -> tuple[Invite, datetime]:
        """A new client's single-use key. Only its digest is kept."""
        secret = secrets.token_urlsafe(32)
        client_id = f"client-{secrets.token_hex(6)}"
        expires_at = self.now() + ttl
        command = InviteClient(
            client_id=client_id,
            secret_sha256=_sha256(secret),
            tags=tags,
            expires_at=expires_at,
        )
        await self._command(tenant, client_id, command, actor)
        invite = Invite(
            enrol_url=self.enrol_url,
            ca_sha256=self.authority.sha256,
            client_id=client_id,
            tenant=tenant,
            secret=secret,
        )
        return invite, expires_at

    async def enrol(self, request: Enrolment) -> Enrolled:
        """The invite's secret and a CSR in, a short-lived client certificate out."""
        issued = self._issue(request.csr_pem, request.client_id, request.tenant)
        command = EnrolClient(
            client_id=request.client_id,
            secret_sha256=_sha256(request.secret),
            public_key_sha256=issued.public_key_sha256,
            certificate_serial=issued.serial,
            certificate_expires_at=issued.expires_at,
            at=self.now(),
        )
        await self._command(request.tenant, request.client_id, command, request.client_id)
        return Enrolled(
            client_id=request.client_id,
            tenant=request.tenant,
            certificate_pem=issued.pem,
            ca_pem=self.authority.pem,
            client_url=self.client_url,
            jwks=self.jwks,
        )

    async def renew(self, peer: Peer, request: CertificateRequest) -> Certificate:
        """A new certificate for whoever holds a valid one; the key pair may be a new one."""
        async with self.database.transaction(peer.tenant) as tx:
            known = await clients.find(tx, peer.client_id)
        if known is None or known.status != "enrolled":
            raise ClientNotAdmitted(f"client {peer.client_id} is not enrolled")
        issued = self._issue(request.csr_pem, peer.client_id, peer.tenant)
        command = RenewCertificate(
            client_id=peer.client_id,
            public_key_sha256=issued.public_key_sha256,
            certificate_serial=issued.serial,
            certificate_expires_at=issued.expires_at,
        )
        await self._command(peer.tenant, peer.client_id, command, peer.client_id)
        return Certificate(certificate_pem=issued.pem)

    async def revoke(self, tenant: str, client_id: str, reason: str, actor: str | None) -> None:
        command = RevokeClient(client_id=client_id, reason=reason)
        await self._command(tenant, client_id, command, actor)

    async def _command(
        self, tenant: str, client_id: str, command: ClientCommand, actor: str | None
    ) -> None:
        context = Context(tenant=tenant, actor=actor)
        stream = f"client-{client_id}"
        await handle(self.database, self.store, client, stream, command, context)

    def _issue(self, csr_pem: str, client_id: str, tenant: str) -> Issued:
        return self.authority.issue(
            csr_pem, client_id=client_id, tenant=tenant, at=self.now(), ttl=self.certificate_ttl
        )


def _sha256(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
