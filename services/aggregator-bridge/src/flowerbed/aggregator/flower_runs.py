"""A Flower run for each open federation over a SuperLink: started, watched, started again.

    none ── start ──> attempt 1 ── ended, or silent ──> attempt 2 ...      federation over: stopped

A run's ServerApp is a relay, and keeps nothing: the next one takes up the work that is open, at the
same round. It says that it lives by its beats, since Flower notices its death only after a minute.
"""

import asyncio
import logging
import shutil
import tempfile
import time
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import SecretStr

from flowerbed.aggregator.bridge import Bridge
from flowerbed.aggregator.projections.exchanges import open_federations
from flowerbed.aggregator.relay_works import FederationOver, LeaseWorks
from flowerbed.aggregator.run_fab import RUNTIME, run_fab
from flowerbed.contracts.federation import FederationCreated
from flowerbed.contracts.topology import partition
from flowerbed.events.errors import FlowerbedError, Unavailable
from flowerbed.events.logs import about

if TYPE_CHECKING:  # it loads Flower, which a bridge without a SuperLink has no need of
    from flowerbed.aggregator.superlink import FlowerRun, SuperLink

logger = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
FIRST_BEAT_SECONDS = 60.0
"""How long a ServerApp may take until it is heard for the first time: its process has to start."""
SILENT_SECONDS = 10.0
SWEEP_SECONDS = 5.0
NEWEST = 100
"""Runs that are looked through each time, whatever there ever were."""


@dataclass(slots=True)
class Beats:
    """When each ServerApp was last heard, by federation and attempt."""

    _heard: dict[tuple[str, int], float] = field(default_factory=dict)

    def hear(self, federation_id: str, attempt: int) -> None:
        self._heard[federation_id, attempt] = time.monotonic()

    def last(self, federation_id: str, attempt: int) -> float | None:
        return self._heard.get((federation_id, attempt))

    def forget(self, federation_id: str) -> None:
        for key in [key for key in self._heard if key[0] == federation_id]:
            del self._heard[key]


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowerRuns:
    """`lease_url`: of the replicas of the lease service, which know the SuperNodes' keys."""

    bridge: Bridge
    superlink: "SuperLink"
    lease_url: tuple[str, ...]
    token: SecretStr
    beats: Beats = field(default_factory=Beats)

    async def run(self, number: int) -> None:
        """Keep the runs of one partition, until cancelled."""
        kept: dict[str, asyncio.Task[None]] = {}
        try:
            while True:
                try:
                    self._look(kept, await self._open(number))
                except Unavailable as error:
                    logger.warning("federations cannot be looked for: %s", error)
                await asyncio.sleep(LOOK_SECONDS)
        finally:
            for task in kept.values():
                task.cancel()
            await asyncio.gather(*kept.values(), return_exceptions=True)

    async def sweep(self) -> None:
        """End, for ever, what is left of federations that are over."""
        seen: set[int] = set()
        while True:
            try:
                seen = await self._swept(seen)
            except Unavailable as error:
                logger.info("the SuperLink is not swept: %s", error)
            await asyncio.sleep(SWEEP_SECONDS)

    async def _open(self, number: int) -> dict[str, tuple[str, FederationCreated]]:
        found = await open_federations(self.bridge.database, RUNTIME)
        return {
            created.federation_id: (tenant, created)
            for tenant, created in found
            if partition(created.federation_id) == number
        }

    def _look(
        self,
        kept: dict[str, "asyncio.Task[None]"],
        found: dict[str, tuple[str, FederationCreated]],
    ) -> None:
        for federation_id, (tenant, created) in found.items():
            if federation_id not in kept:
                with about(federation_id):
                    kept[federation_id] = asyncio.create_task(self._keep(tenant, created))
        for federation_id in [one for one in kept if one not in found]:
            kept.pop(federation_id).cancel()
            self.beats.forget(federation_id)

    async def _keep(self, tenant: str, created: FederationCreated) -> None:
        works = LeaseWorks(self.lease_url, self.token, created.federation_id, tenant)
        one = OneRun(self, works, tenant, created)
        try:
            while True:
                try:
                    await one.look()
                except Unavailable as error:
                    logger.info("the Flower run waits: %s", error)
                except FederationOver:
                    return
                except FlowerbedError:
                    logger.exception("the Flower run cannot be kept")
                await asyncio.sleep(LOOK_SECONDS)
        finally:
            await works.close()

    async def _swept(self, seen: set[int]) -> set[int]:
        """A run ends by itself when its federation does: it is stopped if it is seen again."""
        found = await open_federations(self.bridge.database, RUNTIME)
        open_ids = {created.federation_id for _, created in found}

        def sweep() -> set[int]:
            link = self.superlink
            for node in link.nodes():
                if node.federation_id not in open_ids:
                    link.unregister(node.node_id)
            newest = islice(link.runs(), NEWEST)
            over = [one for one in newest if not one.ended and one.federation_id not in open_ids]
            for run in over:
                if run.run_id in seen:
                    link.stop(run.run_id)
            return {run.run_id for run in over}

        return await asyncio.to_thread(sweep)


@dataclass(slots=True)
class OneRun:
    """Of one federation, as far as this process knows it."""

    runs: FlowerRuns
    works: LeaseWorks
    tenant: str
    created: FederationCreated
    _fab: bytes | None = None
    _current: "FlowerRun | None" = None
    _since: float = 0.0

    async def look(self) -> None:
        """Let the SuperNodes of held leases in and no others; see that a run is on.

        Raises:
            Unavailable: the lease service, S3 or the SuperLink is away.
            FederationOver: there is nothing more to do.
        """
        nodes = (await self.works.nodes()).nodes
        keys = {node.lease_id: node.node_key for node in nodes}
        await asyncio.to_thread(self.runs.superlink.let_in, self.created.federation_id, keys)
        if nodes or self._current is not None:
            await self._see_to_run()

    async def _see_to_run(self) -> None:
        link, federation_id = self.runs.superlink, self.created.federation_id
        if self._current is None:
            newest = await asyncio.to_thread(link.newest, federation_id)
            self._follow(newest or await self._started(1))
            return
        run = await asyncio.to_thread(link.run, self._current.run_id)
        if run is None:  # another SuperLink, that knows nothing of it
            logger.warning("the SuperLink has forgotten run %d", self._current.run_id)
            self._current = None
        elif run.ended is not None:
            logger.warning("Flower run %d has ended, %s", run.run_id, run.ended)
            self._follow(await self._started(run.attempt + 1))
        elif self._is_silent(run):
            logger.warning("Flower run %d is silent: it is taken up in another", run.run_id)
            await asyncio.to_thread(link.stop, run.run_id)
            self._follow(await self._started(run.attempt + 1))

    def _is_silent(self, run: "FlowerRun") -> bool:
        last, now = self.runs.beats.last(run.federation_id, run.attempt), time.monotonic()
        if last is None or last < self._since:
            return now - self._since > FIRST_BEAT_SECONDS
        return now - last > SILENT_SECONDS

    def _follow(self, run: "FlowerRun") -> None:
        self._current, self._since = run, time.monotonic()

    async def _started(self, attempt: int) -> "FlowerRun":
        bridge, federation_id = self.runs.bridge, self.created.federation_id
        if self._fab is None:
            folder = Path(tempfile.mkdtemp(prefix="run-"))
            try:
                self._fab = await run_fab(bridge, self.tenant, self.created, folder)
            finally:
                shutil.rmtree(folder, ignore_errors=True)
        start = partial(self.runs.superlink.start, federation_id, self.tenant, attempt, self._fab)
        run = await asyncio.to_thread(start)
        logger.info("Flower run %d is attempt %d", run.run_id, run.attempt)
        return run
