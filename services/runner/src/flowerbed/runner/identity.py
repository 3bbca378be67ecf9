"""Who this client is: its key pair, its certificate, the CA and the signing keys it pins.

    enrolling-*.pem written -> enrolled by the control plane -> client.pem -> identity.json

`identity.json` comes last: until it is there the client is not enrolled, and enrolling again with
the same key pair is the same enrolment. Key and certificate share one file, so that a renewal
replaces both at once.
"""

import os
import ssl
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from flowerbed.runner import clock
from flowerbed.runner.errors import BadInput
from flowerbed.runner.state import StateDir, read_json, write_json, write_private


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    client_id: str
    tenant: str
    client_url: str
    ca_pem: str
    jwks: dict[str, Any]


class IdentityStore:
    def __init__(self, state: StateDir) -> None:
        self._state = state

    def load(self) -> Identity | None:
        """The identity; None where there is none, or one that was not written to the end."""
        document = read_json(self._state.identity)
        if document is None or not self._state.client_pem.exists():
            return None
        identity = Identity(**document)
        return identity if common_name(self.certificate()) == identity.client_id else None

    def save(self, identity: Identity) -> None:
        write_json(self._state.identity, asdict(identity))

    def certificate(self) -> x509.Certificate:
        return x509.load_pem_x509_certificate(self._state.client_pem.read_bytes())

    def expires_at(self) -> datetime:
        return self.certificate().not_valid_after_utc

    def received_at(self) -> datetime:
        """When the certificate came; an authority may date it back."""
        written = datetime.fromtimestamp(self._state.client_pem.stat().st_mtime, UTC)
        return max(written, self.certificate().not_valid_before_utc)

    def save_certificate(self, key: ec.EllipticCurvePrivateKey, certificate_pem: str) -> None:
        """Switch to a new key and its certificate, both or none.

        Raises:
            BadInput: the certificate is for another key.
        """
        certificate = x509.load_pem_x509_certificate(certificate_pem.encode())
        if certificate.public_key() != key.public_key():
            raise BadInput("the control plane sent a certificate for another key")
        write_private(self._state.client_pem, key_pem(key) + certificate_pem.encode())
        received_at = clock.now()  # the machine's own clock may be wrong
        os.utime(self._state.client_pem, (received_at, received_at))

    def server_context(self, ca_pem: str) -> ssl.SSLContext:
        return ssl.create_default_context(cadata=ca_pem)

    def client_context(self, identity: Identity) -> ssl.SSLContext:
        context = self.server_context(identity.ca_pem)
        context.load_cert_chain(self._state.client_pem)
        return context


def enrolled_identity(state: StateDir, doubt: timedelta = timedelta(0)) -> Identity:
    """Who this client is. `doubt`: how far our clock may be wrong.

    Raises:
        BadInput: this client is not enrolled, or its certificate has run out.
    """
    store = IdentityStore(state)
    identity = store.load()
    if identity is None:
        raise BadInput("this client is not enrolled: start it with --invite KEY")
    expires_at = store.expires_at()
    if expires_at + doubt <= clock.utc():
        raise BadInput(
            f"the certificate of {identity.client_id} ran out at {expires_at:%Y-%m-%d %H:%M} UTC"
            f" (it is {clock.utc():%Y-%m-%d %H:%M}): start it with a new --invite KEY"
        )
    return identity


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def read_key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    key = load_pem_private_key(pem, password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise BadInput("the client's key is not an elliptic-curve key")
    return key


def signing_request(key: ec.EllipticCurvePrivateKey, client_id: str, tenant: str) -> str:
    """A PEM certificate request (PKCS #10) for this key."""
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, client_id),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, tenant),
        ]
    )
    request = x509.CertificateSigningRequestBuilder().subject_name(subject)
    return request.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


def common_name(certificate: x509.Certificate) -> str | None:
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if names else None
