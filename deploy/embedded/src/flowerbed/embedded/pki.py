"""The stack's own certificate authority, its server certificate, and the key that signs work."""

import ipaddress
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from flowerbed.embedded.layout import Layout, write_private

CA_LIFETIME = timedelta(days=3650)
SERVER_LIFETIME = timedelta(days=397)
RENEW_BEFORE = timedelta(days=30)
BACKDATE = timedelta(days=1)
"""Certificates are valid before they were made: the clock of a site may be far behind."""
S3_NAME = "flowerbed s3"
"""What SeaweedFS' parts are called in the certificate that they show to each other."""


def ensure_pki(layout: Layout, now: datetime | None = None) -> None:
    """Make what is missing, and a new server certificate when the old one expires soon."""
    now = now or datetime.now(UTC)
    directory = layout.secrets
    ca_key_file, ca_file = directory / "ca.key", directory / "ca.pem"
    if not (ca_key_file.exists() and ca_file.exists()):
        _make_ca(ca_key_file, ca_file, now)
    if not (directory / "signing.key").exists():
        write_private(directory / "signing.key", _pem(ed25519.Ed25519PrivateKey.generate()))
    for name, usages in (
        ("server", [ExtendedKeyUsageOID.SERVER_AUTH]),
        ("s3", [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
    ):
        if not _is_good(directory / f"{name}.pem", directory / f"{name}.key", now):
            _make_certificate(directory, name, usages, now)


def _make_ca(key_file: Path, certificate_file: Path, now: datetime) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    # The name is unique, so that one machine's trust stores can tell two stacks apart.
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Flowerbed"),
            x509.NameAttribute(NameOID.COMMON_NAME, f"Flowerbed CA {os.urandom(4).hex()}"),
        ]
    )
    usage = _key_usage(digital_signature=True, sign_certificates=True)
    subject_id = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(now + CA_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(subject_id, critical=False)
        .sign(key, hashes.SHA256())
    )
    write_private(key_file, _pem(key))
    write_private(certificate_file, certificate.public_bytes(serialization.Encoding.PEM))


def _make_certificate(
    directory: Path, name: str, usages: list[x509.ObjectIdentifier], now: datetime
) -> None:
    ca = x509.load_pem_x509_certificate((directory / "ca.pem").read_bytes())
    ca_key = serialization.load_pem_private_key((directory / "ca.key").read_bytes(), None)
    assert isinstance(ca_key, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    authority_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"flowerbed {name}")]))
        .issuer_name(ca.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(min(now + SERVER_LIFETIME, ca.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(authority_id, critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    write_private(directory / f"{name}.key", _pem(key))
    write_private(directory / f"{name}.pem", certificate.public_bytes(serialization.Encoding.PEM))


def _is_good(certificate_file: Path, key_file: Path, now: datetime) -> bool:
    """True if the two belong together and the certificate lasts for a while yet."""
    if not (certificate_file.exists() and key_file.exists()):
        return False
    certificate = x509.load_pem_x509_certificate(certificate_file.read_bytes())
    key = serialization.load_pem_private_key(key_file.read_bytes(), None)
    if key.public_key() != certificate.public_key():
        return False
    return certificate.not_valid_after_utc - now > RENEW_BEFORE


def _key_usage(
    *, digital_signature: bool = False, sign_certificates: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(key: PrivateKeyTypes) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
