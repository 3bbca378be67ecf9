"""The process in which an app's ServerApp runs: two pipes, its log lines, its end.

It runs as this service's user, without its settings: see `app_process`.
"""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from pydantic import ValidationError

from flowerbed.aggregator.app_process import environment
from flowerbed.flower_apps.grid_pipe import (
    CALLS,
    Answer,
    Differs,
    Done,
    Failed,
    Hello,
    Pull,
    Push,
)

LONGEST_LINE = 4 << 20
"""Of what it asks: a message of each of 10,000 nodes fits in."""


@dataclass(slots=True)
class ServerProcess:
    process: asyncio.subprocess.Process
    reader: asyncio.StreamReader
    write: int

    @property
    def pid(self) -> int:
        return self.process.pid

    async def calls(self) -> AsyncIterator[Push | Pull | Done | Failed]:
        """What the app asks, until it is gone."""
        while line := await self.reader.readline():
            try:
                yield CALLS.validate_json(line)
            except ValidationError:
                return  # whoever writes that is not our code any more

    def answer(self, answer: Answer | Differs | Hello) -> None:
        with contextlib.suppress(BrokenPipeError):
            data = answer.line()
            while data:
                data = data[os.write(self.write, data) :]

    async def ended(self) -> str:
        """How: for people."""
        code = await self.process.wait()
        if code < 0:
            return f"killed by signal {-code}"
        return f"it exited with {code}"


@contextlib.asynccontextmanager
async def running(hello: Hello, take: Callable[[str], None]) -> AsyncIterator[ServerProcess]:
    """`take` is told each line that the app writes. However this is left, the process is gone."""
    to_read, child_writes = os.pipe()
    child_reads, to_write = os.pipe()
    loop, reader = asyncio.get_running_loop(), asyncio.StreamReader(limit=LONGEST_LINE)
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "flowerbed.flower_apps.serve",
            str(child_reads), str(child_writes),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            pass_fds=(child_reads, child_writes),
            env={**environment(), "HOME": hello.work, "PYTHONHASHSEED": "0",
                 "FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"},
            limit=LONGEST_LINE,
        )  # fmt: skip
    finally:
        os.close(child_reads)
        os.close(child_writes)
    pipe = os.fdopen(to_read, "rb", buffering=0)
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
    listening = asyncio.create_task(_listen(process, take))
    try:
        one = ServerProcess(process, reader, to_write)
        one.answer(hello)
        yield one
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(listening, 1.0)  # its last words
        transport.close()
        os.close(to_write)


async def _listen(process: asyncio.subprocess.Process, take: Callable[[str], None]) -> None:
    assert process.stdout is not None
    with contextlib.suppress(ValueError):  # a line longer than any
        while line := await process.stdout.readline():
            take(line.decode(errors="replace").rstrip("\n"))
