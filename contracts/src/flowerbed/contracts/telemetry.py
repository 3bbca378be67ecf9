"""Where a spec has the spans of its federation sent, and which origins an operator allows for it.

An endpoint is written by whoever submits a spec, so it is a request to send something somewhere.
Nobody does unless the operator of the process has named the endpoint's origin (RFC 6454): scheme,
host and port. What is accepted is so strict that every reader of the address finds the same host.
"""

import ipaddress
import re
from collections.abc import Collection, Iterable
from typing import Annotated, Literal, NamedTuple

from pydantic import AfterValidator, BeforeValidator

from flowerbed.contracts.section import Section

SETTING = "otlp_allowed (FLOWERBED_<SERVICE>_OTLP_ALLOWED)"
"""What an operator changes to allow an origin, in every service."""

LONGEST = 500

_PORTS = {"http": 80, "https": 443}
_ADDRESS = re.compile(r"(https?)://([^/?#]*)([^?#]*)(.*)", re.IGNORECASE | re.DOTALL)
_NAME = r"[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?"
_AUTHORITY = re.compile(rf"({_NAME}|\[[0-9A-Fa-f:.]+\])(?::([0-9]{{1,5}}))?")
_PATH = re.compile(r"(?:/[A-Za-z0-9._~!$&'()*+,;=:@%-]*)*")


class Address(NamedTuple):
    """`host` is lower case, `port` always there, `path` without a slash at its end."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def origin(self) -> str:
        return f"{self.scheme}://{self.host}:{self.port}"

    @property
    def url(self) -> str:
        return self.origin + self.path


def read_address(text: str) -> Address:
    """
    Raises:
        ValueError: it is not an endpoint, with what one is.
    """
    if len(text) > LONGEST:
        raise ValueError(f"an address of at most {LONGEST} characters")
    match = _ADDRESS.fullmatch(text)
    if match is None:
        raise ValueError("an address http://HOST:PORT or https://HOST:PORT")
    scheme, authority, path, rest = match[1].lower(), match[2], match[3], match[4]
    if "@" in authority:
        raise ValueError("an address without a user name or a password")
    if rest:
        raise ValueError("an address without a query (?) and a fragment (#)")
    found = _AUTHORITY.fullmatch(authority)
    if found is None:
        raise ValueError("an address with a host in ASCII, and a port if it has another than usual")
    port = int(found[2] or _PORTS[scheme])
    if not 1 <= port <= 65_535:
        raise ValueError("an address with a port from 1 to 65535")
    if _PATH.fullmatch(path) is None:
        raise ValueError("an address whose path is of letters, digits and the marks of RFC 3986")
    return Address(scheme, _host(found[1]), port, path.rstrip("/"))


def _host(text: str) -> str:
    if not text.startswith("["):
        return text.lower()
    try:
        return f"[{ipaddress.IPv6Address(text[1:-1]).compressed}]"
    except ValueError:
        raise ValueError("an address whose host in brackets is an IPv6 address") from None


def without_secrets(text: str) -> str:
    """What may be shown of an address that was refused: no user name, no password, no query."""
    _, at, tail = text.rpartition("@")
    shown = f"…@{tail}" if at else text
    for mark in "?#":
        head, found, _ = shown.partition(mark)
        shown = f"{head}{mark}…" if found else shown
    return shown


def _endpoint(text: str) -> str:
    read_address(text)
    return text


Endpoint = Annotated[str, AfterValidator(_endpoint)]
OtlpProtocol = Literal["http/protobuf", "grpc"]


class Telemetry(Section):
    """The collector that this federation's spans are sent to, besides the operator's own.

    `otlp_endpoint`: its base address; for HTTP, `/v1/traces` is added.
    """

    otlp_endpoint: Endpoint
    otlp_protocol: OtlpProtocol = "http/protobuf"

    @property
    def address(self) -> Address:
        return read_address(self.otlp_endpoint)


def read_origins(written: str | Iterable[str]) -> tuple[str, ...]:
    """Origins with commas between them, or a list of them; each with its port written out.

    Raises:
        ValueError: one of them is not an origin.
    """
    texts = written.split(",") if isinstance(written, str) else written
    return tuple(dict.fromkeys(_origin(text.strip()) for text in texts if text.strip()))


def _origin(text: str) -> str:
    try:
        address = read_address(text)
    except ValueError as error:
        raise ValueError(f"{without_secrets(text)!r} is no origin: {error}") from None
    if address.path:
        raise ValueError(f"{text!r} is no origin: it has a path")
    return address.origin


Origins = Annotated[tuple[str, ...], BeforeValidator(read_origins)]


def refused(endpoint: str, allowed: Collection[str]) -> str | None:
    """What is allowed instead of an endpoint whose origin is not; None if it is."""
    origin = read_address(endpoint).origin
    if origin in allowed:
        return None
    return f"an endpoint whose origin the operator allows: {SETTING} does not name {origin}"
