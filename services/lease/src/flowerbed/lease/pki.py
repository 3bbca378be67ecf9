"""The control plane's own certificate authority: short-lived client certificates from CSRs."""

import base64
import binascii
import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from flowerbed.events.errors import Rejected

_BACKDATE = timedelta(days=1)
"""A certificate is valid before it was made: the clock of a site may be far behind."""


class RequestRefused(Rejected):
    code = "certificate-request-refused"
    status = 422


class CertificateUnreadable(Rejected):
    code = "certificate-unreadable"
    status = 403


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    pem: str
    serial: str
    expires_at: datetime
    public_key_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Whom a client certificate names: the CA signed it, which the TLS front has checked.

    `is_virtual`: no certificate, a simulation's own client; only a relay speaks for one.
    """

    client_id: str
    tenant: str
    public_key_sha256: str
    is_virtual: bool = False


def ends_at(certificate_file: Path) -> datetime:
    return x509.load_pem_x509_certificate(certificate_file.read_bytes()).not_valid_after_utc


@dataclass(frozen=True, slots=True)
class Authority:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def load(cls, certificate_file: Path, key_file: Path) -> "Authority":
        key = load_pem_private_key(key_file.read_bytes(), password=None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ValueError(f"{key_file.name} holds no elliptic-curve key")
        return cls(x509.load_pem_x509_certificate(certificate_file.read_bytes()), key)

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(Encoding.PEM).decode()

    @property
    def sha256(self) -> str:
        """Hex SHA-256 of the DER certificate: what an invite names."""
        return self.certificate.fingerprint(hashes.SHA256()).hex()

    def issue(
        self, csr_pem: str, *, client_id: str, tenant: str, at: datetime, ttl: timedelta
    ) -> Issued:
        """Sign the request's key for this client; every name in the request is ignored.

        Raises:
            RequestRefused: the text is no CSR, or its own signature does not hold.
        """
        request = _request(csr_pem)
        expires_at = at + ttl
        name = x509.Name(
            [
                x509.NameAttribute(NameOID.COMMON_NAME, client_id),
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, tenant),
            ]
        )
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self.certificate.subject)
            .public_key(request.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(at - _BACKDATE)
            .not_valid_after(expires_at)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(usage, critical=False)
            .sign(self.key, hashes.SHA256())
        )
        return Issued(
            pem=certificate.public_bytes(Encoding.PEM).decode(),
            serial=format(certificate.serial_number, "x"),
            expires_at=expires_at,
            public_key_sha256=key_digest(certificate),
        )


def _request(csr_pem: str) -> x509.CertificateSigningRequest:
    try:
        request = x509.load_pem_x509_csr(csr_pem.encode())
        is_good = request.is_signature_valid
    except (ValueError, InvalidSignature) as error:
        raise RequestRefused("not a PEM certificate request") from error
    if not is_good or not isinstance(request.public_key(), ec.EllipticCurvePublicKey):
        raise RequestRefused("the request must hold an elliptic-curve key and be signed with it")
    return request


@lru_cache(maxsize=2048)
def read_peer(header: str) -> Peer:
    """The client in a `Client-Cert` header: base64 DER, with or without RFC 9440's colons.

    Raises:
        CertificateUnreadable: the header holds no certificate with a client and a tenant.
    """
    try:
        der = base64.b64decode(header.strip().strip(":"), validate=True)
        certificate = x509.load_der_x509_certificate(der)
        (client_id,) = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        (tenant,) = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    except (ValueError, binascii.Error) as error:
        raise CertificateUnreadable("the Client-Cert header holds no client certificate") from error
    return Peer(
        client_id=str(client_id.value),
        tenant=str(tenant.value),
        public_key_sha256=key_digest(certificate),
    )


def key_digest(certificate: x509.Certificate) -> str:
    return _digest(certificate.public_key())  # type: ignore[arg-type]  # we issue EC alone


def _digest(key: ec.EllipticCurvePublicKey) -> str:
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(spki).hexdigest()
