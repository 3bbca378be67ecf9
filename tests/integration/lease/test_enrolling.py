"""An invite admits one key pair; a certificate renews itself; a revoked client is out."""

import hashlib
from datetime import timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from flowerbed.lease.pki import Authority
from tests.integration.lease.clients import certificate_request, client_cert, new_key
from tests.integration.lease.conftest import House


def names(pem: str) -> tuple[str, str]:
    subject = x509.load_pem_x509_certificate(pem.encode()).subject
    (client,) = subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    (tenant,) = subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    return str(client.value), str(tenant.value)


async def test_an_invite_admits_a_key_pair_under_the_name_that_was_invited(house: House) -> None:
    invite, key = await house.invite(tags=("gpu",)), new_key()
    answer = await house.enrol(invite, key)
    told = answer.json()
    assert answer.status_code == 200
    assert (told["client_id"], told["tenant"]) == (invite.client_id, "acme")
    assert told["client_url"] == house.settings.client_url
    assert names(told["certificate_pem"]) == (invite.client_id, "acme")
    spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    invited, enrolled = await house.events(f"client-{invite.client_id}")
    assert invited[0] == "client.invited" and enrolled[0] == "client.enrolled"
    assert enrolled[1]["public_key_sha256"] == hashlib.sha256(spki).hexdigest()
    assert enrolled[1]["tags"] == ["gpu"]


async def test_the_certificate_is_the_authoritys_short_lived_and_for_clients_alone(
    house: House,
) -> None:
    client = await house.client()
    ca = x509.load_pem_x509_certificate((await house.enrol_door.get("/ca.pem")).content)
    issued = x509.load_pem_x509_certificate(client.certificate.encode())
    issued.verify_directly_issued_by(ca)
    assert client.invite.ca_sha256 == ca.fingerprint(hashes.SHA256()).hex()
    lived = issued.not_valid_after_utc - house.clock.now()
    assert timedelta(hours=23) < lived <= timedelta(days=1)
    constraints = issued.extensions.get_extension_for_class(x509.BasicConstraints).value
    assert not constraints.ca
    usage = issued.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert [one.dotted_string for one in usage] == ["1.3.6.1.5.5.7.3.2"]


async def test_only_the_digest_of_an_invites_secret_is_kept(house: House) -> None:
    invite = await house.invite()
    rows = await house.rows("SELECT data::text AS data FROM events")
    assert hashlib.sha256(invite.secret.encode()).hexdigest() in rows[0]["data"]
    assert invite.secret not in rows[0]["data"]


async def test_a_client_whose_answer_was_lost_enrols_again_with_the_same_key(house: House) -> None:
    invite, key = await house.invite(), new_key()
    first, second = await house.enrol(invite, key), await house.enrol(invite, key)
    assert second.status_code == 200
    assert names(second.json()["certificate_pem"]) == names(first.json()["certificate_pem"])
    assert len(await house.events(f"client-{invite.client_id}")) == 2


async def test_an_invite_is_used_once(house: House) -> None:
    invite = await house.invite()
    await house.enrol(invite, new_key())
    answer = await house.enrol(invite, new_key())
    assert (answer.status_code, answer.json()["code"]) == (403, "invite-refused")
    assert "another key pair" in answer.json()["detail"]


async def test_who_was_not_invited_is_not_admitted(house: House) -> None:
    invite = await house.invite()
    for changes in ({"secret": "guessed"}, {"client_id": "client-of-nobody"}, {"tenant": "other"}):
        answer = await house.enrol(invite, new_key(), **changes)
        assert (answer.status_code, answer.json()["detail"]) == (403, "no such invite")
    assert len(await house.events(f"client-{invite.client_id}")) == 1


async def test_an_invite_expires(house: House) -> None:
    invite = await house.invite()
    house.clock.move(timedelta(days=2))
    answer = await house.enrol(invite, new_key())
    assert answer.status_code == 403 and "expired" in answer.json()["detail"]


def tampered(csr: str) -> str:
    request = x509.load_pem_x509_csr(csr.encode())
    der = bytearray(request.public_bytes(Encoding.DER))
    place = bytes(der).index(b"whoever")
    der[place : place + 7] = b"someone"
    return x509.load_der_x509_csr(bytes(der)).public_bytes(Encoding.PEM).decode()


BAD_REQUESTS = {
    "nothing": "",
    "text": "not a request",
    "no DER": "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n",
    "RSA": certificate_request(rsa.generate_private_key(65537, 2048)),
    "tampered": tampered(certificate_request(new_key())),
}


async def test_a_bad_certificate_request_is_refused_at_both_doors(house: House) -> None:
    invite, client = await house.invite(), await house.client()
    for what, csr in BAD_REQUESTS.items():
        for answer in (
            await house.enrol(invite, new_key(), csr_pem=csr),
            await client.ask("/v1/certificate", {"csr_pem": csr}),
        ):
            assert answer.status_code == 422, what
            assert answer.json()["code"] == "certificate-request-refused", what
    assert len(await house.events(f"client-{invite.client_id}")) == 1
    assert len(await house.events(f"client-{client.client_id}")) == 2


async def test_nonsense_at_the_enrolment_door_is_answered_as_such(house: House) -> None:
    good = {"client_id": "c", "tenant": "acme", "secret": "s", "csr_pem": ""}
    for body in (
        {},
        {**good, "tenant": "a\0b"},
        {**good, "client_id": "c.*"},
        {**good, "csr_pem": "x" * 9000},
        {**good, "admin": True},
    ):
        answer = await house.enrol_door.post("/v1/enrol", json=body)
        assert (answer.status_code, answer.json()["code"]) == (422, "not-valid")


async def test_a_certificate_is_renewed_with_a_new_key_under_the_same_name(house: House) -> None:
    client = await house.client()
    house.clock.move(timedelta(hours=12))
    key = new_key()
    told = await client.told("/v1/certificate", {"csr_pem": certificate_request(key, "boss")})
    renewed = x509.load_pem_x509_certificate(told["certificate_pem"].encode())
    assert names(told["certificate_pem"]) == (client.client_id, "acme")
    assert renewed.not_valid_after_utc > house.clock.now() + timedelta(hours=23)
    assert isinstance(renewed.public_key(), ec.EllipticCurvePublicKey)
    events = await house.events(f"client-{client.client_id}")
    assert events[-1][0] == "client.certificate_renewed"
    client.certificate = told["certificate_pem"]
    assert await client.poll() == []
    answer = await house.enrol(client.invite, client.key)
    assert answer.status_code == 403, "the invite of a renewed client is used up"


async def test_a_revoked_client_is_out_and_its_leases_are_dropped(house: House) -> None:
    client = await house.client()
    await house.create()
    lease = await client.joined()
    answer = await house.revoke(client, "lost\0 laptop")
    assert answer.json() == {"client_id": client.client_id, "status": "revoked"}
    assert await house.types(client) == [
        "client.lease_issued", "client.joined", "client.dropped",
    ]  # fmt: skip
    _, told = (await house.events(f"client-{client.client_id}"))[-1]
    assert told["reason"] == "lost\ufffd laptop"
    for path, body in (
        ("/v1/leases/poll", {}),
        ("/v1/certificate", {"csr_pem": certificate_request(new_key())}),
        (f"/v1/leases/{lease['lease_id']}/heartbeat", {"epoch": 1}),
    ):
        refused = await client.ask(path, body)
        assert (refused.status_code, refused.json()["code"]) == (403, "client-not-admitted")
    assert (await house.enrol(client.invite, client.key)).status_code == 403
    assert (await house.revoke(client)).status_code == 200, "revoking twice is no error"
    assert len(await house.events(f"client-{client.client_id}")) == 3


async def test_who_is_not_known_cannot_be_revoked_nor_from_another_tenant(house: House) -> None:
    client = await house.client()
    body = {"tenant": "other", "reason": ""}
    for name in (client.client_id, "client-of-nobody"):
        answer = await house.internal.post(f"/internal/clients/{name}/revoke", json=body)
        assert (answer.status_code, answer.json()["code"]) == (404, "not-found")
    assert await client.poll() == []


async def test_the_internal_routes_need_the_token(house: House) -> None:
    for headers in ({"authorization": "Bearer guessed"}, {"authorization": ""}):
        for path, body in (
            ("/internal/invites", {"tenant": "acme"}),
            ("/internal/clients/client-1/revoke", {"tenant": "acme"}),
        ):
            answer = await house.internal.post(path, json=body, headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
    assert await house.rows("SELECT 1 FROM events") == []


async def test_an_invite_is_asked_for_in_known_words(house: House) -> None:
    for body in (
        {"tenant": "a.b"}, {"tags": ["a b"]}, {"ttl_seconds": 59}, {"ttl_seconds": 10**9}, {"x": 1},
    ):  # fmt: skip
        assert (await house.internal.post("/internal/invites", json=body)).status_code == 422


async def test_the_client_door_needs_a_certificate_that_names_a_client(house: House) -> None:
    without_tenant = client_cert((await house.enrol_door.get("/ca.pem")).text)
    for header in ("", "::", ":AAAA:", "hello", ":" + "é" * 3 + ":", without_tenant):
        headers = {b"Client-Cert": header.encode("latin-1")} if header else {}
        answer = await house.door.post("/v1/leases/poll", json={}, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (403, "certificate-unreadable")


async def test_a_certificate_of_a_client_that_was_never_enrolled_is_refused(house: House) -> None:
    client = await house.client()
    other = await house.invite()
    authority = Authority.load(house.settings.ca_certificate_file, house.settings.ca_key_file)
    issued = authority.issue(
        certificate_request(client.key), client_id=other.client_id, tenant="acme",
        at=house.clock.now(), ttl=timedelta(days=1),
    )  # fmt: skip
    client.certificate = issued.pem
    answer = await client.ask("/v1/leases/poll", {})
    assert (answer.status_code, answer.json()["code"]) == (403, "client-not-admitted")
    answer = await client.ask("/v1/certificate", {"csr_pem": certificate_request(new_key())})
    assert (answer.status_code, answer.json()["code"]) == (403, "client-not-admitted")
