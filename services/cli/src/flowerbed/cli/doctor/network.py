"""What lies between a site and the control plane: names, connections, TLS, the two clocks."""

import email.utils
import ipaddress
import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import httpx
from cryptography import x509

from flowerbed.cli.doctor.report import Finding, failed, ok, warning
from flowerbed.runner import clock

PATIENCE = 5.0
SAMPLES = 3
FAR_APART = timedelta(seconds=10)
TOO_FAR = timedelta(days=1)
"""By how much a clock may be behind before TLS refuses the control plane's certificate."""
EXPIRES_SOON = timedelta(days=14)


@dataclass(frozen=True, slots=True)
class Address:
    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> "Address":
        parts = urlsplit(url)
        return cls(parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80))

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def name(check: str, address: Address) -> Iterator[Finding]:
    """DNS, where the address is a name."""
    try:
        ipaddress.ip_address(address.host)
    except ValueError:
        pass
    else:
        yield ok(check, f"{address.host} is an address: no name to look up")
        return
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except OSError as error:
        do = "mend the machine's DNS, or ask the operator for the right address"
        yield failed(check, f"{address.host} has no address: {error.strerror or error}", do)
    else:
        addresses = sorted({str(one[4][0]) for one in found})
        yield ok(check, f"{address.host} is {', '.join(addresses[:4])}")


def reachable(check: str, address: Address) -> Iterator[Finding]:
    try:
        socket.create_connection((address.host, address.port), PATIENCE).close()
    except OSError as error:
        do = f"let this machine connect to {address} (firewall, proxy), or see whether it runs"
        yield failed(check, f"{address} takes no connection: {error.strerror or error}", do)
    else:
        yield ok(check, f"{address} takes connections")


def tls(check: str, address: Address, context: ssl.SSLContext) -> Iterator[Finding]:
    """Its certificate against the pinned CA, and how long it is valid."""
    try:
        with (
            socket.create_connection((address.host, address.port), PATIENCE) as plain,
            context.wrap_socket(plain, server_hostname=address.host) as secured,
        ):
            der, version = secured.getpeercert(binary_form=True), secured.version()
    except ssl.SSLCertVerificationError as error:
        yield failed(check, f"{address}: {error.verify_message}", _about(error))
        return
    except OSError as error:
        yield failed(check, f"{address}: {error}", "see whether something between ends TLS itself")
        return
    until = x509.load_der_x509_certificate(der or b"").not_valid_after_utc
    seen = f"{version}, certified by the pinned CA, until {until:%Y-%m-%d}"
    if until - datetime.now(UTC) < EXPIRES_SOON:
        yield warning(check, seen, "have the operator run `flowerbed down` and `up`: it renews")
    else:
        yield ok(check, seen)


def time_apart(check: str, http: httpx.Client, url: str) -> Iterator[Finding]:
    """By how much this machine's clock differs from the server's `Date`, from several answers."""
    earliest, latest = -float("inf"), float("inf")
    for _ in range(SAMPLES):
        sent = clock.machine()
        try:
            answer = http.get(url, timeout=PATIENCE)
            told = email.utils.parsedate_to_datetime(answer.headers.get("date", "")).timestamp()
        except (httpx.HTTPError, ValueError) as error:
            yield warning(check, f"{url} tells no time: {error}", "see the findings about the door")
            return
        received = clock.machine()
        # The answer was written between the two, in the second that it names or the next.
        earliest = max(earliest, told - received)
        latest = min(latest, told + clock.DATE_SECONDS - sent)
        time.sleep(0.3)
    apart = timedelta(seconds=-(earliest + latest) / 2)
    seen = f"{_words(apart)} the control plane's, give or take {(latest - earliest) / 2:.1f} s"
    do = "set this machine's clock, best by NTP"
    if abs(apart) > TOO_FAR:
        yield failed(check, f"the machine's clock is {seen}", f"{do}: TLS refuses certificates")
    elif abs(apart) > FAR_APART:
        yield warning(check, f"the machine's clock is {seen}", f"{do}; the agent copes meanwhile")
    else:
        yield ok(check, f"the machine's clock is {seen}")


def _words(apart: timedelta) -> str:
    seconds = apart.total_seconds()
    return f"{abs(seconds):.1f} s {'ahead of' if seconds > 0 else 'behind'}"


def _about(error: ssl.SSLCertVerificationError) -> str:
    message = error.verify_message
    if "expired" in message or "not yet valid" in message:
        return "set this machine's clock; else have the operator run `flowerbed up`, which renews"
    if "mismatch" in message or "doesn't match" in message:
        return "use the address that the operator gave: the certificate is for another name"
    return "ask the operator whether the CA has changed, then enrol anew with a new invite"
