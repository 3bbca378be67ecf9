"""The site's disk: whether there is room, and what it means when there is none."""

import errno
import shutil
import sqlite3
from pathlib import Path

from flowerbed.runner.errors import Refused

DISK_FULL = "disk-full"
RESERVE = 4 << 20
"""Bytes that must be free before anything is begun: journal, status, log."""
COPIES = 6
"""Of the model: base, update, and a checkpoint (model and optimizer) beside the one before it."""

_FULL = (errno.ENOSPC, errno.EDQUOT)


def needed_for(model_bytes: int) -> int:
    """Bytes that training such a model may take at the site."""
    return RESERVE + COPIES * model_bytes


def check_free(folder: Path, needed: int) -> None:
    """Raises: Refused: less is free there than is needed."""
    if _free(folder) < needed:
        raise disk_full(folder, needed)


def disk_full(folder: Path, needed: int) -> Refused:
    return Refused(
        DISK_FULL, f"{_megabytes(needed)} are needed at the site, {_megabytes(_free(folder))} free"
    )


def is_full(error: BaseException) -> bool:
    """Was this, or what led to it, a disk (or a quota) without room?"""
    if isinstance(error, OSError) and error.errno in _FULL:
        return True
    if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
        return True  # Python's own sqlite3.Errors have no such code
    if f"os error {errno.ENOSPC}" in str(error):  # how safetensors says it
        return True
    cause = error.__cause__ or error.__context__
    return cause is not None and is_full(cause)


def refusal(error: OSError | sqlite3.Error, folder: Path) -> Refused:
    """Why the site could not do the work."""
    if is_full(error):
        return disk_full(folder, RESERVE)
    return Refused("site-storage", f"{type(error).__name__} at the site", at_site=str(error))


def _free(folder: Path) -> int:
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return 0


def _megabytes(count: int) -> str:
    return f"{count} bytes" if count < 1 << 20 else f"{count / (1 << 20):.1f} MiB"
