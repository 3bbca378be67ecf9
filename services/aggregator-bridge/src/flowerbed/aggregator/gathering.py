"""The worker of one training or evaluation exchange: judge what comes in, fold, close.

It keeps nothing that cannot be made again: after a crash the accepted updates are folded anew
from the log and S3, in the same order, and no client is asked for anything twice.

Once closed, what still comes in is refused as late, but only when no later exchange counts it.
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from flowerbed.aggregator import measured, metrics
from flowerbed.aggregator.aggregation import Aggregation
from flowerbed.aggregator.bridge import Bridge
from flowerbed.aggregator.decider import (
    Closed,
    CloseExchange,
    ExchangeCommand,
    FailExchange,
    RefuseLate,
    Result,
)
from flowerbed.aggregator.driven import evaluate
from flowerbed.aggregator.exchange_log import ExchangeLog
from flowerbed.aggregator.judging import Judge
from flowerbed.aggregator.kept import moments_before
from flowerbed.aggregator.projections.exchanges import Asked, standing
from flowerbed.aggregator.projections.submissions import Report
from flowerbed.aggregator.quorum import Missed, Ripe, Terms, Waiting, in_fold_order, judge
from flowerbed.aggregator.spool import Spool
from flowerbed.artifact.blobs import StoreAway
from flowerbed.contracts.strategies import TREES
from flowerbed.contracts.trace import of_exchange
from flowerbed.events.context import Context
from flowerbed.events.errors import Unavailable
from flowerbed.events.telemetry import exemplar, span
from flowerbed.events.wakeup import Wakeup

logger = logging.getLogger(__name__)

FIRST_WAIT, LAST_WAIT = 0.1, 5.0
SUPERSEDED = "superseded"
TOGETHER = 16
"""Reports judged before the next transaction and step of the fold."""


@dataclass(slots=True)
class Gathering:
    bridge: Bridge
    asked: Asked
    log: ExchangeLog
    folder: Path
    wakeup: Wakeup
    _judge: Judge | None = field(default=None, init=False)
    _aggregation: Aggregation | None = field(default=None, init=False)
    _folding: "asyncio.Task[None] | None" = field(default=None, init=False)

    async def run(self) -> None:
        """Until the exchange is closed, and what came in has its answer or may count later."""
        try:
            await self._run()
        finally:
            if self._folding is not None:
                self._folding.cancel()

    async def _run(self) -> None:
        await self.log.load()
        wait = FIRST_WAIT
        while True:
            at = self.bridge.clock()
            try:
                if await self._step(at):
                    return
                wait = FIRST_WAIT
            except Unavailable as error:
                logger.warning("%s waits: %s", self.terms.stream, error)
                if isinstance(error, StoreAway):
                    await self._give_up_on(error, at)
                await self.wakeup.wait(wait)
                wait = min(wait * 2, LAST_WAIT)

    @property
    def terms(self) -> Terms:
        return self.asked.terms

    @property
    def is_closed(self) -> bool:
        return isinstance(self.log.state, Closed)

    async def _step(self, at: datetime) -> bool:
        """Do what there is to do, then wait for more; True when all is done."""
        if self.is_closed:
            await self._refuse_late()
            return True
        has_heard_all = at < self.terms.deadline_at or self._is_past_grace(at)
        federation_id = self.terms.federation_id
        has_heard_all = has_heard_all or await self.bridge.has_heard_all(federation_id)
        if not await self._is_waited_for():
            await self._refuse_late()
            return True
        await self._answer(is_last_chance=self._is_past_grace(at))
        if not has_heard_all:
            await self.wakeup.wait(FIRST_WAIT)
            return False
        match judge(self.log.state.answers, self.terms, at):
            case Waiting(until=until):
                await self.wakeup.wait(max(0.0, (until - self.bridge.clock()).total_seconds()))
            case Missed():
                await self._record(CloseExchange(terms=self.terms, at=at))
            case Ripe():
                await self._finish(at)
        return False

    async def _is_waited_for(self) -> bool:
        """Hear what the orchestrator has said of the exchange since it started."""
        now = await standing(self.bridge.database, self.terms.stream)
        if now.replaced != self.asked.replaced:
            self.asked = replace(self.asked, replaced=now.replaced)
        if now.is_superseded:
            reason = "another exchange was started in its place"
            await self._record(FailExchange(terms=self.terms, code=SUPERSEDED, reason=reason))
        return not (now.is_ended or now.is_superseded)

    async def _refuse_late(self) -> None:
        """Answer the reports that came too late to count here or anywhere."""
        reports = await self.bridge.transport.late_reports(self.terms)
        if reports:
            await self.log.record([(self._refusal(report), report.context) for report in reports])

    def _refusal(self, report: Report) -> RefuseLate:
        event = report.event
        return RefuseLate(terms=self.terms, client_id=event.client_id, work_id=event.work_id)

    async def _answer(self, *, is_last_chance: bool) -> None:
        """Judge the reports that have no answer, up to the goal; fold as far as that is sure."""
        reports = await self.bridge.transport.reports(self.terms)
        judging = await self._prepare()
        await self._advance()
        for start in range(0, len(reports), TOGETHER):
            if len(self.log.state.answers.accepted) >= self.terms.goal:
                return
            await self._answer_some(judging, reports[start : start + TOGETHER], is_last_chance)
            await self._advance()

    async def _answer_some(
        self, judging: Judge, reports: Sequence[Report], is_last_chance: bool
    ) -> None:
        verdicts = await asyncio.gather(
            *(
                judging.judge(report, self.terms, is_last_chance=is_last_chance)
                for report in reports
            ),
            return_exceptions=True,
        )
        commands: list[tuple[ExchangeCommand, Context]] = []
        failures = []
        for report, verdict in zip(reports, verdicts, strict=True):
            if isinstance(verdict, BaseException):
                failures.append(verdict)
            else:
                commands.append((verdict, report.context))
        if commands:
            await self.log.record(commands)
        for failure in failures:
            raise failure

    async def _advance(self) -> None:
        """Fold what is sure while the next reports are fetched and judged."""
        if self._aggregation is not None:
            await self._folded()
            step = asyncio.to_thread(self._aggregation.advance, self.log.state.answers, self.terms)
            self._folding = asyncio.create_task(step)

    async def _folded(self) -> None:
        folding, self._folding = self._folding, None
        if folding is not None:
            await folding

    async def _prepare(self) -> Judge:
        """Fetch the base, once; an evaluation needs none."""
        if self._judge is None:
            update, whole = self.asked.spec.spec.update, None
            base, spool = None, Spool.of(self.bridge.blobs, self.folder, update)
            if self.terms.exchange == "train":
                assert self.asked.started is not None
                base = self.asked.started.base
                whole = self.asked.started.frozen or base
                moments = await moments_before(self.bridge, self.asked)
                path = await asyncio.to_thread(spool.base, base)
                self._aggregation = Aggregation(self.bridge, self.asked, spool, path, moments)
            to = self.asked.spec.spec.artifacts
            strategy = self.asked.spec.spec.strategy
            self._judge = Judge(
                bridge=self.bridge,
                spool=spool,
                base=base,
                prefix=f"s3://{to.bucket}/{to.prefix}/",
                form=None if update.is_full else update.label,
                full_size=None if whole is None else whole.size,
                holds_trees=strategy.name in TREES,
                weighs_by_entropy=strategy.weighting.entropy,
            )
        return self._judge

    async def _finish(self, at: datetime) -> None:
        result: Result | None = None
        if self._aggregation is not None:
            await self._folded()
            terms, number = self.terms, self.terms.round_number
            under = of_exchange(terms.federation_id, number, terms.attempt, terms.exchange)
            with span("fold updates", self.asked.context, under=under, round_num=number):
                answers, made = self.log.state.answers, self._aggregation
                await made.drive(in_fold_order(answers, terms))
                result = await asyncio.to_thread(made.finish, answers, terms)
                close = CloseExchange(terms=terms, at=at, result=result, metrics=made.metrics)
                await self._record(close)
            duration = metrics.aggregate_duration.labels(self.terms.exchange)
            duration.observe(self._aggregation.seconds, exemplar(under))
        else:
            said = await self._evaluated()
            await self._record(CloseExchange(terms=self.terms, at=at, metrics=said))
        await self._measure()

    async def _evaluated(self) -> dict[str, float] | None:
        """What a strategy of somebody's own makes of an evaluation."""
        if self.asked.spec.spec.strategy.custom is None:
            return None
        updates = in_fold_order(self.log.state.answers, self.terms)
        return await evaluate(self.bridge, self.asked, self.folder, updates)

    async def _measure(self) -> None:
        """Show what the sites have measured; nobody waits for it, and nothing hangs on it."""
        works = [update.work_id for update in self.log.state.answers.accepted.values()]
        try:
            async with self.bridge.database.read_all() as connection:
                found = measured.totals(await measured.reported(connection, works))
        except Unavailable as error:
            logger.info("%s is not measured: %s", self.terms.stream, error)
            return
        measured.show(found, self.asked.context.tenant, self.terms.exchange)

    async def _give_up_on(self, error: StoreAway, at: datetime) -> None:
        """Once the deadline and its grace are over, S3's absence ends the exchange.

        The step that failed must have begun after them: only such a one refuses the updates that
        cannot be fetched, and goes on without them.
        """
        if self.is_closed or not self._is_past_grace(at):
            return
        fail = FailExchange(terms=self.terms, code="store-unavailable", reason=str(error))
        try:
            await self._record(fail)
        except Unavailable as unavailable:
            logger.info("%s cannot be failed yet: %s", self.terms.stream, unavailable)

    async def _record(self, command: ExchangeCommand) -> None:
        await self.log.record([(command, self.asked.context)])

    def _is_past_grace(self, at: datetime) -> bool:
        return at >= self.terms.deadline_at + self.asked.grace
