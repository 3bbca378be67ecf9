"""A stack for tests, through the code that people use: `up` at the start, `down` at the end."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flowerbed.contracts.topology import SERVICES
from flowerbed.embedded.control import down, up
from flowerbed.embedded.removal import remove
from flowerbed.embedded.stack import Stack

__all__ = ["remove", "running_stack"]


@contextmanager
def running_stack(
    state_dir: Path, services: tuple[str, ...] = SERVICES, *, keep: bool = False
) -> Iterator[Stack]:
    """A ready stack; afterwards none of its processes is left and, unless `keep`, no data."""
    try:
        yield up(state_dir, services)
    finally:
        down(state_dir)
        if not keep:
            remove(state_dir)
