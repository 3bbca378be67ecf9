"""Caddy's two doors: who gets in, to which paths, and with what said about him."""

import json
import socketserver
import ssl
import threading
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from flowerbed.embedded.layout import Layout
from flowerbed.embedded.pki import ensure_pki
from flowerbed.embedded.stack import Stack


class Echo(BaseHTTPRequestHandler):
    """Stands for the lease service: answers with the headers that came in."""

    def do_GET(self) -> None:
        body = json.dumps(list(self.headers.items())).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()

    def address_string(self) -> str:
        return "unix"

    def log_message(self, *_: object) -> None:
        pass


class Backend(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True


@contextmanager
def listening(path: Path) -> Iterator[None]:
    path.unlink(missing_ok=True)
    with Backend(str(path), Echo) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield
        server.shutdown()
    path.unlink(missing_ok=True)


@pytest.fixture(scope="module")
def doors(servers: Stack) -> Iterator[Stack]:
    sockets = servers.layout.sockets
    with listening(sockets / "lease-clients.sock"), listening(sockets / "lease-enrol.sock"):
        yield servers


@pytest.fixture(scope="module")
def client_certificate(servers: Stack, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return issue(servers.layout, tmp_path_factory.mktemp("client"))


def issue(authority: Layout, directory: Path) -> Path:
    """A client's certificate and key, in one file, from that stack's authority."""
    ca = x509.load_pem_x509_certificate((authority.secrets / "ca.pem").read_bytes())
    ca_key = serialization.load_pem_private_key((authority.secrets / "ca.key").read_bytes(), None)
    assert isinstance(ca_key, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "client-1")]))
        .issuer_name(ca.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    path = directory / "client.pem"
    encoding, format_ = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    path.write_bytes(
        certificate.public_bytes(encoding)
        + key.private_bytes(encoding, format_, serialization.NoEncryption())
    )
    return path


def visitor(stack: Stack, certificate: Path | None = None) -> httpx.Client:
    context = ssl.create_default_context(cafile=str(stack.ca_file))
    if certificate is not None:
        context.load_cert_chain(certificate)
    return httpx.Client(verify=context, timeout=10)


def addresses(url: str) -> list[str]:
    """By address no name is sent in the handshake, by name one is: both must be guarded."""
    return [url, url.replace("127.0.0.1", "localhost")]


def test_without_a_certificate_there_is_no_connection(doors: Stack) -> None:
    with visitor(doors) as client:
        for url in addresses(doors.client_url):
            with pytest.raises(httpx.TransportError):
                client.get(f"{url}/v1/lease")


def test_unknown_name_in_the_handshake_is_no_way_in(doors: Stack) -> None:
    context = ssl.create_default_context(cafile=str(doors.ca_file))
    context.check_hostname = False
    with httpx.Client(verify=context, timeout=10) as client, pytest.raises(httpx.TransportError):
        client.get(f"{doors.client_url}/v1/x", extensions={"sni_hostname": "elsewhere.example"})


def test_certificate_of_another_authority_is_refused(doors: Stack, tmp_path: Path) -> None:
    other = Layout(tmp_path)
    other.make()
    ensure_pki(other)
    with visitor(doors, issue(other, tmp_path)) as client, pytest.raises(httpx.TransportError):
        client.get(f"{doors.client_url}/v1/lease")


def test_client_is_told_by_its_certificate(doors: Stack, client_certificate: Path) -> None:
    with visitor(doors, client_certificate) as client:
        for url in addresses(doors.client_url):
            answer = client.get(f"{url}/v1/lease", headers={"Client-Cert": ":Zm9yZ2Vk:"})
            sent = [value for name, value in answer.json() if name.lower() == "client-cert"]
            expected = x509.load_pem_x509_certificate(client_certificate.read_bytes())

            assert len(sent) == 1  # what the client itself sent has gone
            assert sent[0].startswith(":")
            assert sent[0].endswith(":")
            assert b64decode(sent[0].strip(":")) == expected.public_bytes(
                serialization.Encoding.DER
            )


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v1/work", 200),
        ("/.well-known/jwks.json", 200),
        ("/readyz", 404),
        ("/metrics", 404),
        ("/internal/leases", 404),
        ("/", 404),
        ("//v1/../metrics", 404),
    ],
)
def test_clients_reach_only_their_paths(
    doors: Stack, client_certificate: Path, path: str, status: int
) -> None:
    with visitor(doors, client_certificate) as client:
        assert client.get(doors.client_url + path).status_code == status


@pytest.mark.parametrize(
    ("path", "status"),
    [("/v1/enrol", 200), ("/ca.pem", 200), ("/v1/work", 404), ("/metrics", 404), ("/", 404)],
)
def test_enrolment_door_serves_only_its_paths(doors: Stack, path: str, status: int) -> None:
    with visitor(doors) as client:
        for url in addresses(doors.enrol_url):
            answer = client.get(url + path, headers={"Client-Cert": ":Zm9yZ2Vk:"})
            assert answer.status_code == status
            if status == 200:
                assert "client-cert" not in {name.lower() for name, _ in answer.json()}


def test_body_above_the_limit_is_refused(doors: Stack, client_certificate: Path) -> None:
    with visitor(doors, client_certificate) as client:
        url = f"{doors.client_url}/v1/report"
        assert client.post(url, content=b"x" * 900_000).status_code == 200
        assert client.post(url, content=b"x" * 1_100_000).status_code in (413, 502)
