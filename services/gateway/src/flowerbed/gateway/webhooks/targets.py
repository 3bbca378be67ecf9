"""Which addresses a webhook may call: https anywhere but where a machine keeps its own secrets.

Plain http is for receivers on this machine. What a host's name stands for is looked up at every
attempt, so the address is checked once more when the connection is made.
"""

import errno
import ipaddress
import socket
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from yarl import URL

from flowerbed.events.errors import Rejected

LONGEST_URL = 2048

_METADATA = frozenset(
    ipaddress.ip_address(address)
    for address in (
        "100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254", "fd20:ce::254",
    )
)  # fmt: skip
"""Of clouds, outside of the link-local range."""


class UrlRefused(Rejected):
    code = "webhook-url-refused"
    status = 422


class AddressRefused(OSError):
    """A name stands for an address that is not called."""


def checked_url(text: str) -> str:
    """The url as it will be called.

    Raises:
        UrlRefused: it is none, or none that is called.
    """
    if len(text) > LONGEST_URL:
        raise _refused(f"{len(text)} characters", f"at most {LONGEST_URL}")
    try:
        url = URL(text)
        host, port = url.host, url.port
    except ValueError:
        host, port = None, None
    if not host or not port or url.scheme not in ("https", "http"):
        raise _refused(_shown(text), "an https:// address")
    if url.user is not None or url.password is not None:
        raise _refused(f"{url.scheme}://…@{host}", "no user and no password in the address")
    address = _literal(host)
    if address is not None and is_refused(address):
        raise _refused(host, "no link-local, metadata, multicast or reserved address")
    if url.scheme == "http" and not is_local(host):
        raise _refused(f"http://{host}", "https; http only to localhost, 127.0.0.0/8 or [::1]")
    return str(url.with_fragment(None))


def is_local(host: str) -> bool:
    address = _literal(host)
    return host == "localhost" if address is None else address.is_loopback


def calls_this_machine(url: str) -> bool:
    """Where services listen that trust whoever is on it."""
    return is_local(URL(url).host or "")


def is_refused(address: IPv4Address | IPv6Address) -> bool:
    """Where nobody's receiver is, but perhaps something that trusts whoever can reach it."""
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return is_refused(address.ipv4_mapped)
    if address.is_loopback:
        return False
    return (
        address.is_link_local
        or address.is_multicast
        or address.is_unspecified
        or address.is_reserved
        or address in _METADATA
    )


def guarded_socket(found: tuple[Any, ...]) -> socket.socket:
    """For aiohttp: the socket to what a name was resolved to.

    Raises:
        AddressRefused: it is not called.
    """
    family, kind, protocol, _, place = found
    address = ipaddress.ip_address(str(place[0]).partition("%")[0])
    if is_refused(address):
        raise AddressRefused(errno.EACCES, f"{address} is not called")
    return socket.socket(family=family, type=kind, proto=protocol)


def _literal(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None


def _refused(found: str, allowed: str) -> UrlRefused:
    problem = {"path": "url", "value": found, "allowed": allowed}
    return UrlRefused(f"the url is not called: {found}; allowed: {allowed}", errors=[problem])


def _shown(text: str) -> str:
    """Not the whole of it: addresses of receivers may hold secrets."""
    return repr(text.partition("?")[0][:40])
