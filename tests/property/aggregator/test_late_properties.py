"""What always holds of the exchanges of one federation together, however late updates come.

The orchestrator's part is played here: what an aggregate owes is owed to the next round, for as
long as the policy wants, and an attempt that failed is done again with what was owed before.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from flowerbed.aggregator.decider import (
    AcceptUpdate,
    CloseExchange,
    ExchangeCommand,
    ExchangeEvent,
    RefuseLate,
    RejectUpdate,
    Result,
    exchange,
)
from flowerbed.aggregator.quorum import Ripe, Terms, Waiting, judge
from flowerbed.contracts.aggregate import AggregateCompleted, AggregateFailed
from flowerbed.contracts.round import OwedWork
from flowerbed.contracts.update import UpdateAccepted, UpdateRejected
from flowerbed.contracts.values import ArtifactRef

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
LATER = NOON + timedelta(minutes=1)
CLIENTS = ("a", "b", "c", "d", "e")
REF = ArtifactRef(uri="s3://b/k", sha256="0" * 64, size=1)


@dataclass(slots=True)
class Exchange:
    terms: Terms
    log: list[ExchangeEvent] = field(default_factory=list)

    def do(self, command: ExchangeCommand) -> None:
        self.log += exchange.decide(exchange.replay(self.log), command)

    @property
    def end(self) -> AggregateCompleted | AggregateFailed | None:
        ends = (e for e in self.log if isinstance(e, AggregateCompleted | AggregateFailed))
        return next(ends, None)

    @property
    def answered(self) -> list[str]:
        return [e.work_id for e in self.log if isinstance(e, UpdateAccepted | UpdateRejected)]


@dataclass(slots=True)
class Federation:
    goal: int
    n_required: int
    counts_late: bool
    max_staleness: int
    exchanges: list[Exchange] = field(default_factory=list)
    reported: dict[str, bool] = field(default_factory=dict)
    is_ended: bool = False

    def start(self, number: int, attempt: int, owed: tuple[OwedWork, ...]) -> None:
        busy = {one.client_id for one in owed}
        cohort = tuple(client for client in CLIENTS if client not in busy)
        goal = min(self.goal, len(cohort) + len(owed))
        terms = Terms(
            federation_id="fed",
            round_number=number,
            attempt=attempt,
            exchange="train",
            cohort=cohort,
            owed=owed,
            goal=goal,
            n_required=min(self.n_required, goal),
            deadline_at=NOON,
            counts_late=self.counts_late,
        )
        self.exchanges.append(Exchange(terms))

    @property
    def open(self) -> Exchange:
        return self.exchanges[-1]

    def outstanding(self) -> list[str]:
        """Work that was ordered and not reported."""
        works = [one.terms.work_of(c) for one in self.exchanges for c in one.terms.cohort]
        return [work for work in works if work not in self.reported]

    def own(self, work: str) -> Exchange:
        return next(
            one for one in self.exchanges
            if work in map(one.terms.work_of, one.terms.cohort)
        )  # fmt: skip

    def tend(self, at: datetime) -> None:
        """What the bridge does when it is woken."""
        now = self.open
        for work, is_good in self.reported.items():
            if work in now.terms.places and work not in self.own(work).answered:
                now.do(_judged(now.terms, work, is_good))
        answers = exchange.replay(now.log).answers
        verdict = judge(answers, now.terms, at)
        if not isinstance(verdict, Waiting):
            places = verdict.places if isinstance(verdict, Ripe) else ()
            now.do(CloseExchange(terms=now.terms, at=at, result=Result(
                places=places, checkpoint=REF)))  # fmt: skip
            self._go_on(now)
        self.refuse_late()

    def _go_on(self, closed: Exchange) -> None:
        terms, end = closed.terms, closed.end
        if isinstance(end, AggregateFailed):
            self.start(terms.round_number, terms.attempt + 1, terms.owed)
            return
        assert end is not None
        works = end.owing if self.counts_late else ()
        owed = (self._owed(work) for work in works)
        number = terms.round_number + 1
        self.start(
            number, 1,
            tuple(one for one in owed if number - one.round_number <= self.max_staleness),
        )  # fmt: skip

    def _owed(self, work: str) -> OwedWork:
        terms = self.own(work).terms
        return OwedWork(
            client_id=work.rsplit(".", 1)[1],
            work_id=work,
            round_number=terms.round_number,
            attempt=terms.attempt,
            base=REF,
        )

    def refuse_late(self) -> None:
        for work in self.reported:
            own = self.own(work)
            if not any(work in one.answered for one in self.exchanges) and self._is_certain(
                own, work
            ):
                own.do(RefuseLate(terms=own.terms, client_id="c", work_id=work))

    def _is_certain(self, own: Exchange, work: str) -> bool:
        """As the bridge's query says it."""
        if self.is_ended:
            return True
        if own.end is None:
            return False
        is_listed = work in [one.work_id for one in self.open.terms.owed]
        is_newest = self.open is own
        return (
            not own.terms.counts_late
            or isinstance(own.end, AggregateFailed)
            or not (is_newest or is_listed)
        )


def _judged(terms: Terms, work: str, is_good: bool) -> AcceptUpdate | RejectUpdate:
    client_id = work.rsplit(".", 1)[1]
    if not is_good:
        return RejectUpdate(
            terms=terms, client_id=client_id, work_id=work, code="not-finite", detail=""
        )
    return AcceptUpdate(
        terms=terms,
        client_id=client_id,
        work_id=work,
        artifact=REF,
        n_examples=1,
        metrics={},
        train_seconds=0.0,
        norm=None,
    )


def counted(federation: Federation) -> Iterator[str]:
    """The work in aggregates, each as often as it is in one."""
    for one in federation.exchanges:
        if isinstance(one.end, AggregateCompleted):
            folded = {update.place for update in one.end.updates}
            yield from (
                e.work_id for e in one.log if isinstance(e, UpdateAccepted) and e.place in folded
            )


Steps = st.lists(st.tuples(st.sampled_from(["good", "good", "bad", "time"]), st.integers(0, 99)),
                 max_size=40)  # fmt: skip


@settings(deadline=None)
@given(
    goal=st.integers(1, 5),
    quorum=st.integers(1, 5),
    counts_late=st.booleans(),
    max_staleness=st.integers(1, 3),
    steps=Steps,
)
def test_an_update_counts_at_most_once_and_each_report_is_answered_in_the_end(
    goal: int, quorum: int, counts_late: bool, max_staleness: int, steps: list[tuple[str, int]]
) -> None:
    fed = Federation(goal, min(goal, quorum), counts_late, max_staleness)
    fed.start(1, 1, ())
    for kind, which in steps:
        if kind == "time":
            fed.tend(LATER)
            continue
        outstanding = fed.outstanding()
        if outstanding:
            fed.reported[outstanding[which % len(outstanding)]] = kind == "good"
        fed.tend(NOON - timedelta(minutes=1))
    assert max(Counter(counted(fed)).values(), default=0) <= 1
    assert counts_late or not any(one.terms.owed for one in fed.exchanges)

    for work in fed.reported:  # without an answer only what may still count
        if not any(work in one.answered for one in fed.exchanges):
            may_count = {one.work_id for one in fed.open.terms.owed} | set(fed.open.terms.wanted)
            assert work in may_count

    fed.is_ended = True
    fed.refuse_late()
    given_by = [one for one in fed.exchanges if not isinstance(one.end, AggregateFailed)]
    answers = Counter(work for one in given_by for work in one.answered)
    assert max(answers.values(), default=0) <= 1
    everywhere = {work for one in fed.exchanges for work in one.answered}
    assert everywhere == set(fed.reported)
