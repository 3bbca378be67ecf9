"""Enrolment: an invite key becomes a client certificate. Any step may be the last before a crash;
doing it all again with the same invite is the same enrolment.
"""

import hashlib
import ssl

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from pydantic import ValidationError

from flowerbed.contracts.door import Enrolled, Enrolment, Invite
from flowerbed.runner import clock
from flowerbed.runner.errors import BadInput, NotReachable
from flowerbed.runner.identity import (
    Identity,
    IdentityStore,
    common_name,
    enrolled_identity,
    key_pem,
    new_key,
    read_key,
    signing_request,
)
from flowerbed.runner.state import StateDir, write_private

TIMEOUT = httpx.Timeout(15.0)


def ensure_enrolled(
    state: StateDir, key: str | None = None, server_url: str | None = None
) -> Identity:
    """The identity that is there and holds, or one from the invite key.

    Raises:
        BadInput: neither is there, or the invite is for another client than the one enrolled.
        NotReachable: nobody answered.
    """
    store = IdentityStore(state)
    identity = store.load()
    if key is None:
        return enrolled_identity(state)
    if identity is None or store.expires_at() <= clock.utc():
        return enrol(key, state, server_url)
    invited = _invite(key)
    if (invited.client_id, invited.tenant) != (identity.client_id, identity.tenant):
        raise BadInput(
            f"{state.root} is enrolled as {identity.client_id!r}, the invite is for"
            f" {invited.client_id!r}: choose another --state-dir"
        )
    return identity


def enrol(key: str, state: StateDir, server_url: str | None = None) -> Identity:
    """Turn an invite key into this client's identity.

    Raises:
        BadInput: the invite is damaged, used or expired, or the server is not the one it names.
        NotReachable: nobody answered.
    """
    invite = _invite(key)
    url = (server_url or invite.enrol_url).rstrip("/")
    if not url.startswith("https://"):
        raise BadInput(f"the enrolment address must begin with https://, not {url!r}")
    state.make()
    store = IdentityStore(state)
    ca_pem = _fetch_ca(url, invite.ca_sha256)
    pending = state.root / f"enrolling-{_digest(invite)[:16]}.pem"
    if not pending.exists():
        write_private(pending, key_pem(new_key()))
    own = read_key(pending.read_bytes())
    enrolled = _request(url, store.server_context(ca_pem), invite, own)
    _check(enrolled, invite)
    store.save_certificate(own, enrolled.certificate_pem)
    identity = Identity(
        client_id=enrolled.client_id,
        tenant=enrolled.tenant,
        client_url=enrolled.client_url.rstrip("/"),
        ca_pem=ca_pem,
        jwks=enrolled.jwks,
    )
    store.save(identity)
    for file in state.root.glob("enrolling-*.pem"):
        file.unlink(missing_ok=True)
    return identity


def _invite(key: str) -> Invite:
    try:
        return Invite.decode(key.strip())
    except ValueError as error:
        raise BadInput(str(error)) from error


def _digest(invite: Invite) -> str:
    return hashlib.sha256(invite.encode().encode()).hexdigest()


def _fetch_ca(url: str, expected: str) -> str:
    """The CA's certificate: fetched from anyone, trusted because the invite names its digest."""
    stranger = ssl.create_default_context()
    stranger.check_hostname = False
    stranger.verify_mode = ssl.CERT_NONE
    pem = _answer(url, stranger, "GET", "/ca.pem", None).content
    try:
        certificate = x509.load_pem_x509_certificate(pem)
    except ValueError as error:
        raise BadInput(f"{url} did not answer with a CA certificate") from error
    found = certificate.fingerprint(hashes.SHA256()).hex()
    if found != expected.lower().replace(":", ""):
        raise BadInput(f"the CA of {url} is {found}, the invite names {expected}")
    return certificate.public_bytes(Encoding.PEM).decode()


def _request(
    url: str, context: ssl.SSLContext, invite: Invite, key: ec.EllipticCurvePrivateKey
) -> Enrolled:
    enrolment = Enrolment(
        client_id=invite.client_id,
        tenant=invite.tenant,
        secret=invite.secret,
        csr_pem=signing_request(key, invite.client_id, invite.tenant),
    )
    body = enrolment.model_dump_json().encode()
    sent_at = clock.since_boot()
    answer = _answer(url, context, "POST", "/v1/enrol", body)
    clock.learn(answer.headers.get("date"), sent_at, clock.since_boot())
    try:
        return Enrolled.model_validate_json(answer.content)
    except ValidationError as error:
        raise BadInput(f"{url} did not answer as an enrolment door does") from error


def _check(enrolled: Enrolled, invite: Invite) -> None:
    try:
        certificate = x509.load_pem_x509_certificate(enrolled.certificate_pem.encode())
    except ValueError as error:
        raise BadInput("the control plane sent no readable certificate") from error
    named = common_name(certificate)
    if (enrolled.client_id, enrolled.tenant, named) != (
        invite.client_id, invite.tenant, invite.client_id,
    ):  # fmt: skip
        raise BadInput(f"enrolled as {named!r}, the invite is for {invite.client_id!r}")
    if not enrolled.client_url.startswith("https://"):
        raise BadInput("the control plane named a clients' door without TLS")


def _answer(
    url: str, context: ssl.SSLContext, method: str, path: str, body: bytes | None
) -> httpx.Response:
    headers = {"content-type": "application/json"} if body else {}
    try:
        with httpx.Client(verify=context, timeout=TIMEOUT) as client:
            answer = client.request(method, url + path, content=body, headers=headers)
    except httpx.InvalidURL as error:
        raise BadInput(f"{url} is not an address") from error
    except httpx.RequestError as error:
        raise NotReachable(f"{url} did not answer: {error}") from error
    if answer.status_code >= 500 or answer.status_code == 429:
        raise NotReachable(f"{url} answered {answer.status_code}: try again later")
    if answer.status_code >= 400:
        raise BadInput(f"enrolment refused: {_reason(answer)}")
    return answer


def _reason(answer: httpx.Response) -> str:
    try:
        problem = answer.json()
        return str(problem.get("detail") or problem.get("title") or problem["code"])
    except (ValueError, KeyError, AttributeError):
        return f"HTTP {answer.status_code}"
