"""What every part of a stack is built from: where it lies, its credentials, its ports."""

import os
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from flowerbed.embedded.credentials import Credentials, ensure_credentials
from flowerbed.embedded.errors import EmbeddedError
from flowerbed.embedded.layout import Layout
from flowerbed.embedded.pki import ensure_pki
from flowerbed.embedded.ports import Ports, ensure_ports, read_ports
from flowerbed.embedded.shape import Shape, keep_shape, numbered, read_shape

_KEPT_VARIABLES = ("PATH", "LANG", "LC_ALL", "TZ", "TMPDIR")


@dataclass(frozen=True, slots=True)
class Setup:
    layout: Layout
    credentials: Credentials
    ports: Ports
    shape: Shape

    @classmethod
    def prepare(cls, layout: Layout, shape: Shape | None = None) -> "Setup":
        """Make whatever of it does not exist yet; without a shape, that of before is kept."""
        layout.make()
        shape = read_shape(layout) if shape is None else shape
        keep_shape(layout, shape)
        setup = cls(layout, ensure_credentials(layout), ensure_ports(layout, shape), shape)
        ensure_pki(layout)
        return setup

    @classmethod
    def of_running(cls, layout: Layout) -> "Setup":
        """Of a stack whose processes hold its ports."""
        return cls(layout, ensure_credentials(layout), read_ports(layout), read_shape(layout))

    def address(self, name: str) -> str:
        return f"127.0.0.1:{self.ports[name]}"

    def told(self, server: str) -> tuple[str, ...]:
        """Where services and clients are told that a server is: its addresses, or its links'."""
        count = self.shape.nats_nodes if server == "nats" else 1
        ports = self.shape.links.get(server) or [
            self.ports[name] for name in numbered(server, count)
        ]
        return tuple(f"127.0.0.1:{port}" for port in ports)

    def replicas(self, service: str) -> tuple[str, ...]:
        return numbered(service, self.shape.replicas)

    def server_env(self) -> dict[str, str]:
        """The servers see nothing of our own environment that they do not need."""
        kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
        return {**kept, "HOME": str(self.layout.run)}


def program(name: str) -> str:
    """A server's program, as its wheel has put it beside our interpreter."""
    for directory in (Path(sysconfig.get_path("scripts")), Path(sys.executable).parent):
        if (path := directory / name).exists():
            return str(path)
    raise EmbeddedError(f"{name} is not installed beside {sys.executable}")
