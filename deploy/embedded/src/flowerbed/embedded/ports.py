"""Which ports the stack listens on: free ones, chosen at the first start and kept.

They lie below the range that the kernel gives to outgoing connections. A port inside it could be
taken, while its server restarts, by the very client that is reconnecting to it.
"""

import json
import os
import random
import socket
from pathlib import Path

from flowerbed.contracts.topology import SERVICES
from flowerbed.embedded.errors import EmbeddedError
from flowerbed.embedded.layout import Layout, write_private_json
from flowerbed.embedded.shape import Shape, numbered, read_shape

S3_PARTS = (
    "s3", "s3_grpc", "s3_master", "s3_master_grpc", "s3_volume", "s3_volume_grpc",
    "s3_filer", "s3_filer_grpc", "s3_admin", "s3_admin_grpc",
)  # fmt: skip
_DOORS = ("client_door", "enrol_door", "gateway_door")
FIXED_DISTANCES = {"s3_admin": ("s3_admin_grpc", 10000)}
"""SeaweedFS' worker looks for its admin server that far above, wherever that was told to listen."""
SEAWEEDFS_SOCKETS = Path("/tmp")
"""There it makes one for each of its gRPC ports, whatever it is told. One that another user's
killed SeaweedFS has left it cannot remove; it dials that one in vain then, and is never ready."""
LOWEST = 15000
_RANGE_FILE = Path("/proc/sys/net/ipv4/ip_local_port_range")

Ports = dict[str, int]


def port_names(shape: Shape) -> tuple[str, ...]:
    """A port a component; the nodes of a NATS cluster have one more, for each other."""
    nodes = numbered("nats", shape.nats_nodes)
    routes = [f"{node}_route" for node in nodes if shape.nats_nodes > 1]
    replicas = [name for service in SERVICES for name in numbered(service, shape.replicas)]
    observers = ("prometheus", "alertmanager") if shape.observability else ()
    superlink = ("superlink",) if shape.superlink else ()
    return ("postgres", *nodes, *routes, *_DOORS, *S3_PARTS, *replicas, *observers, *superlink)


def ensure_ports(layout: Layout, shape: Shape | None = None) -> Ports:
    """The stack's ports; one that somebody else holds by now is replaced."""
    names = port_names(read_shape(layout) if shape is None else shape)
    path = layout.run / "ports.json"
    stored: Ports = json.loads(path.read_text()) if path.exists() else {}
    ports: Ports = {}
    for name in names:
        if name in ports:
            continue
        kept = _with_companion(name, stored[name]) if name in stored else {}
        usable = kept.items() <= stored.items() and _are_usable(kept, ports)
        ports |= kept if kept and usable else _choose(name, ports)
    ports = {name: ports[name] for name in names}
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


def _with_companion(name: str, port: int) -> Ports:
    if name not in FIXED_DISTANCES:
        return {name: port}
    companion, distance = FIXED_DISTANCES[name]
    return {name: port, companion: port + distance}


def _are_usable(wanted: Ports, taken: Ports) -> bool:
    if set(wanted.values()) & set(taken.values()):
        return False
    return all(is_free(port) and not _is_blocked(name, port) for name, port in wanted.items())


def _is_blocked(name: str, port: int) -> bool:
    """Whether SeaweedFS could not remove the socket that there is for this port."""
    if name not in S3_PARTS or not name.endswith("_grpc"):
        return False
    part = name.split("_")[-2]
    try:
        owner = (SEAWEEDFS_SOCKETS / f"seaweedfs-{part}-grpc-{port}.sock").lstat().st_uid
    except OSError:
        return False
    return os.geteuid() not in (0, owner)


def _choose(name: str, taken: Ports) -> Ports:
    highest = _lowest_outgoing_port() - 1
    for _ in range(10_000):
        wanted = _with_companion(name, random.randint(LOWEST, highest))
        if max(wanted.values()) <= highest and _are_usable(wanted, taken):
            return wanted
    raise EmbeddedError(f"no free port between {LOWEST} and {highest}")


def _lowest_outgoing_port() -> int:
    try:
        lowest = int(_RANGE_FILE.read_text().split()[0])
    except OSError:
        return 32768
    return lowest if lowest > LOWEST + 11_000 else 65536
