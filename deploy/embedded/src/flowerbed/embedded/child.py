"""One process of the stack, kept running: started, watched, and started again when it dies.

waiting -> starting -> ready -> restarting -> starting -> ...            -> stopped

It outlives the supervisor. The next one goes on with it: it cannot be its parent, so it watches it.
"""

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from flowerbed.embedded.errors import ComponentFailed
from flowerbed.embedded.identity import ProcessId
from flowerbed.embedded.logfiles import open_log, tail
from flowerbed.embedded.probes import NotReady
from flowerbed.embedded.record import ComponentRecord, ComponentState, Kind

logger = logging.getLogger(__name__)

WATCH_EVERY, LOOKS_UNTIL_STUCK = 2.0, 3
FIRST_DELAY, LONGEST_DELAY, HEALTHY_AFTER = 0.2, 10.0, 30.0
ATTEMPTS_AT_START = 3


class Account(NamedTuple):
    uid: int
    gid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildSpec:
    """How to start a component, how to see that it is ready, how to end it."""

    name: str
    kind: Kind
    argv: tuple[str, ...]
    address: str
    probe: Callable[[int], None]
    """Given the pid; raises NotReady. Called in a thread."""
    log: Path
    directory: Path
    env: Mapping[str, str]
    before: Callable[[], None] = lambda: None
    """Called in a thread before each start."""
    stuck: Callable[[], str | None] | None = None
    """Called in a thread while it runs: why only another start helps, or None."""
    account: Account | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    stop_seconds: float = 10
    start_seconds: float = 60


class Child:
    def __init__(self, spec: ChildSpec, changed: Callable[[], None]) -> None:
        self.spec = spec
        self._changed = changed
        self._state: ComponentState = "waiting"
        self._id: ProcessId | None = None
        self._since: str | None = None
        self._restarts = 0
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._was_ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def record(self) -> ComponentRecord:
        return ComponentRecord(
            name=self.spec.name,
            kind=self.spec.kind,
            state=self._state,
            address=self.spec.address,
            process=self._id,
            since=self._since,
            restarts=self._restarts,
            stop_signal=self.spec.stop_signal.name,
            stop_seconds=self.spec.stop_seconds,
        )

    async def start(self) -> None:
        """Return when it is ready for the first time; from then on it is kept running.

        Raises:
            ComponentFailed: it ended several times, or was not ready in time.
        """
        self._task = asyncio.create_task(self._keep_running(), name=self.spec.name)
        await self._was_ready

    def resume(self, earlier: ComponentRecord) -> None:
        """Keep it running from where an earlier supervisor was: with its process, if that lives."""
        self._restarts = earlier.restarts
        if earlier.process is not None and earlier.process.is_alive():
            self._id, self._since, self._state = earlier.process, earlier.since, earlier.state
        self._was_ready.set_result(None)
        self._task = asyncio.create_task(self._keep_running(), name=self.spec.name)

    async def stop(self) -> None:
        """End it gracefully, or by force when that takes too long."""
        self._stopping.set()
        if self._id is not None:
            self._id.signal(self.spec.stop_signal)
        if self._task is not None:
            done, _ = await asyncio.wait({self._task}, timeout=self.spec.stop_seconds)
            if not done:
                logger.warning("%s did not end in %s s", self.spec.name, self.spec.stop_seconds)
                self._kill_group()
                await asyncio.wait({self._task}, timeout=5)
        self._become("stopped")

    async def _keep_running(self) -> None:
        delay = FIRST_DELAY
        while not self._stopping.is_set():
            started = time.monotonic()
            reason = await self._run_once()
            if self._stopping.is_set():
                break
            logger.warning("%s %s", self.spec.name, reason)
            self._restarts += 1
            if not self._was_ready.done() and self._restarts >= ATTEMPTS_AT_START:
                self._fail(reason)
                return
            if time.monotonic() - started > HEALTHY_AFTER:
                delay = FIRST_DELAY
            self._become("restarting")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), delay)
            delay = min(delay * 2, LONGEST_DELAY)
        if not self._was_ready.done():
            self._was_ready.cancel()

    async def _run_once(self) -> str:
        """Start it and wait until it ends; tell why it did."""
        try:
            ended = await self._spawn() if self._id is None else _watched(self._id)
        except OSError as error:
            return f"cannot be started: {error}"
        assert self._id is not None
        ready = asyncio.ensure_future(self._until_ready(self._id.pid))
        parts: set[asyncio.Future[int | None] | asyncio.Future[str | None]] = {ended, ready}
        await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
        late = None
        if not ended.done() and (late := ready.result()) is None:
            self._become("ready")
            if not self._was_ready.done():
                self._was_ready.set_result(None)
        elif late is not None:
            self._kill_group()
        watch = asyncio.ensure_future(self._watch())
        code = await ended
        ready.cancel()
        watch.cancel()
        self._kill_group()  # what it may have started and left behind
        self._id = None
        return late or _how_it_ended(code)

    async def _spawn(self) -> "asyncio.Future[int | None]":
        """Its exit code to come."""
        spec = self.spec
        user: dict[str, object] = {}
        if spec.account is not None:
            user = {"user": spec.account.uid, "group": spec.account.gid, "extra_groups": []}
        await asyncio.to_thread(spec.before)
        with open_log(spec.log) as log:
            process = await asyncio.create_subprocess_exec(
                *spec.argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=spec.directory,
                env=dict(spec.env),
                umask=0o077,
                process_group=0,
                **user,  # type: ignore[arg-type]  # typeshed wants them spelled out
            )
        self._id = ProcessId.of(process.pid) or ProcessId(process.pid, 0, "")  # it ended at once
        self._since = datetime.now(UTC).isoformat(timespec="seconds")
        self._become("starting")
        if self._stopping.is_set():  # since a moment ago: nobody has told this process
            self._id.signal(spec.stop_signal)
        return asyncio.ensure_future(process.wait())

    async def _until_ready(self, pid: int) -> str | None:
        """None once the probe is content; else what it saw last."""
        if self._state == "ready":  # an earlier supervisor has seen it
            return None
        deadline = time.monotonic() + self.spec.start_seconds
        pause = 0.01
        while True:
            try:
                await asyncio.to_thread(self.spec.probe, pid)
                return None
            except (NotReady, OSError, ValueError) as error:
                if time.monotonic() > deadline:
                    return f"was not ready after {self.spec.start_seconds:.0f} s: {error}"
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, 0.1)

    async def _watch(self) -> None:
        """End it where it runs and will never work again by itself."""
        n_looks = 0
        while self.spec.stuck is not None:
            await asyncio.sleep(WATCH_EVERY)
            try:
                reason = await asyncio.to_thread(self.spec.stuck)
            except (NotReady, OSError, ValueError):
                continue  # it does not answer: its end, or its start, is somebody else's to see
            n_looks = n_looks + 1 if reason is not None else 0
            if n_looks >= LOOKS_UNTIL_STUCK:
                logger.warning("%s is started again: %s", self.spec.name, reason)
                self._kill_group()
                return

    def _fail(self, reason: str) -> None:
        self._become("stopped")
        self._was_ready.set_exception(
            ComponentFailed(self.spec.name, reason, tail(self.spec.log, 15))
        )

    def _kill_group(self) -> None:
        if self._id is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._id.pid, signal.SIGKILL)

    def _become(self, state: ComponentState) -> None:
        self._state = state
        self._changed()


def _watched(process: ProcessId) -> "asyncio.Future[int | None]":
    """The end of a process that is not our child; its exit code is not ours to know."""
    return asyncio.ensure_future(_end_of(process))


async def _end_of(process: ProcessId) -> None:
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    loop, over = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(handle, over.set)
    try:
        if process.is_alive():
            await over.wait()
    finally:
        loop.remove_reader(handle)
        os.close(handle)


def _how_it_ended(code: int | None) -> str:
    if code is None:
        return "ended"
    if code >= 0:
        return f"ended with exit code {code}"
    return f"was killed by {signal.Signals(-code).name}"
