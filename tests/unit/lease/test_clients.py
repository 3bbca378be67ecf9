"""An invite admits one key pair, once; a revoked client stays out."""

from datetime import UTC, datetime, timedelta

import pytest

from flowerbed.contracts.client import (
    ClientCertificateRenewed,
    ClientEnrolled,
    ClientInvited,
    ClientRevoked,
)
from flowerbed.events.errors import NotFound
from flowerbed.events.testing import given
from flowerbed.lease.clients import (
    ClientEvent,
    ClientNotAdmitted,
    EnrolClient,
    InviteClient,
    InviteRefused,
    RenewCertificate,
    RevokeClient,
    client,
)

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
INVITED = ClientInvited(
    client_id="c1", secret_sha256="a" * 64, tags=("gpu",), expires_at=NOON + DAY
)


def enrolled(key: str = "1") -> ClientEnrolled:
    return ClientEnrolled(
        client_id="c1", public_key_sha256=key * 64, tags=("gpu",), certificate_serial="s",
        certificate_expires_at=NOON + DAY,
    )  # fmt: skip


def enrol(key: str = "1", secret: str = "a", at: datetime = NOON) -> EnrolClient:
    return EnrolClient(
        client_id="c1", secret_sha256=secret * 64, public_key_sha256=key * 64,
        certificate_serial="s", certificate_expires_at=NOON + DAY, at=at,
    )  # fmt: skip


RENEW = RenewCertificate(
    client_id="c1", public_key_sha256="2" * 64, certificate_serial="t",
    certificate_expires_at=NOON + 2 * DAY,
)  # fmt: skip
RENEWED = ClientCertificateRenewed(
    client_id="c1", public_key_sha256="2" * 64, certificate_serial="t",
    certificate_expires_at=NOON + 2 * DAY,
)  # fmt: skip


def test_an_invite_is_made_once() -> None:
    invite = InviteClient(
        client_id="c1", secret_sha256="a" * 64, tags=("gpu",), expires_at=NOON + DAY
    )
    given(client).when(invite).then(INVITED)
    given(client, INVITED).when(invite).then_nothing()


def test_the_first_key_pair_with_the_secret_is_the_client() -> None:
    given(client, INVITED).when(enrol()).then(enrolled())


def test_enrolling_again_with_the_same_key_is_the_same_enrolment() -> None:
    given(client, INVITED, enrolled()).when(enrol()).then_nothing()


@pytest.mark.parametrize(
    ("events", "command", "message"),
    [
        ([INVITED, enrolled()], enrol(key="9"), "used by another key pair"),
        ([INVITED, enrolled(), RENEWED], enrol(), "used by another key pair"),
        ([INVITED], enrol(secret="b"), "no such invite"),
        ([], enrol(), "no such invite"),
        ([INVITED], enrol(at=NOON + DAY), "expired at 2026-01-02 12:00:00 UTC"),
        ([INVITED, ClientRevoked(client_id="c1")], enrol(), "no such invite"),
    ],
)
def test_nobody_else_is_admitted(
    events: list[ClientEvent], command: EnrolClient, message: str
) -> None:
    given(client, *events).when(command).then_rejected(InviteRefused, match=message)


def test_only_an_enrolled_client_renews() -> None:
    given(client, INVITED, enrolled()).when(RENEW).then(RENEWED)
    given(client, INVITED).when(RENEW).then_rejected(ClientNotAdmitted)
    given(client, INVITED, enrolled(), ClientRevoked(client_id="c1")).when(RENEW).then_rejected(
        ClientNotAdmitted
    )


def test_revoking_is_final_and_repeats_change_nothing() -> None:
    revoke = RevokeClient(client_id="c1", reason="lost laptop")
    revoked = ClientRevoked(client_id="c1", reason="lost laptop")
    given(client, INVITED).when(revoke).then(revoked)
    given(client, INVITED, enrolled(), revoked).when(revoke).then_nothing()
    given(client).when(revoke).then_rejected(NotFound, match="no client c1")


def test_a_renewal_out_of_place_is_obeyed_without_harm() -> None:
    assert client.replay([INVITED, RENEWED]) == client.replay([INVITED])
