"""One real stack for all tests of this folder: the servers, and one of our services."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from flowerbed.embedded.stack import Stack
from flowerbed.embedded.testing import running_stack


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running_stack(tmp_path_factory.mktemp("stack"), services=("artifact",)) as stack:
        yield stack


@pytest.fixture
def state_dir(tmp_path: Path) -> Iterator[Path]:
    """For a test that needs a stack of its own; nothing of it is left."""
    from flowerbed.embedded.control import down
    from flowerbed.embedded.testing import remove

    yield tmp_path / "state"
    down(tmp_path / "state")
    remove(tmp_path / "state")
