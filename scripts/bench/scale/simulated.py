"""One simulated runner: the agent's talk at the clients' door, without its processes and its data.

    enrol -> poll for leases ── verified ──> claim -> ask for work ── order ──> work -> report

What a runner says and checks is the runner's own code: enrolment, identity, door, keys, terms,
patience, transfers. Left out are the dataset's folder, the journal, and the app's process: an
update is the base with a little noise, an evaluation is the mean square of the base.
"""

import asyncio
import hashlib
import ssl
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Awaitable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from flowerbed.contracts.door import LeaseHeld, LeaseKey, LeaseOffer, WorkReport
from flowerbed.contracts.signed import Manifest, WorkOrder
from flowerbed.contracts.values import ArtifactRef, DatasetRef
from flowerbed.runner import agent, lease_work, transfer
from flowerbed.runner.door import ANSWER_SECONDS, LATE_SECONDS, Door
from flowerbed.runner.errors import LeaseLost, NotReachable, Refused, RunnerError
from flowerbed.runner.http import open_client
from flowerbed.runner.identity import Identity, IdentityStore
from flowerbed.runner.patience import patiently
from flowerbed.runner.state import StateDir
from flowerbed.runner.verify import KeyRing, Terms, check_offer, check_order, read_claims

T = TypeVar("T")
TASK = "synthetic"
STEP = np.float32(0.01)
N_EXAMPLES = 32


@dataclass(slots=True)
class Samples:
    """What all runners of a process have seen: seconds by kind of call, moments by kind of step."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    moments: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    failed: Counter[str] = field(default_factory=Counter)
    since: float = 0.0

    def add(self, name: str, began: float, seconds: float) -> None:
        """What began before all was forgotten does not count: it may have waited behind that."""
        if began >= self.since:
            self.seconds[name].append(seconds)

    async def timed(self, name: str, call: Awaitable[T]) -> T:
        began = time.perf_counter()
        try:
            return await call
        except RunnerError as error:
            self.failed[f"{name}: {type(error).__name__}"] += 1
            raise
        finally:
            self.add(name, began, time.perf_counter() - began)

    def happened(self, name: str) -> None:
        self.moments[name].append(time.time())


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What the runners of a process share.

    `trust`: for S3, whose addresses may be https. `beats`: with an explicit heartbeat in every
    interval, also where there is no work; an agent beats while it works, and asks for work
    otherwise.
    """

    samples: Samples
    trust: ssl.SSLContext
    beats: bool


class Runner:
    """Works until its task is cancelled. `leases`: those it holds."""

    def __init__(self, ground: Ground, state: StateDir, identity: Identity, chance: Random) -> None:
        context = IdentityStore(state).client_context(identity)
        self.leases: dict[LeaseKey, asyncio.Task[None]] = {}
        self.has_polled = False
        self._ground = ground
        self._samples = ground.samples
        self._state = state
        self._chance = chance
        self._door = Door(identity.client_url, lambda: open_client(context))
        self._store = open_client(ground.trust, timeout=transfer.TIMEOUT)
        self._keys = KeyRing(identity.jwks, self._door.jwks)
        name = identity.client_id
        self._terms = Terms(
            client_id=name,
            tenant=identity.tenant,
            dataset=DatasetRef(
                label=f"{TASK}-{uuid.uuid5(uuid.NAMESPACE_DNS, name)}",
                sha256=hashlib.sha256(name.encode()).hexdigest(),
            ),
            dataset_uri=f"local:{TASK}",
        )

    async def run(self) -> None:
        """As the agent's own loop: the first question shows that the door is there."""
        wait = 0.0
        try:
            while True:
                for offer in await self._polled(wait):
                    await self._consider(offer)
                self.has_polled = True
                wait = agent.POLL_SECONDS
        finally:
            for task in self.leases.values():
                task.cancel()
            await asyncio.gather(*self.leases.values(), return_exceptions=True)
            await self._door.close()
            await self._store.aclose()

    async def _polled(self, wait: float) -> tuple[LeaseOffer, ...]:
        async def ask() -> tuple[LeaseOffer, ...]:
            began = time.perf_counter()
            try:
                found = await self._door.poll(tuple(self.leases), wait)
            except NotReachable as error:
                self._samples.failed[f"lease poll: {error}"[:120]] += 1
                raise
            if not found.offers:
                late = time.perf_counter() - began - wait
                self._samples.add("lease poll, late" if wait else "first poll", began, late)
            return found.offers

        return await patiently(ask)

    async def _consider(self, offer: LeaseOffer) -> None:
        key = LeaseKey(lease_id=offer.lease_id, epoch=offer.epoch)
        self._samples.happened("offered")
        try:
            manifest = read_claims(offer.manifest, await self._keys.find(offer.manifest), Manifest)
            check_offer(manifest, offer, self._terms)
            held = await patiently(
                lambda: self._samples.timed("claim", self._door.claim(key, self._terms.dataset))
            )
        except RunnerError as error:
            self._samples.failed[f"offer: {error}"[:120]] += 1
            await asyncio.sleep(agent.PASSING_PAUSE)
            return
        self._samples.happened("claimed")
        self.leases[key] = asyncio.create_task(self._keep(key, manifest, held))

    async def _keep(self, key: LeaseKey, manifest: Manifest, held: LeaseHeld) -> None:
        """Ask for work until the lease is over."""
        every = held.heartbeat_seconds
        beating = None
        if self._ground.beats:
            beating = asyncio.create_task(self._beat(key, every, self._chance.random() * every))
        try:
            while True:
                order = await patiently(lambda: self._asked(key, every))
                if order is not None:
                    await self._work(key, manifest, order, every)
        except LeaseLost:
            self._samples.happened("lost")
        except RunnerError as error:
            self._samples.failed[f"lease: {error}"[:120]] += 1
        finally:
            if beating is not None:
                beating.cancel()
            del self.leases[key]

    async def _asked(self, key: LeaseKey, every: float) -> str | None:
        """One long poll for work, with the agent's own patience."""
        wait = min(lease_work.POLL_SECONDS, max(1.0, every))
        late = min(LATE_SECONDS, max(lease_work.SHORTEST_PATIENCE, every))
        began = time.perf_counter()
        try:
            offer = await self._door.next_work(key, wait, late)
        except NotReachable as error:
            self._samples.failed[f"work poll: {error}"[:120]] += 1
            raise
        if offer.order is None:
            self._samples.add("work poll, late", began, time.perf_counter() - began - wait)
        return offer.order

    async def _beat(self, key: LeaseKey, every: float, first: float) -> None:
        """Heartbeats for as long as the lease is held, as an agent sends them while it works."""
        within = max(lease_work.SHORTEST_PATIENCE, min(ANSWER_SECONDS, every))
        await asyncio.sleep(first)
        while True:
            try:
                await patiently(
                    lambda: self._samples.timed("heartbeat", self._door.heartbeat(key, within))
                )
            except RunnerError:  # counted; the question for work hears of it too
                return
            await asyncio.sleep(every)

    # --- work ---------------------------------------------------------------

    async def _work(self, key: LeaseKey, manifest: Manifest, token: str, every: float) -> None:
        beating = asyncio.create_task(self._beat(key, every, every))
        try:
            order = read_claims(token, await self._keys.find(token), WorkOrder)
            check_order(order, manifest, self._terms)
            self._samples.happened(f"{order.exchange}: ordered")
            report = await self._done(order)
            await patiently(
                lambda: self._samples.timed("report", self._door.report(key, order.work_id, report))
            )
            self._samples.happened(f"{order.exchange}: reported")
        except Refused as refusal:
            self._samples.failed[f"work: {refusal.code}"] += 1
        finally:
            beating.cancel()

    async def _done(self, order: WorkOrder) -> WorkReport:
        store, url = self._store, order.download.url
        folder = self._state.bases(order.lease_id)
        base = await patiently(
            lambda: self._samples.timed(
                "download", transfer.download(store, url, order.base, folder)
            ),
            until=order.exp,
        )
        if order.upload is None:
            metrics = {"mean-square": _mean_square(base)}
            artifact = None
        else:
            metrics = {}
            artifact = await self._uploaded(order, base)
        return WorkReport(
            epoch=order.lease_epoch, artifact=artifact, n_examples=N_EXAMPLES, metrics=metrics
        )

    async def _uploaded(self, order: WorkOrder, base: Path) -> ArtifactRef:
        target = order.upload
        assert target is not None
        path = self._state.results / f"{order.round_number}-{order.attempt}.safetensors"
        save_file(_moved(base, order.seed), path)
        content = path.read_bytes()
        await patiently(
            lambda: self._samples.timed("upload", transfer.upload(self._store, target, path)),
            until=order.exp,
        )
        path.unlink()
        self._samples.happened("train: uploaded")
        return ArtifactRef(
            uri=target.uri, sha256=hashlib.sha256(content).hexdigest(), size=len(content)
        )


def _moved(base: Path, seed: int) -> dict[str, NDArray[np.float32]]:
    """The base's tensors, each weight a small seeded step away."""
    noise = np.random.default_rng(seed)
    return {
        name: weights + STEP * noise.standard_normal(weights.shape, np.float32)
        for name, weights in load_file(base).items()
    }


def _mean_square(base: Path) -> float:
    tensors = load_file(base).values()
    squares = sum(float(np.square(one).sum()) for one in tensors)
    return squares / sum(one.size for one in tensors)
