"""Does the server that answers on a port answer as ours would? Plain sockets, no client library.

Each probe returns quietly if it does, and raises NotReady with what it saw if not.
"""

import hashlib
import hmac
import http.client
import json
import socket
import ssl
import struct
from datetime import UTC, datetime
from pathlib import Path

TIMEOUT = 2.0


class NotReady(Exception):
    """The server does not answer yet, or another one does."""


def postgres(port: int) -> None:
    """It takes connections: it asks for a password, instead of saying that it is starting up."""
    body = struct.pack("!i", 196608) + b"user\0postgres\0database\0postgres\0\0"
    with _connect(port) as connection:
        connection.sendall(struct.pack("!i", len(body) + 4) + body)
        answer = connection.recv(1024)
    if answer[:1] != b"R":
        raise NotReady("postgres takes no connections yet")


def nats(port: int, server_name: str, user: str, password: str) -> None:
    """It is called as ours is, has JetStream, and knows our password."""
    with _connect(port) as connection, connection.makefile("rb") as lines:
        info = json.loads(lines.readline().removeprefix(b"INFO ") or b"{}")
        if info.get("server_name") != server_name:
            raise NotReady(f"NATS on port {port} is {info.get('server_name')}, not {server_name}")
        if not info.get("jetstream"):
            raise NotReady("JetStream is not up yet")
        options = {"user": user, "pass": password, "verbose": False, "pedantic": False}
        connection.sendall(b"CONNECT " + json.dumps(options).encode() + b"\r\nPING\r\n")
        answer = lines.readline()
    if not answer.startswith(b"PONG"):
        raise NotReady(f"NATS refused our user: {answer.decode(errors='replace').strip()}")


def nats_stuck(port: int, password: str) -> str | None:
    """Why the server cannot store anything until it is started again; None if it can.

    NATS refuses every message of a stream after one failed write, also when there is room again.
    """
    with _connect(port) as connection, connection.makefile("rb") as lines:
        server = json.loads(lines.readline().removeprefix(b"INFO ") or b"{}").get("server_id")
        options = {"user": "system", "pass": password, "verbose": False, "pedantic": False}
        asked = f"$SYS.REQ.SERVER.{server}.HEALTHZ"
        connection.sendall(
            b"CONNECT " + json.dumps(options).encode() + b"\r\n"
            b"SUB health 1\r\n" + f"PUB {asked} health 2\r\n".encode() + b"{}\r\n"
        )
        line = lines.readline()
        while line and not line.startswith(b"MSG "):
            line = lines.readline()
        body = lines.read(int(line.rsplit(b" ", 1)[1])) if line else b"{}"
    error = str(json.loads(body).get("data", {}).get("error", ""))
    return error if "write error" in error or "not enabled" in error else None


def tls(port: int, ca_file: Path) -> None:
    """Who answers holds a key that our own CA has certified."""
    context = ssl.create_default_context(cafile=str(ca_file))
    with _connect(port) as connection:
        try:
            context.wrap_socket(connection, server_hostname="localhost").close()
        except ssl.SSLError as error:
            raise NotReady(f"TLS on port {port}: {error.reason}") from error


def http_status(port: int, path: str, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)
    try:
        connection.request("GET", path, headers=headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise NotReady(f"port {port} does not answer: {error}") from error
    finally:
        connection.close()


def s3(port: int, access_key: str, secret_key: str) -> None:
    """It lists our buckets for our key: another S3 server would refuse the signature."""
    status, _ = s3_call("GET", port, "/", access_key, secret_key)
    if status != 200:
        raise NotReady(f"S3 on port {port} answered {status} to our key")


def s3_call(method: str, port: int, path: str, key: str, secret: str) -> tuple[int, bytes]:
    """A request without a body, signed with AWS Signature 4."""
    host, at = f"127.0.0.1:{port}", datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    empty = hashlib.sha256(b"").hexdigest()
    signed = "host;x-amz-content-sha256;x-amz-date"
    canonical = (
        f"{method}\n{path}\n\nhost:{host}\nx-amz-content-sha256:{empty}\nx-amz-date:{at}\n\n"
        f"{signed}\n{empty}"
    )
    scope = f"{at[:8]}/us-east-1/s3/aws4_request"
    text = f"AWS4-HMAC-SHA256\n{at}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    derived = f"AWS4{secret}".encode()
    for part in scope.split("/"):
        derived = hmac.digest(derived, part.encode(), "sha256")
    signature = hmac.digest(derived, text.encode(), "sha256").hex()
    headers = {
        "x-amz-date": at,
        "x-amz-content-sha256": empty,
        "Authorization": f"AWS4-HMAC-SHA256 Credential={key}/{scope}, SignedHeaders={signed}, "
        f"Signature={signature}",
    }
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)
    try:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise NotReady(f"S3 on port {port} does not answer: {error}") from error
    finally:
        connection.close()


def _connect(port: int) -> socket.socket:
    try:
        return socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT)
    except OSError as error:
        raise NotReady(f"port {port} does not answer: {error.strerror or error}") from error
