"""Who a client is: a key pair that an invite admitted.

    Unknown ── invite ──> Invited ── enrol ──> Enrolled ── renew ──> Enrolled
                             │                    │
                             └────── revoke ──────┴──> Revoked

An invite is used once: enrolling again answers the same only to the key pair that used it.
Pure code: secrets come in as digests, certificates as serial and expiry.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias, assert_never

from flowerbed.contracts.client import (
    ClientCertificateRenewed,
    ClientEnrolled,
    ClientInvited,
    ClientRevoked,
)
from flowerbed.events.decider import Decider
from flowerbed.events.errors import NotFound, Rejected

# --- commands ---------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class InviteClient:
    client_id: str
    secret_sha256: str
    tags: tuple[str, ...]
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolClient:
    client_id: str
    secret_sha256: str
    public_key_sha256: str
    certificate_serial: str
    certificate_expires_at: datetime
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class RenewCertificate:
    client_id: str
    public_key_sha256: str
    certificate_serial: str
    certificate_expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class RevokeClient:
    client_id: str
    reason: str


ClientCommand: TypeAlias = InviteClient | EnrolClient | RenewCertificate | RevokeClient
ClientEvent: TypeAlias = ClientInvited | ClientEnrolled | ClientCertificateRenewed | ClientRevoked

# --- state ------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Unknown:
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Invited:
    secret_sha256: str
    tags: tuple[str, ...]
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrolled:
    """`secret_sha256`: of the invite that admitted it; `first_key`: the key pair that used it."""

    secret_sha256: str
    tags: tuple[str, ...]
    first_key: str
    public_key_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Revoked:
    reason: str


ClientState: TypeAlias = Unknown | Invited | Enrolled | Revoked

# --- errors -----------------------------------------------------------------


class InviteRefused(Rejected):
    code = "invite-refused"
    status = 403


class ClientNotAdmitted(Rejected):
    code = "client-not-admitted"
    status = 403


# --- decide -----------------------------------------------------------------


def decide(state: ClientState, command: ClientCommand) -> list[ClientEvent]:
    match command:
        case InviteClient():
            return _invite(state, command)
        case EnrolClient():
            return _enrol(state, command)
        case RenewCertificate():
            return _renew(state, command)
        case RevokeClient():
            return _revoke(state, command)
        case _:
            assert_never(command)


def _invite(state: ClientState, command: InviteClient) -> list[ClientEvent]:
    if not isinstance(state, Unknown):
        return []
    return [
        ClientInvited(
            client_id=command.client_id,
            secret_sha256=command.secret_sha256,
            tags=command.tags,
            expires_at=command.expires_at,
        )
    ]


def _enrol(state: ClientState, command: EnrolClient) -> list[ClientEvent]:
    match state:
        case Invited(secret_sha256=command.secret_sha256) if command.at < state.expires_at:
            return [
                ClientEnrolled(
                    client_id=command.client_id,
                    public_key_sha256=command.public_key_sha256,
                    tags=state.tags,
                    certificate_serial=command.certificate_serial,
                    certificate_expires_at=command.certificate_expires_at,
                )
            ]
        case Invited(secret_sha256=command.secret_sha256):
            raise InviteRefused(f"the invite expired at {state.expires_at:%Y-%m-%d %H:%M:%S} UTC")
        case Enrolled(secret_sha256=command.secret_sha256, first_key=command.public_key_sha256) if (
            state.public_key_sha256 == state.first_key
        ):
            return []  # its answer was lost: the same client asks again
        case Enrolled(secret_sha256=command.secret_sha256):
            raise InviteRefused("the invite was used by another key pair: ask for a new one")
        case _:
            raise InviteRefused("no such invite")


def _renew(state: ClientState, command: RenewCertificate) -> list[ClientEvent]:
    if not isinstance(state, Enrolled):
        raise ClientNotAdmitted(f"client {command.client_id} is not enrolled")
    return [
        ClientCertificateRenewed(
            client_id=command.client_id,
            public_key_sha256=command.public_key_sha256,
            certificate_serial=command.certificate_serial,
            certificate_expires_at=command.certificate_expires_at,
        )
    ]


def _revoke(state: ClientState, command: RevokeClient) -> list[ClientEvent]:
    match state:
        case Unknown():
            raise NotFound(f"no client {command.client_id}")
        case Revoked():
            return []
        case Invited() | Enrolled():
            return [ClientRevoked(client_id=command.client_id, reason=command.reason)]
        case _:
            assert_never(state)


# --- evolve -----------------------------------------------------------------


def evolve(state: ClientState, event: ClientEvent) -> ClientState:
    match event:
        case ClientInvited():
            return Invited(
                secret_sha256=event.secret_sha256, tags=event.tags, expires_at=event.expires_at
            )
        case ClientEnrolled():
            return Enrolled(
                secret_sha256=state.secret_sha256 if isinstance(state, Invited) else "",
                tags=event.tags,
                first_key=event.public_key_sha256,
                public_key_sha256=event.public_key_sha256,
            )
        case ClientCertificateRenewed():
            return _renewed(state, event)
        case ClientRevoked():
            return Revoked(reason=event.reason)
        case _:
            assert_never(event)


def _renewed(state: ClientState, event: ClientCertificateRenewed) -> ClientState:
    if not isinstance(state, Enrolled):
        return state
    return Enrolled(
        secret_sha256=state.secret_sha256,
        tags=state.tags,
        first_key=state.first_key,
        public_key_sha256=event.public_key_sha256,
    )


client: Decider[ClientState, ClientCommand, ClientEvent] = Decider(Unknown(), decide, evolve)
