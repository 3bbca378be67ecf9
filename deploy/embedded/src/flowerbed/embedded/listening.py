"""Is it this process that listens on a port? Read from the kernel, not asked of the port."""

import os
from pathlib import Path

_LISTEN = "0A"


def listens(pid: int, port: int) -> bool:
    """True if a listening TCP socket on 127.0.0.1:port belongs to that process."""
    inode = _listening_inode(port)
    if inode is None:
        return False
    try:
        descriptors = list(Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return False
    return any(_target(descriptor) == f"socket:[{inode}]" for descriptor in descriptors)


def _listening_inode(port: int) -> str | None:
    wanted = f"0100007F:{port:04X}"  # 127.0.0.1, as a little-endian machine keeps it
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[1] == wanted and fields[3] == _LISTEN:
            return fields[9]
    return None


def _target(descriptor: Path) -> str:
    try:
        return os.readlink(descriptor)
    except OSError:
        return ""
