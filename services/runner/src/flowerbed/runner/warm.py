"""The agent's side of a worker process: start it, ask it, notice its death, end it."""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from pydantic import TypeAdapter

from flowerbed.flower_apps.nursery import Fresh, Process, Start
from flowerbed.runner.errors import Refused, RunnerError
from flowerbed.runner.pipe import Answer, AppFailed, Hello, Ready, Request, Result

logger = logging.getLogger(__name__)

WORKER_COMMAND = (sys.executable, "-m", "flowerbed.runner.worker")
MOST_DEATHS = 3
PIECE = 1 << 16
HEAR_SECONDS = 1.0
"""How long a dead worker's last words may take to arrive."""

_ANSWERS: TypeAdapter[Ready | Result | AppFailed] = TypeAdapter(Answer)
_INHERITED = ("PATH", "HOME", "LANG", "TZ", "TMPDIR", "VIRTUAL_ENV", "LD_LIBRARY_PATH")
_INHERITED_PREFIXES = ("LC_", "PYTHON", "CUDA_", "NVIDIA_", "COVERAGE_")
_SET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """What a dead worker leaves behind. `progress` grows as the work gets on; -1 is none."""

    result: Result | None = None
    progress: int = -1


class WorkerDied(RunnerError):
    """The process ended, or said what no worker says, before it had answered."""


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """What a worker may know of the agent's environment: nothing that could be a secret."""
    kept = {
        name: value
        for name, value in environ.items()
        if name in _INHERITED or name.startswith(_INHERITED_PREFIXES)
    }
    return kept | _SET


class Worker:
    """One process at a time; the next order after a death starts another."""

    def __init__(
        self,
        hello: Hello,
        start: Start | None = None,
        listen: Callable[[bytes], None] | None = None,
    ) -> None:
        """`start`: by default a program of its own. `listen` is told what the worker writes, which
        also goes to our own standard error."""
        self._hello = hello
        self._start = start or Fresh(WORKER_COMMAND, environment(os.environ))
        self._listen = listen
        self._process: Process | None = None
        self._hearing: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()
        self._is_closed = False

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    async def preload(self) -> None:
        """Have the app loaded before the first order comes; trouble shows with that order."""
        with suppress(WorkerDied, Refused):
            async with self._turn:
                await self._ready()

    async def run(self, request: Request, look: Callable[[], Left] = Left) -> Result:
        """Run the app on one order; a worker that dies is started again, a few times.

        `look` says after a death what it has left: a result ends the matter, and deaths are
        counted from the last one after which there was more progress than before.

        Raises:
            Refused: the app failed, or took its worker down too often.
        """
        deaths, furthest = 0, -1
        async with self._turn:
            while deaths < MOST_DEATHS and not self._is_closed:
                try:
                    process = await self._ready()
                    answer = await self._ask(process, request.line())
                    return _result(answer)
                except WorkerDied as error:
                    await self._end()
                    left = look()
                    deaths = 1 if left.progress > furthest else deaths + 1
                    furthest = max(furthest, left.progress)
                    logger.warning("worker died (%d of %d): %s", deaths, MOST_DEATHS, error)
                    if left.result is not None:
                        return left.result
                except asyncio.CancelledError:
                    await self._end()  # its late answer must not meet the next order
                    raise
            times = "is closed" if self._is_closed else f"died {MOST_DEATHS} times on this order"
            raise Refused("worker-died", f"the worker {times}")

    async def close(self) -> None:
        """Kill the worker and all it started; whoever waits for it is told that it died.

        No other is started after it.
        """
        self._is_closed = True
        await self._end()

    async def _ready(self) -> Process:
        if self._process is not None and self._process.returncode is None:
            return self._process
        await self._end()  # of one that died by itself: something it started may hold its pipes
        try:
            self._process = process = await self._start(self._hello.app)
        except ConnectionError as error:
            raise WorkerDied(str(error)) from error
        self._hearing = asyncio.create_task(self._hear(process.stderr))
        if self._is_closed:  # by somebody else, while the process started
            await self._end()
            raise Refused("worker-died", "the worker is closed")
        try:
            answer = await self._ask(process, self._hello.line())
        except asyncio.CancelledError:
            await self._end()
            raise
        if isinstance(answer, AppFailed):
            await self._end()
            raise Refused("app-failed", f"the app could not be loaded\n{answer.trace}")
        return process

    async def _ask(self, process: Process, line: bytes) -> Ready | Result | AppFailed:
        try:
            process.stdin.write(line)
            await process.stdin.drain()
            answered = await process.stdout.readline()
            if answered:
                return _ANSWERS.validate_json(answered)
            raise EOFError
        except (OSError, EOFError) as error:
            with suppress(TimeoutError):  # not `wait_for`, which may swallow a cancellation
                async with asyncio.timeout(1.0):
                    await process.wait()
            raise WorkerDied(_ending(process.returncode)) from error
        except ValueError as error:  # no line that ends, or one that is no answer
            raise WorkerDied("it said what no worker says") from error

    async def _hear(self, output: asyncio.StreamReader) -> None:
        """Read all that the worker writes, at once: it must never wait for us."""
        while piece := await output.read(PIECE):
            with suppress(OSError):  # the log may be on a full disk
                os.write(2, piece)
            if self._listen is not None:
                self._listen(piece)

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # it leads a group of its own
        try:
            await asyncio.shield(process.wait())
            if self._hearing is not None:
                await asyncio.wait({self._hearing}, timeout=HEAR_SECONDS)
        finally:  # also when we are told to stop meanwhile
            if self._hearing is not None:
                self._hearing.cancel()
            await process.close()


def _result(answer: Ready | Result | AppFailed) -> Result:
    match answer:
        case Result():
            return answer
        case AppFailed():
            raise Refused(answer.code, answer.trace)
        case Ready():
            raise WorkerDied("the worker said it is ready instead of answering")


def _ending(returncode: int | None) -> str:
    if returncode is None:
        return "it closed its pipe"
    if returncode < 0:
        return f"killed by {signal.Signals(-returncode).name}"
    return f"exit code {returncode}"
