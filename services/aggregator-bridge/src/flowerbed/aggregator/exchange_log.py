"""A stream as its worker sees it: the state, and commands recorded on top."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic

from flowerbed.aggregator import metrics
from flowerbed.aggregator.decider import ExchangeCommand, ExchangeEvent, ExchangeState, exchange
from flowerbed.contracts.aggregate import AggregateCompleted, AggregateFailed
from flowerbed.contracts.update import UpdateAccepted, UpdateQuarantined, UpdateRejected
from flowerbed.events.commands import E
from flowerbed.events.context import Context
from flowerbed.events.database import Database
from flowerbed.events.decider import C, Decider, S
from flowerbed.events.store import EventStore


@dataclass(slots=True)
class WorkerLog(Generic[S, C, E]):
    """Read once, then kept: the worker is the stream's only writer.

    Should another have written nevertheless, `record` raises Conflict and the worker starts over.
    """

    database: Database
    store: EventStore
    tenant: str
    stream: str
    decider: Decider[S, C, E]
    state: S = field(init=False)
    _version: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.state = self.decider.initial

    async def load(self) -> None:
        async with self.database.transaction(self.tenant) as tx:
            history = await self.store.read(tx, self.stream)
        self.state = self.decider.replay(recorded.event for recorded in history)
        self._version = len(history)

    async def record(self, commands: Sequence[tuple[C, Context]]) -> None:
        """Decide all commands and record what follows, in one transaction.

        Who is cancelled meanwhile does not know whether it is recorded: `load` before the next.
        """
        state, happened = self.state, list[E]()
        async with self.database.transaction(self.tenant) as tx:
            for command, context in commands:
                events = self.decider.decide(state, command)
                expected = self._version + len(happened)
                await self.store.append(tx, self.stream, events, expected=expected, context=context)
                for event in events:
                    state = self.decider.evolve(state, event)
                happened += events
        self.state = state
        self._version += len(happened)
        for event in happened:
            _count(event)


ExchangeLog = WorkerLog[ExchangeState, ExchangeCommand, ExchangeEvent]


def exchange_log(database: Database, store: EventStore, tenant: str, stream: str) -> ExchangeLog:
    return WorkerLog(database, store, tenant, stream, exchange)


def _count(event: object) -> None:
    match event:
        case UpdateAccepted():
            metrics.updates.labels(event.exchange, "accepted").inc()
            _count_bytes(event)
        case UpdateRejected() | UpdateQuarantined():
            # Not its code: a node's own words would be labels without end.
            metrics.updates.labels(event.exchange, "rejected").inc()
        case AggregateCompleted():
            metrics.aggregates.labels(event.exchange, "completed").inc()
        case AggregateFailed():
            metrics.aggregates.labels(event.exchange, metrics.outcomes(event.code)).inc()
        case _:
            pass


def _count_bytes(event: UpdateAccepted) -> None:
    if event.artifact is None:
        return
    form, size = event.form or "full", event.artifact.size
    metrics.update_bytes.labels(form).inc(size)
    if event.full_size is not None:
        metrics.update_bytes_saved.labels(form).inc(max(0, event.full_size - size))
