"""Which ports the stack listens on: free ones, chosen at the first start and kept.

They lie below the range that the kernel gives to outgoing connections. A port inside it could be
taken, while its server restarts, by the very client that is reconnecting to it.
"""

import json
import random
import socket
from pathlib import Path

from flowerbed.contracts.topology import SERVICES
from flowerbed.embedded.errors import EmbeddedError
from flowerbed.embedded.layout import Layout, write_private_json

S3_PARTS = (
    "s3", "s3_grpc", "s3_master", "s3_master_grpc", "s3_volume", "s3_volume_grpc",
    "s3_filer", "s3_filer_grpc", "s3_admin", "s3_admin_grpc",
)  # fmt: skip
NAMES = ("postgres", "nats", "client_door", "enrol_door", *S3_PARTS, *SERVICES)
LOWEST = 15000
_RANGE_FILE = Path("/proc/sys/net/ipv4/ip_local_port_range")

Ports = dict[str, int]


def ensure_ports(layout: Layout) -> Ports:
    """The stack's ports; one that somebody else holds by now is replaced."""
    path = layout.run / "ports.json"
    stored: Ports = json.loads(path.read_text()) if path.exists() else {}
    ports: Ports = {}
    for name in NAMES:
        port = stored.get(name)
        keep = port is not None and port not in ports.values() and is_free(port)
        ports[name] = port if keep and port is not None else _choose(set(ports.values()))
    if ports != stored:
        write_private_json(path, ports)
    return ports


def read_ports(layout: Layout) -> Ports:
    path = layout.run / "ports.json"
    return json.loads(path.read_text()) if path.exists() else {}


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _choose(taken: set[int]) -> int:
    highest = _lowest_outgoing_port() - 1
    for _ in range(1000):
        port = random.randint(LOWEST, highest)
        if port not in taken and is_free(port):
            return port
    raise EmbeddedError(f"no free port between {LOWEST} and {highest}")


def _lowest_outgoing_port() -> int:
    try:
        lowest = int(_RANGE_FILE.read_text().split()[0])
    except OSError:
        return 32768
    return lowest if lowest > LOWEST + 1000 else 65536
