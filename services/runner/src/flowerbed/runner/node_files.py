"""What a lease's SuperNode needs on disk: its key, the tunnel's certificate, its node config.

An agent that is started again finds the key of a lease that it holds: the node stays the same one.
"""

import ipaddress
import json
import os
import ssl
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_private_key,
)
from cryptography.x509.oid import NameOID

from flowerbed.contracts.values import Scalar
from flowerbed.runner import clock
from flowerbed.runner.identity import key_pem, new_key
from flowerbed.runner.state import write_private

CERTIFICATE_LIFETIME = timedelta(days=3650)
_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class NodeFiles:
    """The paths, in a folder of the lease's own."""

    folder: Path

    @property
    def key(self) -> Path:
        return self.folder / "node.key"

    @property
    def certificate(self) -> Path:
        """Of the tunnel's loopback end: whom the SuperNode trusts."""
        return self.folder / "tunnel.pem"

    @property
    def secret(self) -> Path:
        return self.folder / "superexec.secret"

    @property
    def config(self) -> Path:
        return self.folder / "node.toml"

    @property
    def home(self) -> Path:
        """Flower's own: where bundles are unpacked."""
        return self.folder / "flwr"

    @property
    def log(self) -> Path:
        return self.folder / "supernode.log"

    def public_key(self) -> str:
        """Of the node, in OpenSSH's spelling; its key pair is made if there is none yet."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not self.key.exists():
            made = ec.generate_private_key(ec.SECP384R1())
            spelled = made.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
            write_private(self.key, spelled)
        key = load_ssh_private_key(self.key.read_bytes(), None)
        public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
        return public.decode()

    def write_config(self, config: Mapping[str, Scalar]) -> None:
        """As TOML: nothing of it is seen in the arguments of a process."""
        lines = [f"{_toml(name)} = {_toml(value)}\n" for name, value in config.items()]
        write_private(self.config, "".join(lines), is_durable=False)

    def server_context(self) -> ssl.SSLContext:
        """Of the tunnel's loopback end, with a new key."""
        key = new_key()
        pem = _self_signed(key)
        pair = self.folder / "tunnel.key"
        write_private(self.certificate, pem, is_durable=False)
        write_private(pair, key_pem(key) + pem, is_durable=False)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pair)
        pair.unlink()
        return context

    def touch(self) -> None:
        """Say that the lease is worked on: the files of those that are not are removed one day."""
        with suppress(OSError):
            os.utime(self.folder)


def _self_signed(key: ec.EllipticCurvePrivateKey) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "flowerbed tunnel")])
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    now = clock.utc()
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - _DAY)
        .not_valid_after(now + CERTIFICATE_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(Encoding.PEM)


def _toml(value: Scalar) -> str:
    """JSON's spelling of these is TOML's too, but for DEL."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
