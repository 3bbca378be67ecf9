"""Where a stack lies, and who may read what it writes there."""

import os
import stat
import tempfile
from pathlib import Path

import pytest

from flowerbed.embedded.errors import BadInput
from flowerbed.embedded.layout import (
    LONGEST_SOCKET_PATH,
    SHARED_ROOT,
    Layout,
    default_state_dir,
    write_private,
)


def test_environment_chooses_the_state_directory() -> None:
    assert default_state_dir({"FLOWERBED_STATE_DIR": "/srv/flowers"}) == Path("/srv/flowers")


def test_root_keeps_its_state_with_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert default_state_dir({"XDG_DATA_HOME": "/data"}) == SHARED_ROOT


def test_user_keeps_it_in_the_data_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert default_state_dir({"XDG_DATA_HOME": "/data"}) == Path("/data/flowerbed")
    assert default_state_dir({}) == Path.home() / ".local/share/flowerbed"


def test_relative_directory_is_the_same_from_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert Layout.at(Path("here")).root == tmp_path / "here"


def test_directories_are_closed_to_others(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "state")
    layout.secrets.mkdir(mode=0o755, parents=True)

    layout.make()

    for directory in (layout.secrets, layout.run, layout.logs, layout.nats, layout.s3):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_file_in_the_place_of_the_state_directory_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    with pytest.raises(BadInput, match="cannot hold a stack"):
        Layout(tmp_path / "state").make()


def test_directory_that_another_made_is_refused(tmp_path: Path) -> None:
    """A link in /tmp would lead our sockets to its owner."""
    layout = Layout(tmp_path / "state")
    layout.root.mkdir()
    (tmp_path / "elsewhere").mkdir()
    layout.run.symlink_to(tmp_path / "elsewhere")

    with pytest.raises(BadInput, match="belongs to another user"):
        layout.make()


@pytest.mark.parametrize("length", [10, 60, 81, 82, 120, 250])
def test_socket_path_is_never_too_long_for_the_kernel(length: int) -> None:
    layout = Layout(Path("/" + "x" * length))

    path = layout.sockets / "lease-8-clients.sock"

    assert len(str(path)) <= LONGEST_SOCKET_PATH
    assert (layout.sockets == layout.run) == (length <= 81)


def test_two_stacks_never_share_sockets() -> None:
    long = "x" * 200
    assert Layout(Path(f"/a{long}")).sockets != Layout(Path(f"/b{long}")).sockets
    assert Layout(Path(f"/a{long}")).sockets.parent == Path(tempfile.gettempdir())


def test_private_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("old")
    path.chmod(0o644)

    write_private(path, "new")

    assert path.read_text() == "new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.mkdir()  # cannot be replaced by a file
    with pytest.raises(OSError):
        write_private(path, "new")
    assert list(tmp_path.iterdir()) == [path]
