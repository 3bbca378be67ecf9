"""The backbone's surroundings in memory: a database with transactions, a stream, a durable.

Every call may be told to fail, before or after its effect, as a crash or as a lost answer. The
relay, the consumer runtime and the dead letters that run against them are the real ones.
"""

import copy
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from flowerbed.events import dead_letters, intake
from flowerbed.events.errors import Unavailable
from flowerbed.events.message import MARK, Mark, Message
from flowerbed.events.outbox import Horizon, Window
from flowerbed.events.relay import Fenced, Tail
from flowerbed.events.subscription import Delivery

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


class Crash(BaseException):
    """The process dies here."""


@dataclass(slots=True)
class Faults:
    """What happens at the n-th call from now: nothing, or an error before or after its effect."""

    countdown: int = -1
    error: BaseException | None = None
    is_after: bool = False

    def arm(self, countdown: int, error: BaseException, is_after: bool) -> None:
        self.countdown, self.error, self.is_after = countdown, error, is_after

    def clear(self) -> None:
        self.countdown, self.error = -1, None

    @asynccontextmanager
    async def call(self) -> AsyncIterator[None]:
        is_due = self.countdown == 0
        self.countdown -= 1
        if is_due and self.error is not None and not self.is_after:
            raise self.error
        yield
        if is_due and self.error is not None and self.is_after:
            raise self.error


# --- the owner's database ---------------------------------------------------------------------


@dataclass(slots=True)
class Transaction:
    xid: int
    rows: list[dict[str, Any]] = field(default_factory=list)


class Store:
    """The table of events, with the visibility rules of Postgres."""

    def __init__(self, faults: Faults) -> None:
        self.faults = faults
        self.next_xid = 100
        self.next_gpos = 1
        self.open: list[Transaction] = []
        self.rows: list[dict[str, Any]] = []
        self.mark: tuple[Mark, int] | None = None

    def begin(self) -> Transaction:
        transaction = Transaction(self.next_xid)
        self.next_xid += 1
        self.open.append(transaction)
        return transaction

    def head(self, stream: str, within: Transaction) -> int | None:
        """The version to append behind; None if another transaction has the stream."""
        for other in self.open:
            if other is not within and any(row["stream"] == stream for row in other.rows):
                return None
        seen = [row["version"] for row in (*self.rows, *within.rows) if row["stream"] == stream]
        return max(seen, default=0)

    def append(self, transaction: Transaction, stream: str, federation: str) -> None:
        version = self.head(stream, transaction)
        if version is None:
            return
        row: dict[str, Any] = {"stream": stream, "federation": federation}
        seen = [one for one in (*self.rows, *transaction.rows) if related(one, row)]
        transaction.rows.append(
            {
                "federation": federation, "after": [str(one["id"]) for one in seen],
                "gpos": self.next_gpos, "xid": transaction.xid, "stream": stream,
                "version": version + 1, "id": UUID(int=self.next_gpos), "type": "fl.client.joined",
                "schema_version": 1, "tenant": "roses" if federation < "fed-2" else "tulips",
                "data": json.dumps({"litres": self.next_gpos}),
                "meta": json.dumps({"correlation_id": federation}), "recorded_at": NOON,
            }
        )  # fmt: skip
        self.next_gpos += 1

    def commit(self, transaction: Transaction) -> None:
        self.open.remove(transaction)
        self.rows.extend(transaction.rows)

    def abort(self, transaction: Transaction) -> None:
        self.open.remove(transaction)

    async def all_from(self, lo: int, limit: int) -> Window | None:
        async with self.faults.call():
            hi = min((one.xid for one in self.open), default=self.next_xid)
            rows = [row for row in self.rows if row["xid"] >= lo]
            if len(rows) >= limit or any(row["xid"] >= hi for row in rows):
                return None
            return Window(hi=hi, rows=sorted(rows, key=lambda row: int(row["gpos"])))

    async def horizon(self, lo: int) -> Horizon:
        async with self.faults.call():
            hi = min((one.xid for one in self.open), default=self.next_xid)
            while True:
                late = [row for row in self.rows if row["xid"] >= hi]
                window = [row for row in self.rows if lo <= row["xid"] < hi]
                early = [
                    row["xid"] for row in window if any(_follows(row, other) for other in late)
                ]
                if not early:
                    return Horizon(hi=hi, is_ready=bool(window), is_held=bool(late))
                hi = min(early)

    async def page(self, mark: Mark, limit: int) -> Sequence[Any]:
        async with self.faults.call():
            rows = [
                row
                for row in self.rows
                if mark.lo <= row["xid"] < mark.hi and row["gpos"] > mark.gpos
            ]
        return sorted(rows, key=lambda row: int(row["gpos"]))[:limit]

    async def saved(self, jetstream: str) -> tuple[Mark, int] | None:
        async with self.faults.call():
            return self.mark

    async def save(self, jetstream: str, mark: Mark, sequence: int) -> None:
        async with self.faults.call():
            self.mark = mark, sequence


def related(row: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whose order is kept: of one stream, or of one federation."""
    one_federation = row["federation"] == other["federation"] != "_"
    return one_federation or bool(row["stream"] == other["stream"])


def _follows(row: dict[str, Any], other: dict[str, Any]) -> bool:
    return related(row, other) and bool(row["gpos"] > other["gpos"])


# --- JetStream --------------------------------------------------------------------------------


class Stream:
    """A JetStream stream with one durable."""

    def __init__(self, faults: Faults) -> None:
        self.faults = faults
        self.messages: list[Message] = []
        self.has_last = True
        self.acknowledged: set[int] = set()

    async def tail(self, jetstream: str) -> Tail:
        async with self.faults.call():
            if not self.messages or not self.has_last:
                return Tail(len(self.messages), None)
            return Tail(len(self.messages), Mark.parse(self.messages[-1].headers[MARK]))

    async def publish(self, message: Message, expected: int) -> int:
        return await self.publish_batch([message], expected)

    async def publish_batch(self, messages: Sequence[Message], expected: int) -> int:
        async with self.faults.call():
            if expected != len(self.messages):
                raise Fenced(f"wrong last sequence {expected}")
            self.messages.extend(messages)
            self.has_last = True
        return len(self.messages)

    def session(self) -> "Session":
        return Session(self)


class Session:
    """What `Subscription` promises: from the oldest not acknowledged, in order, no gap."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        floor = 0
        while floor + 1 in stream.acknowledged:
            floor += 1
        self._next = floor + 1

    async def next_batch(self, limit: int) -> Sequence[Delivery]:
        async with self._stream.faults.call():
            batch: list[Delivery] = []
            while len(batch) < limit and self._next <= len(self._stream.messages):
                batch.append(
                    Delivery(
                        message=self._stream.messages[self._next - 1], sequence=self._next,
                        attempt=1, pending=0, token="",
                    )
                )  # fmt: skip
                self._next += 1
            return batch

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            async with self._stream.faults.call():
                self._stream.acknowledged.add(delivery.sequence)

    def interrupt(self) -> None:
        return None


# --- the consumer's database ------------------------------------------------------------------


@dataclass(slots=True)
class Tables:
    cursors: dict[str, int] = field(default_factory=dict)
    letters: list[dict[str, Any]] = field(default_factory=list)
    applied: list[tuple[str, int]] = field(default_factory=list)


class ConsumerDatabase:
    """Transactions over `Tables`; it knows the statements of the runtime and no others."""

    def __init__(self, faults: Faults) -> None:
        self.faults = faults
        self.tables = Tables()

    @asynccontextmanager
    async def transaction(self, tenant: str) -> AsyncIterator["ConsumerTx"]:
        tx = ConsumerTx(copy.deepcopy(self.tables), self.faults)
        yield tx
        async with self.faults.call():  # the commit: made, or made and not heard of, or not made
            self.tables = tx.tables

    @asynccontextmanager
    async def read_all(self) -> AsyncIterator["ConsumerTx"]:
        yield ConsumerTx(self.tables, self.faults)


class ConsumerTx:
    def __init__(self, tables: Tables, faults: Faults) -> None:
        self.tables = tables
        self._faults = faults

    async def fetch(self, query: str, *args: Any) -> list[dict[str, Any]]:
        async with self._faults.call():
            if query is intake._KNOWN:
                _, streams, lanes = args
                cursors = [
                    {"kind": "cursor", "name": stream, "version": self.tables.cursors[stream]}
                    for stream in streams
                    if stream in self.tables.cursors
                ]
                parked = {letter["lane"] for letter in self.tables.letters} & set(lanes)
                return cursors + [{"kind": "lane", "name": lane, "version": 0} for lane in parked]
            assert query.startswith("SELECT tenant FROM dead_letters"), query
            tenants = {
                letter["tenant"]: None
                for letter in self.tables.letters
                if letter["lane"] == args[1]
            }
            return [{"tenant": tenant} for tenant in tenants]

    async def fetchval(self, query: str, *args: Any) -> Any:
        async with self._faults.call():
            assert query.startswith("SELECT EXISTS (SELECT FROM dead_letters"), query
            return any(letter["lane"] == args[1] for letter in self.tables.letters)

    async def fetchrow(self, query: str, *args: Any) -> Any:
        async with self._faults.call():
            assert query is dead_letters._OLDEST
            lane = [letter for letter in self.tables.letters if letter["lane"] == args[1]]
            return lane[0] if lane else None

    async def execute(self, query: str, *args: Any) -> str:
        async with self._faults.call():
            if query is intake._MOVE:
                _, _, streams, versions, before = args
                moved = 0
                for stream, version, was in zip(streams, versions, before, strict=True):
                    if self.tables.cursors.get(stream, 0) == was:
                        self.tables.cursors[stream] = version
                        moved += 1
                return f"INSERT 0 {moved}"
            if query is dead_letters._PARK:
                names = (
                    "consumer", "lane", "tenant", "stream", "version", "event_id", "subject",
                    "headers", "data", "error", "attempts",
                )  # fmt: skip
                letter = dict(zip(names, args, strict=True))
                self.tables.letters.append(letter | {"id": letter["event_id"]})
            elif query.startswith("DELETE FROM dead_letters"):
                self.tables.letters = [one for one in self.tables.letters if one["id"] != args[0]]
            else:
                known = ("SELECT set_config", "SELECT pg_advisory_xact_lock", "UPDATE dead_letters")
                assert query.startswith(known), query
            return "SELECT 1"


AWAY = Unavailable("away")
