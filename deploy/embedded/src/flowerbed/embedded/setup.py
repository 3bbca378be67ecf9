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
from flowerbed.embedded.ports import Ports, ensure_ports

_KEPT_VARIABLES = ("PATH", "LANG", "LC_ALL", "TZ", "TMPDIR")


@dataclass(frozen=True, slots=True)
class Setup:
    layout: Layout
    credentials: Credentials
    ports: Ports

    @classmethod
    def prepare(cls, layout: Layout) -> "Setup":
        """Make whatever of it does not exist yet."""
        layout.make()
        setup = cls(layout, ensure_credentials(layout), ensure_ports(layout))
        ensure_pki(layout)
        return setup

    def address(self, name: str) -> str:
        return f"127.0.0.1:{self.ports[name]}"

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
