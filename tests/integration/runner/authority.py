"""A certificate authority for tests."""

import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from flowerbed.runner.identity import key_pem


class Authority:
    """Writes `ca.pem`, `server.pem` and `server.key` (for 127.0.0.1) into its folder."""

    def __init__(self, folder: Path) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name("test authority")
        until = datetime.now(UTC) + timedelta(days=1)
        ca = x509.BasicConstraints(ca=True, path_length=0)
        self.certificate = self._sign(self._name, self._key.public_key(), until, ca)
        self.pem = self.certificate.public_bytes(Encoding.PEM).decode()
        self.sha256 = self.certificate.fingerprint(hashes.SHA256()).hex()
        (folder / "ca.pem").write_text(self.pem)
        key = ec.generate_private_key(ec.SECP256R1())
        names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        server = self._sign(_name("server"), key.public_key(), until, names)
        (folder / "server.pem").write_bytes(server.public_bytes(Encoding.PEM))
        (folder / "server.key").write_bytes(key_pem(key))

    def issue(
        self, request: x509.CertificateSigningRequest, client_id: str, tenant: str, until: datetime
    ) -> str:
        key = request.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        no_ca = x509.BasicConstraints(ca=False, path_length=None)
        certificate = self._sign(_name(client_id, tenant), key, until, no_ca)
        return certificate.public_bytes(Encoding.PEM).decode()

    def key_of(self, request: x509.CertificateSigningRequest) -> bytes:
        return request.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    def _sign(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePublicKey,
        until: datetime,
        extension: x509.ExtensionType,
    ) -> x509.Certificate:
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(datetime.now(UTC) - timedelta(minutes=5))
            .not_valid_after(until)
            .add_extension(extension, critical=False)
        )
        return builder.sign(self._key, hashes.SHA256())


def client_of(der: bytes) -> str:
    certificate = x509.load_der_x509_certificate(der)
    return str(certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)


def serial_of(der: bytes) -> int:
    return x509.load_der_x509_certificate(der).serial_number


def _name(common: str, organisation: str = "test") -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, common),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation),
        ]
    )
