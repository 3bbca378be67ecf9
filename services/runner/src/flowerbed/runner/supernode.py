"""Flower's SuperNode and SuperExec for one lease, kept running: both stock.

    start -> one of them ends -> both are ended, with all they started -> pause -> start

Nothing that they start outlives them: neither a process that left its group, nor a zombie, nor the
work of an agent that was killed.
"""

import asyncio
import ctypes
import logging
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from flowerbed.runner.errors import BadInput
from flowerbed.runner.node_files import NodeFiles
from flowerbed.runner.state import write_private
from flowerbed.runner.warm import environment

logger = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE, SETTLED_SECONDS = 0.5, 10.0, 60.0
STOP_SECONDS = 5.0
MARK = "FLOWERBED_SUPERNODE"
"""A variable that all its processes have: by it they are found whatever became of their parents."""
_PROGRAMS = ("flower-supernode", "flower-superexec", "flwr-clientapp")
_MORTAL = Path(__file__).with_name("mortal.py")
_PR_SET_CHILD_SUBREAPER = 36


def become_reaper() -> None:
    """Have orphans of our children become our children, which a container's init may not take."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def flower_programs(python: str | None) -> Path:
    """Where Flower's programs lie: beside the interpreter that runs the apps.

    Raises:
        BadInput: they are not there.
    """
    folder = Path(python or sys.executable).parent
    missing = [name for name in _PROGRAMS if not os.access(folder / name, os.X_OK)]
    if missing:
        raise BadInput(f"{missing[0]} is not installed in {folder}: --superlink needs Flower there")
    return folder


@dataclass(slots=True)
class SuperNode:
    """`programs`: the folder of Flower's programs. `port`: of the tunnel to the SuperLink."""

    files: NodeFiles
    programs: Path
    port: int
    restarts: int = 0
    _running: list[asyncio.subprocess.Process] = field(default_factory=list)

    async def run(self) -> None:
        """Keep it running until cancelled; then nothing of it is left."""
        pause = FIRST_PAUSE
        try:
            while True:
                await asyncio.to_thread(end_marked, self.files.folder)
                began = time.monotonic()
                await self._start()
                ended = await self._one_ends()
                await self._end()
                if time.monotonic() - began > SETTLED_SECONDS:
                    pause = FIRST_PAUSE
                self.restarts += 1
                logger.warning("%s: both are started again in %g s", ended, pause)
                await asyncio.sleep(pause)
                pause = min(LONGEST_PAUSE, 2 * pause)
        finally:
            await asyncio.shield(self._end())

    async def _start(self) -> None:
        files, api = self.files, free_port()
        write_private(files.secret, secrets.token_urlsafe(32), is_durable=False)
        secret = ("--superexec-auth-secret-file", str(files.secret))
        node = (
            str(self.programs / "flower-supernode"), "--superlink", f"localhost:{self.port}",
            "--root-certificates", str(files.certificate),
            "--auth-supernode-private-key", str(files.key),
            "--node-config", str(files.config),
            "--host", "127.0.0.1", "--port", str(api), "--isolation", "process", *secret,
        )  # fmt: skip
        executor = (
            str(self.programs / "flower-superexec"), "--insecure", *secret,
            "--runtime-api-address", f"127.0.0.1:{api}", "--parent-pid", str(os.getpid()),
        )  # fmt: skip
        for command in (node, executor):
            self._running.append(await self._spawn(command))

    async def _spawn(self, command: Sequence[str]) -> asyncio.subprocess.Process:
        log = os.open(self.files.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            return await asyncio.create_subprocess_exec(
                sys.executable, "-I", "-S", str(_MORTAL), str(os.getpid()), *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.files.folder,
                env=self._environment(os.environ),
                start_new_session=True,
            )  # fmt: skip
        finally:
            os.close(log)

    def _environment(self, environ: Mapping[str, str]) -> dict[str, str]:
        kept = environment(environ)
        return {
            **kept,
            "PATH": f"{self.programs}:{kept.get('PATH', '')}",  # they start each other by name
            "FLWR_HOME": str(self.files.home),
            "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.2",
            MARK: str(self.files.folder),
        }

    async def _one_ends(self) -> str:
        waiting = [asyncio.create_task(process.wait()) for process in self._running]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()
        names = ("the SuperNode", "its SuperExec")
        codes = [process.returncode for process in self._running]
        return ", ".join(
            f"{name} ended with {code}"
            for name, code in zip(names, codes, strict=True)
            if code is not None
        )

    async def _end(self) -> None:
        running, self._running = self._running, []
        for process in running:
            _kill_group(process.pid)
        for process in running:
            await process.wait()
        await asyncio.to_thread(end_marked, self.files.folder)
        for process in running:
            _reap_group(process.pid)


def end_marked(folder: Path) -> list[int]:
    """Kill every process of the node that has its files there; answers their pids.

    It looks again until there is none: what is being started during one look is seen in the next.
    """
    ended, until = list[int](), time.monotonic() + STOP_SECONDS
    while found := _marked(folder):
        for process in found:
            with suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(found, timeout=STOP_SECONDS)
        ended += [process.pid for process in found]
        if time.monotonic() > until:
            break
    return ended


def _marked(folder: Path) -> list[psutil.Process]:
    return [process for process in psutil.process_iter() if _mark_of(process) == str(folder)]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _mark_of(process: psutil.Process) -> str | None:
    try:
        return process.environ().get(MARK)
    except (psutil.Error, OSError):
        return None


def _kill_group(pid: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _reap_group(pid: int) -> None:
    """Take leave of orphans that became our children, and of no other child of ours."""
    with suppress(ChildProcessError):
        while os.waitid(os.P_PGID, pid, os.WEXITED | os.WNOHANG) is not None:
            pass
