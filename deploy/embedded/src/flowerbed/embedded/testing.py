"""A stack for tests, through the code that people use: `up` at the start, `down` at the end."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flowerbed.contracts.topology import SERVICES
from flowerbed.embedded.control import down, up
from flowerbed.embedded.layout import SHARED_ROOT, Layout
from flowerbed.embedded.stack import Stack


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


def remove(state_dir: Path) -> None:
    """Delete a stopped stack with all its data, also what lies outside its directory."""
    layout = Layout.at(state_dir)
    if layout.postgres.is_symlink():
        home = Path(os.readlink(layout.postgres)).parent
        if home.parent == SHARED_ROOT:
            shutil.rmtree(home, ignore_errors=True)
    shutil.rmtree(layout.sockets, ignore_errors=True)
    shutil.rmtree(layout.root, ignore_errors=True)
