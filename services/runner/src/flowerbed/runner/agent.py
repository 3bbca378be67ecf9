"""The agent: polls for leases, checks what they say, and has each worked on by a task of its own.

    poll -> verify -> claim -> LeaseWork ... lost, refused, crashed -> poll

It never opens a port: everything is asked for over mTLS. It imports neither torch nor flwr.
"""

import asyncio
import logging
import math
import shutil
import time
from collections.abc import Coroutine
from functools import partial
from typing import Any

from flowerbed.contracts.door import LeaseKey, LeaseOffer
from flowerbed.contracts.signed import Manifest
from flowerbed.runner.errors import (
    DoorRefused,
    LeaseLost,
    NotAdmitted,
    NotReachable,
    Refused,
    RunnerError,
)
from flowerbed.runner.identity import IdentityStore
from flowerbed.runner.lease_work import LeaseWork
from flowerbed.runner.node_work import NodeWork, node_key
from flowerbed.runner.patience import patiently
from flowerbed.runner.renewal import keep_renewed
from flowerbed.runner.site import MAY_PASS, Site
from flowerbed.runner.site_app import forget_unpacked, site_app
from flowerbed.runner.site_policy import is_policy
from flowerbed.runner.verify import check_offer, read_claims

logger = logging.getLogger(__name__)

POLL_SECONDS = 45.0
REFUSED_PAUSE = 60.0
"""How long a refused offer is left alone before it is looked at again."""
PASSING_PAUSE = 15.0
"""The same for what the site itself may put right at any moment."""
NOT_ADMITTED_PAUSE = 30.0
STOP_SECONDS = 5.0
"""How long work under way may take to end once the agent was told to stop."""


class Agent:
    def __init__(self, site: Site, store: IdentityStore) -> None:
        self._site = site
        self._store = store
        self._leases: dict[LeaseKey, tuple[LeaseWork | NodeWork, asyncio.Task[None]]] = {}
        self._left_alone: dict[LeaseKey, float] = {}
        self._declined: dict[LeaseKey, str] = {}

    async def run(
        self, stop: asyncio.Event, release: asyncio.Event, *beside: Coroutine[Any, Any, None]
    ) -> None:
        """Work until `stop` is set; abandons what does not end within a few seconds.

        What else runs for as long as the agent works comes as `beside`.

        With `release` set as well, leases are given back instead of left to run out.

        Raises:
            BadInput: the certificate ran out while nobody answered: a new invite is needed.
        """
        polling = asyncio.create_task(self._poll_for_ever())
        renewing = asyncio.create_task(keep_renewed(self._site, self._store))
        stopping = asyncio.create_task(stop.wait())
        tasks = (polling, renewing, stopping, *map(asyncio.create_task, beside))
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            self._site.board.enter("stopping")
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            held = list(self._leases)
            await self._end_leases()
            if release.is_set():
                await self._release(held)

    async def _release(self, held: list[LeaseKey]) -> None:
        for key in held:
            try:
                call = self._site.door.release(key, "the site stopped")
                await asyncio.wait_for(call, STOP_SECONDS)
            except (RunnerError, TimeoutError) as error:
                logger.warning("lease %s is not released: %s", key.lease_id, error)

    async def _poll_for_ever(self) -> None:
        board = self._site.board
        wait = 0.0  # the first answer shows that the door is there
        while True:
            try:
                known = tuple({*self._leases, *self._alone_now()})
                wait = min(wait, self._soonest_look())
                offers = await patiently(lambda: self._poll(known, wait), on_wait=self._away)  # noqa: B023
            except (NotAdmitted, DoorRefused) as error:
                board.enter("not-admitted")
                board.error(str(error))
                logger.warning("not admitted: %s", error)
                await asyncio.sleep(NOT_ADMITTED_PAUSE)
                continue
            board.enter("polling")
            for offer in offers:
                await self._consider(offer)
            wait = POLL_SECONDS

    async def _poll(self, known: tuple[LeaseKey, ...], wait: float) -> tuple[LeaseOffer, ...]:
        return (await self._site.door.poll(known, wait)).offers

    def _away(self, error: NotReachable) -> None:
        if self._site.board.status.phase != "not-reachable":
            self._site.board.enter("not-reachable")
            self._site.board.error(str(error))

    def _alone_now(self) -> list[LeaseKey]:
        now = time.monotonic()
        self._left_alone = {key: at for key, at in self._left_alone.items() if at > now}
        return list(self._left_alone)

    def _soonest_look(self) -> float:
        """Seconds until an offer that was left alone may be looked at again."""
        soonest = min(self._left_alone.values(), default=math.inf)
        return max(1.0, soonest - time.monotonic())

    async def _consider(self, offer: LeaseOffer) -> None:
        """Claim what this site admits; leave the rest alone for a while."""
        key = LeaseKey(lease_id=offer.lease_id, epoch=offer.epoch)
        if key in self._leases:
            return
        try:
            work = await self._claimed(key, offer)
        except Refused as refusal:
            await self._decline(key, refusal)
        except (DoorRefused, NotAdmitted) as error:
            self._leave_alone(key, f"lease {key.lease_id} is not claimed: {error}")
        except LeaseLost as error:
            logger.info("lease %s was gone before it was claimed: %s", key.lease_id, error)
        else:
            self._declined.pop(key, None)
            await self._begin(work)

    async def _decline(self, key: LeaseKey, refusal: Refused) -> None:
        """Leave the offer alone for a while, and say why: once for each reason."""
        reason = f"lease {key.lease_id} is not claimed: {refusal.in_full}"
        passes = refusal.code in MAY_PASS or is_policy(refusal.code)
        self._leave_alone(key, reason, PASSING_PAUSE if passes else REFUSED_PAUSE, refusal.code)
        if self._declined.get(key) == refusal.code:
            return
        detail = self._site.scrubbed(refusal.detail)
        try:
            await self._site.door.decline(key, refusal.code, detail)
        except RunnerError as error:
            logger.warning("nobody was told: %s", error)
        else:
            self._declined[key] = refusal.code

    async def _claimed(self, key: LeaseKey, offer: LeaseOffer) -> LeaseWork | NodeWork:
        signing_key = await patiently(lambda: self._site.keys.find(offer.manifest))
        manifest = read_claims(offer.manifest, signing_key, Manifest)
        self._site.spans.learn(manifest)
        with self._site.spans.of_lease("claim", manifest):
            terms = await self._site.ready()
            check_offer(manifest, offer, terms)
            self._site.policy().check_offer(manifest)
            node = node_key(self._site, manifest)
            app = await site_app(self._site.state, self._site.store, manifest)
            form = None if manifest.update is None else manifest.update.label
            try:
                self._site.policy().check_claims(manifest, app.bundle)
                claim = partial(self._site.door.claim, key, terms.dataset, form, node)
                held = await patiently(claim)
            except RunnerError:
                forget_unpacked(self._site.state, key)
                raise
        logger.info("claimed lease %s of %s", key.lease_id, manifest.federation_id)
        if node is not None:
            return NodeWork(self._site, manifest, held, app, terms.dataset)
        return LeaseWork(self._site, manifest, held, app)

    async def _begin(self, work: LeaseWork | NodeWork) -> None:
        for key, (_, older) in list(self._leases.items()):
            if key.lease_id == work.key.lease_id:
                older.cancel()
                await asyncio.gather(older, return_exceptions=True)
        self._site.held.add(work.key.lease_id)
        task = asyncio.create_task(self._work(work))
        self._leases[work.key] = (work, task)

    async def _work(self, work: LeaseWork | NodeWork) -> None:
        """The outermost place of a lease's work: whatever happens there ends only that lease."""
        key = work.key
        try:
            await work.run()
        except LeaseLost as error:
            logger.info("lease %s has ended: %s", key.lease_id, error)
        except RunnerError as error:
            self._leave_alone(key, f"lease {key.lease_id} stopped: {error}")
        except Exception as error:
            logger.exception("work under lease %s crashed", key.lease_id)
            self._leave_alone(key, f"lease {key.lease_id} crashed: {type(error).__name__}")
        finally:
            self._ended(key)

    def _ended(self, key: LeaseKey) -> None:
        del self._leases[key]
        self._site.held.discard(key.lease_id)
        self._site.board.drop(key.lease_id)
        shutil.rmtree(self._site.state.bases(key.lease_id), ignore_errors=True)
        forget_unpacked(self._site.state, key)
        self._site.tidy()

    def _leave_alone(
        self, key: LeaseKey, reason: str, pause: float = REFUSED_PAUSE, code: str | None = None
    ) -> None:
        logger.warning("%s", reason)
        self._left_alone[key] = time.monotonic() + pause
        self._site.board.error(reason, code)

    async def _end_leases(self) -> None:
        running = [task for _, task in self._leases.values()]
        for work, task in self._leases.values():
            work.is_stopping = True
            if not work.is_busy:
                task.cancel()
        if running:
            await asyncio.wait(running, timeout=STOP_SECONDS)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
