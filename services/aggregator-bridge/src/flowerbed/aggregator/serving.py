"""The worker of a whole ServerApp: runs its `main`, again after each crash, until it has ended.

bundle ──> process ── asks ──> GridCalls ──> journal, nodes
              ├── done ──> arrays and files stored ──> completed
              ├── raised, or not deterministic ──> failed
              └── gone ──> started again, at most `max_attempts` times without a new exchange
"""

import asyncio
import logging
import shutil
import time
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flowerbed.aggregator.aggregation import store_tensors
from flowerbed.aggregator.app_process import check_server_app
from flowerbed.aggregator.bridge import Bridge
from flowerbed.aggregator.exchange_log import WorkerLog
from flowerbed.aggregator.grid_calls import GridCalls, JournalLog, node_ids, patiently
from flowerbed.aggregator.journal import (
    CompleteApp,
    FailApp,
    JournalCommand,
    RestartApp,
    journal,
)
from flowerbed.aggregator.mailbox import Mailbox
from flowerbed.aggregator.projections.exchanges import Asked
from flowerbed.aggregator.replay import Difference, Replay
from flowerbed.aggregator.server_lines import ServerLines
from flowerbed.aggregator.server_process import ServerProcess, running
from flowerbed.artifact.blobs import hash_file
from flowerbed.contracts.bundle import Bundle, run_config
from flowerbed.contracts.ids import derive_seed
from flowerbed.contracts.policy import Budget
from flowerbed.contracts.server_app import ServerAppStarted, WrittenFile
from flowerbed.contracts.values import ArtifactRef
from flowerbed.events.wakeup import Wakeup
from flowerbed.flower_apps.grid_pipe import HINT, Done, Failed, Hello, Pull, Push

logger = logging.getLogger(__name__)

BACKOFF_SECONDS = 0.5
MOST_FILES = 100
LARGEST_FILES = 4 << 30
"""Bytes of all files together that an app leaves."""
LOOK_SECONDS = 1.0
LEAST_SILENCE = 600.0
"""Seconds for which `main` may compute, however short an exchange is: load data, evaluate."""


class Silent(Exception):
    """The app neither asks for anything nor ends."""


@dataclass(slots=True)
class Serving:
    bridge: Bridge
    asked: Asked
    serving: ServerAppStarted
    folder: Path
    wakeup: Wakeup
    log: JournalLog = field(init=False)
    _heard_at: float = field(default=0.0, init=False)
    _n_open: int = field(default=0, init=False)

    async def run(self) -> None:
        """Until the app has ended, one way or the other."""
        self.log = _journal_log(self.bridge, self.asked)
        await self.log.load()
        if self.log.state.is_closed:
            return
        app, bundle = await patiently(
            lambda: check_server_app(self.bridge, self.asked, self.folder)
        )
        lines = ServerLines(self.bridge.database, self.asked.context.tenant, self._id)
        mailbox = Mailbox(self.bridge, self._id, self.wakeup)
        hearing = asyncio.create_task(mailbox.run())
        shipping = asyncio.create_task(lines.ship())
        try:
            while not self.log.state.is_closed:
                await self._attempt(app, bundle, mailbox, lines)
        finally:
            hearing.cancel()
            shipping.cancel()
            await asyncio.gather(hearing, shipping, return_exceptions=True)
            with suppress(Exception):
                await lines.flush()

    @property
    def _id(self) -> str:
        return self.serving.federation_id

    async def _attempt(
        self, app: Path, bundle: Bundle, mailbox: Mailbox, lines: ServerLines
    ) -> None:
        """Run `main` once, from its beginning."""
        hello, replay = self._hello(app, bundle), Replay(list(self.log.state.entries))
        if hello.is_replayed:
            logger.info("main of %s is run again: %d facts", self._id, len(replay.entries))
        calls = GridCalls(
            self.bridge, self.asked, self.serving, self.log, replay, mailbox,
            Path(hello.inbox), Path(hello.outbox),
        )  # fmt: skip

        def take(line: str) -> None:
            if replay.is_over:  # what it said before was taken then
                lines.take(line)

        async with running(hello, take) as process:
            lines.say(f"main runs as process {process.pid}", is_ours=True)
            try:
                ended = await self._converse(process, calls)
            except Silent:
                limit = f"{self._silence:g} s"
                reason = f"main has not ended and has asked for nothing for {limit}"
                ended = Failed(code="app-failed", reason=reason)
            await patiently(self.log.load)  # of what was being recorded then no word has come
            match ended:
                case Done():
                    await self._complete(ended, replay, hello)
                case Failed():
                    await self._record(self._failed(ended.code, ended.reason))
                case None:
                    await self._died(await process.ended(), lines)

    def _hello(self, app: Path, bundle: Bundle) -> Hello:
        places = {}
        for name in ("inbox", "outbox", "work"):
            places[name] = (self.folder / name).absolute()
            shutil.rmtree(places[name], ignore_errors=True)
            places[name].mkdir()
        seed, entries = self.serving.seed, self.log.state.entries
        began = self.serving.deadline_at - self._budget.exchange
        return Hello(
            folder=str(app),
            server_app=bundle.server_app,
            run_config=run_config(bundle.config, self.asked.spec.spec.hyper_parameters),
            run_id=derive_seed(seed, "run"),
            node_ids=node_ids(self.serving),
            seed=seed,
            started_at=began.timestamp(),
            is_replayed=bool(entries),
            inbox=str(places["inbox"]),
            outbox=str(places["outbox"]),
            work=str(places["work"]),
        )

    # --- the conversation ---------------------------------------------------

    async def _converse(self, process: ServerProcess, calls: GridCalls) -> Done | Failed | None:
        """Answer what it asks until it ends; None where it is gone without a word."""
        self._heard_at, self._n_open = time.monotonic(), 0
        answering: set[asyncio.Task[None]] = set()
        watching = asyncio.create_task(self._watch())
        reading = asyncio.create_task(self._read(process, calls, answering))
        try:
            while True:
                tasks = {watching, reading, *answering}
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    if task is reading:
                        return reading.result()
                    task.result()
                    answering.discard(task)
        finally:
            for task in (watching, reading, *answering):
                task.cancel()
            await asyncio.gather(watching, reading, *answering, return_exceptions=True)

    async def _read(
        self, process: ServerProcess, calls: GridCalls, answering: set["asyncio.Task[None]"]
    ) -> Done | Failed | None:
        async for call in process.calls():
            if isinstance(call, Done | Failed):
                return call
            self._n_open += 1
            answering.add(asyncio.create_task(self._answer(process, calls, call)))
        return None

    async def _answer(self, process: ServerProcess, calls: GridCalls, call: Push | Pull) -> None:
        try:
            process.answer(await calls.answer(call))
        finally:
            self._n_open -= 1
            # An empty pull is no sign of life: an app may ask for nothing for ever.
            if isinstance(call, Push) or call.waits:
                self._heard_at = time.monotonic()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if self._n_open == 0 and time.monotonic() - self._heard_at > self._silence:
                raise Silent

    @property
    def _budget(self) -> Budget:
        return Budget.of(self.asked.spec.spec.round_policy)

    @property
    def _silence(self) -> float:
        return max(LEAST_SILENCE, self._budget.exchange.total_seconds())

    # --- ends ---------------------------------------------------------------

    async def _complete(self, done: Done, replay: Replay, hello: Hello) -> None:
        try:
            replay.end()
        except Difference as difference:
            reason = f"{difference.text}. {HINT}"
            await self._record(self._failed("not-deterministic", reason))
            return
        to = self.asked.spec.spec.artifacts
        arrays = Path(hello.outbox) / "arrays.safetensors"
        checkpoint = await patiently(
            _in_thread(store_tensors, self.bridge, to, arrays, done.sha256)
        )
        files = [await self._stored(path, hello) for path in _written(Path(hello.work))]
        await self._record(
            CompleteApp(
                federation_id=self._id,
                checkpoint=checkpoint,
                arrays_from=done.arrays_from,
                app=self.asked.created.code_hash,
                files=tuple(files),
                training=done.training,
                evaluation=done.evaluation,
                central=done.central,
            )
        )

    async def _stored(self, path: Path, hello: Hello) -> WrittenFile:
        to, sha256 = self.asked.spec.spec.artifacts, await asyncio.to_thread(hash_file, path)
        key = f"{to.prefix}/files/{sha256}"
        put = self.bridge.blobs.put_if_absent
        artifact: ArtifactRef = await patiently(_in_thread(put, to.bucket, key, path, sha256))
        return WrittenFile(name=str(path.relative_to(hello.work)), artifact=artifact)

    async def _died(self, how: str, lines: ServerLines) -> None:
        lines.say(f"main's process is gone: {how}", is_ours=True)
        state = self.log.state
        if state.n_restarts + 1 >= self.asked.spec.spec.round_policy.max_attempts:
            n = state.n_restarts + 1
            reason = f"its process ended {n} times without a new exchange, the last: {how}"
            await self._record(self._failed("server-app-crashed", reason))
            return
        await self._record(RestartApp(federation_id=self._id, reason=how))
        await asyncio.sleep(BACKOFF_SECONDS * 2**state.n_restarts)

    def _failed(self, code: str, reason: str) -> FailApp:
        return FailApp(federation_id=self._id, code=code, reason=reason)

    async def _record(self, command: JournalCommand) -> None:
        await patiently(lambda: self.log.record([(command, self.asked.context)]))


async def fail_serving(bridge: Bridge, asked: Asked, code: str, reason: str) -> None:
    """End it from outside."""
    log = _journal_log(bridge, asked)
    await log.load()
    federation_id = asked.terms.federation_id
    command = FailApp(federation_id=federation_id, code=code, reason=reason)
    await log.record([(command, asked.context)])


def _journal_log(bridge: Bridge, asked: Asked) -> JournalLog:
    tenant = asked.context.tenant
    return WorkerLog(bridge.database, bridge.store, tenant, asked.terms.stream, journal)


def _written(folder: Path) -> list[Path]:
    """The files that the app left, in order, as far as there is room for them."""
    found, room = list[Path](), LARGEST_FILES
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not path.is_file() or "__pycache__" in path.parts:
            continue
        room -= path.stat().st_size
        if room < 0 or len(found) == MOST_FILES:
            logger.warning("%s and what follows is not kept: too much", path.name)
            break
        found.append(path)
    return found


def _in_thread(call: Any, *arguments: Any) -> Any:
    def again() -> Coroutine[Any, Any, Any]:
        return asyncio.to_thread(call, *arguments)

    return again
