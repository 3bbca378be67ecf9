"""Disks of a known size below S3 and JetStream, that can be full for a while.

Each is a tmpfs mounted on the server's data directory before it starts. Full: it is remounted no
larger than what it holds, so the server's next write fails as on a full disk (ENOSPC). Mounting
needs root; without it there is no such fault, and the tool says so.
"""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from flowerbed.embedded.layout import Layout

SIZE = 8 * 1024**3
"""Bytes: what the servers see as their disk. Memory is taken for what they write, no more."""

ATTEMPTS = 20


@dataclass(frozen=True, slots=True)
class Disks:
    """`places`: the mounted directories of each server."""

    places: dict[str, list[Path]]

    @classmethod
    def can_mount(cls) -> bool:
        return os.geteuid() == 0

    @classmethod
    def mount(cls, layout: Layout, nats_nodes: int = 1) -> "Disks":
        """Before the stack's first start.

        Raises:
            subprocess.CalledProcessError: we may not mount.
        """
        others = [layout.nats.with_name(f"nats-{n}") for n in range(2, nats_nodes + 1)]
        disks = cls({"jetstream": [layout.nats, *others], "s3": [layout.s3]})
        for place in disks._all():
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
            _run("mount", "-t", "tmpfs", "-o", f"size={SIZE},mode=700", "tmpfs", str(place))
        return disks

    def fill(self, name: str) -> None:
        """No room from now on: a write of a new page fails."""
        for place in self.places[name]:
            _fill(place)

    def free(self, name: str) -> None:
        for place in self.places[name]:
            _run("mount", "-o", f"remount,size={SIZE}", str(place))

    def unmount(self) -> None:
        for place in self._all():
            _run("umount", "--lazy", str(place))

    def _all(self) -> list[Path]:
        return [place for places in self.places.values() for place in places]


def _fill(place: Path) -> None:
    """The server writes meanwhile: what it held a moment ago may be too little now."""
    for attempt in range(1, ATTEMPTS + 1):
        used = os.statvfs(place)
        size = max(4096, (used.f_blocks - used.f_bfree) * used.f_frsize)
        try:
            _run("mount", "-o", f"remount,size={size}", str(place))
            return
        except subprocess.CalledProcessError:
            if attempt == ATTEMPTS:
                raise


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
