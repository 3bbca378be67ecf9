"""What a machine must have, for a site as for a stack: Python, disk, memory, a right clock."""

import ctypes
import platform
import shutil
import sys
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path

import psutil

from flowerbed.cli.doctor.report import Finding, failed, ok, warning
from flowerbed.runner import installed, storage

LOWEST_PYTHON = (3, 11)
ROOM = 2 << 30
"""Bytes free below which a few large checkpoints would fill the disk."""
MEMORY = 512 << 20
"""Bytes free below which a worker may not start."""
_UNSYNCHRONISED = 0x0040
"""STA_UNSYNC of adjtimex(2)."""


def versions(packages: Sequence[str]) -> Iterator[Finding]:
    found = {name: _version(name) for name in packages}
    if missing := [name for name, version in found.items() if version is None]:
        yield failed(
            "versions",
            f"not installed beside {sys.executable}: {', '.join(missing)}",
            "install Flowerbed again, all of its parts in one environment",
        )
    ours = {version for name, version in found.items() if _is_ours(name) and version}
    if len(ours) > 1:
        yield failed(
            "versions",
            f"parts of different releases: {', '.join(sorted(ours))}",
            "install all parts of Flowerbed from one release",
        )
    python = platform.python_version()
    if sys.version_info < LOWEST_PYTHON:
        lowest = ".".join(map(str, LOWEST_PYTHON))
        yield failed("versions", f"Python {python}", f"use Python {lowest} or newer")
    told = [f"{name} {found[name]}" for name in packages if found[name] and not _is_ours(name)]
    if ours:
        told.insert(0, f"Flowerbed {', '.join(sorted(ours))}")
    yield ok("versions", ", ".join([f"Python {python}", *told]))


def apps() -> Iterator[Finding]:
    changed = installed.changed_apps()
    if changed:
        yield failed(
            "apps",
            f"code is not this release's: {', '.join(changed)}",
            "install flowerbed-flower-apps again; work for a changed app is refused (code-hash)",
        )
    else:
        yield ok("apps", "the code of every app is this release's")


def disk(folder: Path) -> Iterator[Finding]:
    free = shutil.disk_usage(folder if folder.exists() else _existing(folder)).free
    seen = f"{free / (1 << 30):.1f} GiB free for {folder}"
    do = "free some room, or move the state directory to a larger disk"
    if free < storage.RESERVE:
        yield failed("disk", seen, do)
    elif free < ROOM:
        yield warning("disk", seen, do)
    else:
        yield ok("disk", seen)


def memory() -> Iterator[Finding]:
    free = psutil.virtual_memory().available
    seen = f"{free / (1 << 20):.0f} MiB of memory available"
    if free < MEMORY:
        yield warning("memory", seen, "end other programs: a worker with torch needs about 500 MiB")
    else:
        yield ok("memory", seen)


def clock_is_kept() -> Iterator[Finding]:
    """Whether something keeps the clock right, as the kernel knows."""
    match _is_synchronised():
        case False:
            do = "run an NTP service, such as chrony or systemd-timesyncd"
            yield warning("clock", "nothing keeps the machine's clock right (NTP)", do)
        case True:
            yield ok("clock", "kept right by NTP, as the kernel says")
        case None:
            yield ok("clock", "the kernel does not tell whether something keeps the clock right")


def private(check: str, folders: Sequence[Path], files: Sequence[Path]) -> Iterator[Finding]:
    """What only its owner may read, and whoever runs this is its owner."""
    wrong = [
        (path, mode)
        for paths, mode in ((folders, 0o700), (files, 0o600))
        for path in paths
        if path.exists() and path.stat().st_mode & 0o777 & ~mode
    ]
    for path, mode in wrong:
        found = path.stat().st_mode & 0o777
        seen = f"{path} has mode {found:04o}: others can reach it"
        yield failed(check, seen, f"chmod {mode:o} {path}")
    if not wrong:
        n_paths = sum(path.exists() for path in (*folders, *files))
        yield ok(check, f"{n_paths} secret files and folders are their owner's alone")


def _is_ours(package: str) -> bool:
    return package.startswith("flowerbed")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _existing(folder: Path) -> Path:
    return next(parent for parent in folder.parents if parent.exists())


def _is_synchronised() -> bool | None:
    """From adjtimex(2), which with no modes only reads. None where the kernel does not say."""
    try:
        timex = ctypes.create_string_buffer(256)
        if ctypes.CDLL(None).adjtimex(timex) < 0:
            return None
    except (OSError, AttributeError):
        return None
    status = int.from_bytes(timex.raw[40:44], sys.byteorder)
    return not status & _UNSYNCHRONISED
