"""Postgres does not run as root. Then it gets a system user, and places which that one reaches."""

import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path

from flowerbed.embedded.child import Account
from flowerbed.embedded.layout import SHARED_ROOT

USER = "flowerbed"


def postgres_account() -> Account | None:
    """None if we are not root: then Postgres runs as ourselves."""
    if os.geteuid() != 0:
        return None
    entry = _entry(USER)
    if entry is None:
        _add_user()
        entry = _entry(USER) or pwd.getpwnam("nobody")
    return Account(entry.pw_uid, entry.pw_gid)


def can_enter(account: Account | None, directory: Path) -> bool:
    return account is None or _runs(account, ("test", "-x", str(directory)))


def reachable_programs(account: Account | None, installed: Path, version: str) -> Path:
    """Postgres' tree where `account` can run it: as installed, or a copy made once."""
    program = installed / "pginstall" / "bin" / "postgres"
    if account is None or _runs(account, (str(program), "--version")):
        return program.parent
    copy = SHARED_ROOT / f"postgres-{version}"
    if not copy.exists():
        _copy(installed, copy)
    return copy / installed.name / "pginstall" / "bin"


def make_shared_root() -> Path:
    SHARED_ROOT.mkdir(mode=0o755, parents=True, exist_ok=True)
    return SHARED_ROOT


def _copy(installed: Path, target: Path) -> None:
    """All or nothing: two stacks may do it at once."""
    temporary = Path(tempfile.mkdtemp(dir=make_shared_root(), prefix=".postgres-"))
    try:
        unneeded = shutil.ignore_patterns("include", "*.a", "__pycache__", "doc", "man")
        for part in (installed, installed.with_name(f"{installed.name}.libs")):
            if part.exists():
                shutil.copytree(part, temporary / part.name, symlinks=True, ignore=unneeded)
        for directory in (temporary, *(path for path in temporary.rglob("*") if path.is_dir())):
            directory.chmod(0o755)
        try:
            temporary.rename(target)
        except OSError:
            if not target.exists():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _add_user() -> None:
    useradd = shutil.which("useradd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if useradd is not None:
        command = (
            useradd, "--system", "--no-create-home", "--home-dir", "/nonexistent",
            "--shell", "/usr/sbin/nologin", "--comment", "Flowerbed's Postgres", USER,
        )  # fmt: skip
        subprocess.run(command, capture_output=True, check=False)


def _entry(name: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(name)
    except KeyError:
        return None


def _runs(account: Account, command: tuple[str, ...]) -> bool:
    try:
        result = subprocess.run(
            command,
            user=account.uid,
            group=account.gid,
            extra_groups=[],
            cwd="/",
            capture_output=True,
            check=False,
        )
    except OSError:
        return False
    return result.returncode == 0
