"""How the process that runs an app is started: from nothing, or forked by one that has imported it.

`Nursery` keeps one process from which all are forked; `Fresh` starts a program for each.
"""

import asyncio
import json
import os
import signal
import socket
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from flowerbed.flower_apps.forking import FLAG, IS_POSSIBLE

LONGEST_LINE = 16 << 20
"""Bytes of a line that a worker may say at once."""
LONGEST_TOLD = 256
IDLE_SECONDS = 600.0
"""How long a nursery stays without any worker: it holds some hundred MB."""


@dataclass(slots=True)
class Process:
    """It leads a process group of its own. `stdout` has its answers."""

    pid: int
    stdin: asyncio.StreamWriter
    stdout: asyncio.StreamReader
    stderr: asyncio.StreamReader
    transports: Sequence[asyncio.BaseTransport]
    ending: asyncio.Future[int]

    @property
    def returncode(self) -> int | None:
        return self.ending.result() if self.ending.done() else None

    async def wait(self) -> int:
        return await asyncio.shield(self.ending)

    async def end(self) -> None:
        """Kill it and all that it started, if it runs; let go of it."""
        if self.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
        await self.wait()
        await self.close()

    async def close(self) -> None:
        """Let go of its pipes: whatever it has started may hold their other ends."""
        for transport in self.transports:
            transport.close()
        await asyncio.sleep(0)  # a pipe is closed by the loop, in its next turn
        await asyncio.sleep(0)


Forked: TypeAlias = tuple[int, asyncio.Future[int]]
"""The pid of a new worker, and how it will have ended."""


class Start(Protocol):
    async def __call__(self, app: str) -> Process:
        """A new worker, which will run `app`."""


@dataclass(frozen=True, slots=True)
class Fresh:
    """A program of its own for each worker."""

    command: Sequence[str]
    environment: dict[str, str]

    async def __call__(self, app: str) -> Process:
        process = await asyncio.create_subprocess_exec(
            *self.command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=self.environment,
            limit=LONGEST_LINE,
            start_new_session=True,
        )
        assert process.stdin and process.stdout and process.stderr
        ending = asyncio.ensure_future(process.wait())
        transports = [one for one in [getattr(process, "_transport", None)] if one is not None]
        return Process(
            process.pid, process.stdin, process.stdout, process.stderr, transports, ending
        )

    async def keep(self) -> None:
        """As a nursery's; there is nothing to close."""
        await asyncio.Event().wait()

    async def close(self) -> None:
        """There is nothing beside the workers."""


@dataclass(slots=True)
class Nursery:
    """One process that has imported what workers need, started with the first of them."""

    command: Sequence[str]
    environment: dict[str, str]
    _process: asyncio.subprocess.Process | None = None
    _control: socket.socket | None = None
    _hearing: asyncio.Task[None] | None = None
    _asked: deque[asyncio.Future[Forked]] = field(default_factory=deque)
    _endings: dict[int, asyncio.Future[int]] = field(default_factory=dict)
    _idle: asyncio.TimerHandle | None = None
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def __call__(self, app: str) -> Process:
        """
        Raises:
            ConnectionError: the nursery ended before it had forked.
        """
        ours, theirs = socket.socketpair()
        to_read, to_write = os.pipe()
        files = (theirs.fileno(), theirs.fileno(), to_write)
        try:
            async with self._turn:
                pid, ending = await self._forked(app, files)
        except BaseException:
            ours.close()
            os.close(to_read)
            raise
        finally:
            theirs.close()
            os.close(to_write)
        stdout, stdin = await asyncio.open_unix_connection(sock=ours, limit=LONGEST_LINE)
        stderr, transport = await _reader(to_read)
        return Process(pid, stdin, stdout, stderr, (stdin.transport, transport), ending)

    async def close(self) -> None:
        """End it, and with it every worker that still runs."""
        if self._idle is not None:
            self._idle.cancel()
        process, self._process = self._process, None
        if process is None:
            return
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        assert self._hearing is not None and self._control is not None
        await self._hearing
        self._control.close()

    async def keep(self) -> None:
        """For as long as whoever has it runs; then it is closed."""
        try:
            await asyncio.Event().wait()
        finally:
            await self.close()

    async def _forked(self, app: str, files: Sequence[int]) -> Forked:
        if self._idle is not None:
            self._idle.cancel()
        if self._process is None or self._process.returncode is not None:
            await self.close()
            await self._start()
        assert self._control is not None
        told: asyncio.Future[Forked] = asyncio.get_running_loop().create_future()
        self._asked.append(told)
        try:
            socket.send_fds(self._control, [app.encode()], files)
            return await told
        except ConnectionError:  # it is dying, though its end is not told yet
            told.cancel()
            await self.close()
            raise

    async def _start(self) -> None:
        self._asked.clear()  # of the one before
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.setblocking(False)
        with theirs:
            self._process = await asyncio.create_subprocess_exec(
                *self.command, FLAG,
                stdin=theirs.fileno(), stdout=2, env=self.environment, start_new_session=True,
            )  # fmt: skip
        self._hearing = asyncio.create_task(self._hear(self._control))

    async def _hear(self, control: socket.socket) -> None:
        """Who was forked and who has ended, until the nursery itself has: then all have."""
        loop = asyncio.get_running_loop()
        with suppress(OSError):
            while line := await loop.sock_recv(control, LONGEST_TOLD):
                self._take(json.loads(line))
        for asked in self._asked:
            if not asked.done():
                asked.set_exception(ConnectionResetError("the nursery of workers has ended"))
        for pid in list(self._endings):
            self._end(pid, -signal.SIGKILL)
        self._asked.clear()

    def _take(self, told: dict[str, int]) -> None:
        if "ended" in told:
            self._end(told["ended"], told["code"])
            return
        pid, ending = told["pid"], asyncio.get_running_loop().create_future()
        self._endings[pid] = ending
        asked = self._asked.popleft()
        if asked.cancelled():  # nobody wants it any more
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
        else:
            asked.set_result((pid, ending))

    def _end(self, pid: int, code: int) -> None:
        ending = self._endings.pop(pid)
        if not ending.done():
            ending.set_result(code)
        if not self._endings and self._process is not None:
            loop = asyncio.get_running_loop()
            self._idle = loop.call_later(IDLE_SECONDS, self._retire, self._process)

    def _retire(self, process: asyncio.subprocess.Process) -> None:
        if not self._endings and not self._asked:
            with suppress(ProcessLookupError):
                process.kill()


def starter(command: Sequence[str], environment: dict[str, str]) -> Fresh | Nursery:
    """`command`: one that calls `forking.serve` if it is told `--nursery`."""
    return (Nursery if IS_POSSIBLE else Fresh)(command, environment)


async def _reader(file: int) -> tuple[asyncio.StreamReader, asyncio.BaseTransport]:
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(file, "rb", buffering=0)
    )
    return reader, transport
