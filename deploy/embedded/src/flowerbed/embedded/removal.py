"""Deleting a stopped stack."""

import os
import shutil
from pathlib import Path

from flowerbed.embedded.layout import SHARED_ROOT, Layout


def remove(state_dir: Path) -> None:
    """Delete a stopped stack with all its data, also what lies outside its directory."""
    layout = Layout.at(state_dir)
    if layout.postgres.is_symlink():
        home = Path(os.readlink(layout.postgres)).parent
        if home.parent == SHARED_ROOT:
            shutil.rmtree(home, ignore_errors=True)
    shutil.rmtree(layout.sockets, ignore_errors=True)
    shutil.rmtree(layout.root, ignore_errors=True)
