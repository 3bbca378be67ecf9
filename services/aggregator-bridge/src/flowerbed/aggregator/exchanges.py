"""One worker task an open exchange: started, woken, dropped.

Consumers wake it by the exchange's stream once their transaction has committed. After a restart
the database says which exchanges are open. A look every few seconds finds what another replica's
consumers were told.
"""

import asyncio
import logging
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from flowerbed.aggregator.bridge import Bridge
from flowerbed.aggregator.decider import FailExchange
from flowerbed.aggregator.exchange_log import ExchangeLog, exchange_log
from flowerbed.aggregator.gathering import Gathering
from flowerbed.aggregator.initializing import Initializing
from flowerbed.aggregator.projections.exchanges import Asked, open_exchanges
from flowerbed.aggregator.serving import Serving, fail_serving
from flowerbed.contracts.topology import PARTITIONS, partition
from flowerbed.events.errors import Conflict, NotFound, Rejected, Unavailable
from flowerbed.events.logs import about
from flowerbed.events.wakeup import Wakeup

logger = logging.getLogger(__name__)

LOOK_SECONDS = 5.0
ATTEMPTS = 3
FIRST_WAIT = 0.5


@dataclass(slots=True)
class Worker:
    federation_id: str
    wakeup: Wakeup
    task: "asyncio.Task[None]"


@dataclass(slots=True)
class Exchanges:
    """Of one partition of the federations."""

    bridge: Bridge
    partition: int
    look_seconds: float = LOOK_SECONDS
    _workers: dict[str, Worker] = field(default_factory=dict)
    _woken: set[str] = field(default_factory=set)
    _wakeup: Wakeup = field(default_factory=Wakeup)
    _leads: bool = False
    _has_looked_back: bool = False

    @property
    def streams(self) -> list[str]:
        return sorted(self._workers)

    def wake(self, stream: str) -> None:
        """There may be something to do for this exchange."""
        if not self._leads:
            return  # whoever leads will look
        if stream in self._workers:
            self._workers[stream].wakeup.wake()  # should it end now, another look follows
            return
        self._woken.add(stream)
        self._wakeup.wake()

    def wake_workers(self, federation_id: str) -> None:
        """There may be something to do for any open exchange of the federation."""
        for worker in self._workers.values():
            if worker.federation_id == federation_id:
                worker.wakeup.wake()

    def drop(self, federation_id: str) -> None:
        """The federation has ended: nobody waits for its exchanges any more."""
        for worker in self._workers.values():
            if worker.federation_id == federation_id:
                worker.task.cancel()

    async def run(self) -> None:
        """Until cancelled. Only one replica does this at a time."""
        await asyncio.to_thread(_empty, self._spool)
        self._leads, is_woken = True, False
        self._has_looked_back = False
        try:
            while True:
                woken, self._woken = self._woken, set()
                try:
                    await self._look(sorted(woken) if is_woken else None)
                except Unavailable as error:  # those at work go on, or wait by themselves
                    logger.warning("exchanges cannot be looked for: %s", error)
                    await asyncio.sleep(FIRST_WAIT)
                    is_woken = False
                    continue
                is_woken = await self._wakeup.wait(self.look_seconds)
        finally:
            self._leads = False
            tasks = [worker.task for worker in self._workers.values()]
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks)

    async def _look(self, streams: list[str] | None) -> None:
        """Start what is open and has no worker; `streams` is None for all there are.

        Ended federations are looked through once; afterwards each of their reports wakes us.
        """
        with_ended = streams is not None or not self._has_looked_back
        found = await open_exchanges(self.bridge.database, streams, with_ended=with_ended)
        self._has_looked_back |= streams is None
        found = {stream: asked for stream, asked in found.items() if self._is_ours(asked)}
        for stream, asked in found.items():
            if stream not in self._workers:
                self._start(stream, asked)
        if streams is None:
            self._drop_all_but(found)

    def _is_ours(self, asked: Asked) -> bool:
        return partition(asked.terms.federation_id) == self.partition

    @property
    def _spool(self) -> Path:
        return self.bridge.spool / f"partition-{self.partition}"

    def _drop_all_but(self, found: Mapping[str, Asked]) -> None:
        for stream, worker in self._workers.items():
            if stream not in found:
                worker.task.cancel()

    def _start(self, stream: str, asked: Asked) -> None:
        wakeup = Wakeup()
        with about(asked.terms.federation_id):  # the task's own log lines from now on
            task = asyncio.create_task(self._tend(asked, wakeup), name=stream)
        self._workers[stream] = Worker(asked.terms.federation_id, wakeup, task)
        task.add_done_callback(partial(self._ended, stream))

    def _ended(self, stream: str, task: "asyncio.Task[None]") -> None:
        del self._workers[stream]
        if not task.cancelled() and task.exception() is not None:
            logger.warning("%s will be taken up again: %r", stream, task.exception())
        # Whatever came between its last look and its end is found by another look.
        self.wake(stream)

    async def _tend(self, asked: Asked, wakeup: Wakeup) -> None:
        """Run the exchange's worker; an error of ours fails this exchange, not the service."""
        stream = asked.terms.stream
        for attempt in range(1, ATTEMPTS + 1):
            try:
                await self._work(asked, wakeup)
                return
            except Conflict as conflict:
                logger.warning("%s starts over: %s", stream, conflict)
            except (Rejected, NotFound) as error:
                code = getattr(error, "code", "object-missing")
                logger.warning("%s fails with %s: %s", stream, code, error)
                await self._fail(asked, code, str(error))
                return
            except Exception as error:
                logger.exception("%s broke, attempt %d", stream, attempt)
                if attempt == ATTEMPTS:
                    await self._fail(asked, "internal-error", type(error).__name__)
            await asyncio.sleep(0.1 * attempt)

    async def _work(self, asked: Asked, wakeup: Wakeup) -> None:
        folder = self._spool / f"{asked.terms.stream}-{uuid.uuid4().hex[:8]}"
        folder.mkdir(parents=True)
        try:
            if asked.serving is not None:
                await Serving(self.bridge, asked, asked.serving, folder, wakeup).run()
            else:
                kind = Initializing if asked.started is None else Gathering
                await kind(self.bridge, asked, self._log(asked), folder, wakeup).run()
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    async def _fail(self, asked: Asked, code: str, reason: str) -> None:
        if asked.serving is not None:
            await fail_serving(self.bridge, asked, code, reason)
            return
        log = self._log(asked)
        await log.load()
        await log.record(
            [(FailExchange(terms=asked.terms, code=code, reason=reason), asked.context)]
        )

    def _log(self, asked: Asked) -> ExchangeLog:
        bridge = self.bridge
        tenant, stream = asked.context.tenant, asked.terms.stream
        return exchange_log(bridge.database, bridge.store, tenant, stream)


@dataclass(frozen=True, slots=True)
class AllExchanges:
    """Those of every partition; each partition is at work where it is led."""

    parts: tuple[Exchanges, ...]

    @classmethod
    def of(cls, bridge: Bridge) -> "AllExchanges":
        return cls(tuple(Exchanges(bridge, number) for number in range(PARTITIONS)))

    @property
    def streams(self) -> list[str]:
        return sorted(stream for part in self.parts for stream in part.streams)

    def wake(self, federation_id: str, stream: str) -> None:
        """There may be something to do for this exchange."""
        self.parts[partition(federation_id)].wake(stream)

    def wake_workers(self, federation_id: str) -> None:
        """There may be something to do for any open exchange of the federation."""
        self.parts[partition(federation_id)].wake_workers(federation_id)

    def drop(self, federation_id: str) -> None:
        """The federation has ended."""
        self.parts[partition(federation_id)].drop(federation_id)

    async def run(self, number: int) -> None:
        """One partition, until cancelled."""
        await self.parts[number].run()


def _empty(spool: Path) -> None:
    spool.mkdir(parents=True, exist_ok=True)
    for left_over in spool.iterdir():
        shutil.rmtree(left_over, ignore_errors=True)
