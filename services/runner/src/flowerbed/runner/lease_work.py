"""One lease, from its claim until it is lost or let go: asks for work, checks it, has it done."""

import asyncio
import logging
import sqlite3
import time

from flowerbed.contracts.door import LeaseHeld, LeaseKey, WorkFailure, WorkReport
from flowerbed.contracts.signed import Manifest, WorkOrder
from flowerbed.runner import storage
from flowerbed.runner.bench import Bench
from flowerbed.runner.door import ANSWER_SECONDS, LATE_SECONDS
from flowerbed.runner.errors import DoorRefused, NotAdmitted, Refused
from flowerbed.runner.log_lines import LogLines
from flowerbed.runner.patience import patiently, pause
from flowerbed.runner.site import MAY_PASS, Site
from flowerbed.runner.site_app import SiteApp
from flowerbed.runner.status import LeaseStatus
from flowerbed.runner.verify import check_order, read_claims, unverified_work_id

logger = logging.getLogger(__name__)

POLL_SECONDS = 45.0
NOT_ADMITTED_PAUSE = 30.0
TROUBLE_SECONDS = 60.0
"""How long the next order waits for the site to be put right, after one that failed for it."""
TROUBLE_STEP = 1.0
SHORTEST_PATIENCE = 3.0
"""Seconds for an answer. Otherwise it is the time between two heartbeats: a door that hangs must
be given up and found again before the lease has run out."""


class LeaseWork:
    def __init__(self, site: Site, manifest: Manifest, held: LeaseHeld, app: SiteApp) -> None:
        self.key = LeaseKey(lease_id=held.lease_id, epoch=held.epoch)
        self.is_busy = False
        self.is_stopping = False
        self._site = site
        self._manifest = manifest
        self._app = app
        self._lines = LogLines(
            lambda batch: site.door.log(self.key, batch),
            site.scrubber if site.hands_out_logs else None,
            held.epoch,
        )
        self._bench = Bench(site, manifest, app, self._lines.take)
        self._beat_seconds = held.heartbeat_seconds
        self._last_work_id = ""
        self._repeats = 0
        self._is_in_trouble = False

    async def run(self) -> None:
        """Work until told to stop.

        Raises:
            LeaseLost: the control plane says that the lease is over.
            DoorRefused: it does not let us ask for work.
        """
        self._show("waiting for work")
        preload = asyncio.create_task(self._bench.worker.preload())
        shipping = asyncio.create_task(self._lines.ship())
        try:
            while not self.is_stopping:
                await self._next()
        finally:
            preload.cancel()
            shipping.cancel()
            try:
                await asyncio.gather(preload, shipping, return_exceptions=True)
            finally:  # also when we are told to stop a second time meanwhile
                await self._close()

    async def _close(self) -> None:
        try:
            await self._bench.worker.close()
        finally:
            await self._lines.close()

    async def _next(self) -> None:
        # Asking is a heartbeat too, so one question must not outlast the time between two.
        wait = min(POLL_SECONDS, max(1.0, self._beat_seconds))
        try:
            late = min(LATE_SECONDS, max(SHORTEST_PATIENCE, self._beat_seconds))
            offer = await patiently(lambda: self._site.door.next_work(self.key, wait, late))
        except NotAdmitted as error:
            self._site.board.error(str(error))
            await asyncio.sleep(NOT_ADMITTED_PAUSE)
            return
        if offer.order is None:
            return
        self.is_busy = True
        try:
            await self._beating(offer.order)
        finally:
            self.is_busy = False
            self._lines.hurry()
            self._show("waiting for work")

    async def _beating(self, token: str) -> None:
        """Do the work, with heartbeats until it ends; a lost lease ends it."""
        work = asyncio.create_task(self._handle(token))
        beat = asyncio.create_task(self._beat())
        try:
            await asyncio.wait({work, beat}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (work, beat):
                task.cancel()
            outcomes = await asyncio.gather(work, beat, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self._beat_seconds)
            try:
                within = max(SHORTEST_PATIENCE, min(ANSWER_SECONDS, self._beat_seconds))
                held = await patiently(lambda: self._site.door.heartbeat(self.key, within))  # noqa: B023
                self._beat_seconds = held.heartbeat_seconds
            except NotAdmitted as error:
                self._site.board.error(str(error))

    async def _handle(self, token: str) -> None:
        work_id = unverified_work_id(token)
        await self._slow_down(work_id)
        try:
            await self._wait_out()
            order = await self._verified(token)
            self._show(f"{order.exchange} of round {order.round_number}")
            logger.info("%s: attempt %d begins", order.work_id, order.attempt)
            answered = await self._bench.answer(order)
        except Refused as refusal:
            await self._fail(work_id, refusal)
        except (OSError, sqlite3.Error) as error:
            logger.warning("the site could not do the work", exc_info=not storage.is_full(error))
            await self._fail(work_id, storage.refusal(error, self._site.state.root))
        else:
            if answered.is_from_journal:
                self._site.board.status.answered_from_journal += 1
            with self._site.spans.of_work("report", order):
                await self._report(order.work_id, answered.report)
            self._site.tidy()

    async def _slow_down(self, work_id: str | None) -> None:
        """An order that comes again and again is not settled by us: do not spin on it."""
        self._repeats = self._repeats + 1 if work_id == self._last_work_id else 0
        self._last_work_id = work_id or ""
        if self._repeats > 1 or work_id is None:
            await asyncio.sleep(pause(self._repeats + 2))

    async def _wait_out(self) -> None:
        """Give trouble that was told time to pass: told again at once for each new attempt, it
        would use the round's attempts up while somebody frees the disk."""
        end = time.monotonic() + TROUBLE_SECONDS
        while self._is_in_trouble and time.monotonic() < end:
            try:
                await self._site.ready()
            except Refused:
                await asyncio.sleep(TROUBLE_STEP)
            else:
                return

    async def _verified(self, token: str) -> WorkOrder:
        key = await patiently(lambda: self._site.keys.find(token))
        order = read_claims(token, key, WorkOrder)
        check_order(order, self._manifest, await self._site.terms())
        self._site.policy().check_claims(order, self._app.bundle)
        return order

    async def _report(self, work_id: str, report: WorkReport) -> None:
        board = self._site.board
        board.status.finished = self._site.journal.counts()
        try:
            await patiently(lambda: self._site.door.report(self.key, work_id, report))
        except (DoorRefused, NotAdmitted) as error:
            logger.warning("%s: the report was refused: %s", work_id, error)
            board.error(f"{work_id}: the report was refused: {error}")
            board.work(work_id, "report refused", report.train_seconds)
        else:
            self._is_in_trouble = False
            logger.info("%s: reported after %.2f s in the app", work_id, report.train_seconds)
            board.work(work_id, "reported", report.train_seconds)

    async def _fail(self, work_id: str | None, refusal: Refused) -> None:
        logger.warning("%s: %s", work_id or "an order without a name", refusal.in_full)
        board = self._site.board
        board.error(f"{work_id}: {refusal.in_full}", refusal.code)
        self._is_in_trouble = refusal.code in MAY_PASS
        if work_id is None:
            return
        board.work(work_id, refusal.code)
        detail = self._site.scrubbed(refusal.detail)
        failure = WorkFailure(epoch=self.key.epoch, code=refusal.code, detail=detail)
        try:
            await patiently(lambda: self._site.door.fail(self.key, work_id, failure))
        except (DoorRefused, NotAdmitted) as error:
            logger.warning("%s: the failure was not taken: %s", work_id, error)

    def _show(self, doing: str) -> None:
        self._site.board.lease(
            LeaseStatus(
                lease_id=self.key.lease_id,
                federation_id=self._manifest.federation_id,
                epoch=self.key.epoch,
                app=self._manifest.app,
                doing=doing,
            )
        )
