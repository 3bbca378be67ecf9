"""Whatever interleaves and whatever dies: applied once, in order per stream, none lost."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from flowerbed.events import dead_letters
from flowerbed.events.consumer import Consumer, Retry
from flowerbed.events.errors import Unavailable
from flowerbed.events.intake import Intake
from flowerbed.events.recorded import Recorded
from flowerbed.events.relay import Fenced, Progress, Relay
from tests.property.events.model import (
    AWAY,
    ConsumerDatabase,
    Crash,
    Faults,
    Session,
    Store,
    Stream,
    Transaction,
)
from tests.support.garden import Watered, codec

BEDS = {"bed-1": "fed-1", "bed-2": "fed-1", "bed-3": "fed-2", "bed-4": "_"}
LANES = ("fed-1", "fed-2", "bed-4")

faults = st.one_of(
    st.none(),
    st.tuples(st.integers(0, 12), st.sampled_from(["crash", "away"]), st.booleans()),
)


class Relaying(RuleBasedStateMachine):
    """Transactions that overlap, and two relays that both believe to be the leader."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.faults = Faults()
        self.store = Store(self.faults)
        self.stream = Stream(self.faults)
        self.relays = [self.new_relay(), self.new_relay()]
        self.may_repeat = False

    # --- writing ----------------------------------------------------------------------------

    @rule()
    def begin(self) -> None:
        if len(self.store.open) < 4:
            self.store.begin()

    @rule(place=st.integers(0, 3), stream=st.sampled_from(sorted(BEDS)))
    def append(self, place: int, stream: str) -> None:
        if not self.store.open:
            self.store.begin()
        self.store.append(self.transaction(place), stream, BEDS[stream])

    @precondition(lambda self: self.store.open)
    @rule(place=st.integers(0, 3))
    def commit(self, place: int) -> None:
        self.store.commit(self.transaction(place))

    @precondition(lambda self: self.store.open)
    @rule(place=st.integers(0, 3))
    def abort(self, place: int) -> None:
        self.store.abort(self.transaction(place))

    @rule(stream=st.sampled_from(sorted(BEDS)), count=st.integers(1, 7))
    def write(self, stream: str, count: int) -> None:
        transaction = self.store.begin()
        for _ in range(count):
            self.store.append(transaction, stream, BEDS[stream])
        self.store.commit(transaction)

    @rule(stream=st.sampled_from(sorted(BEDS)))
    def take_a_place_early(self, stream: str) -> None:
        """As a consumer does: it has its xid long before it records behind somebody else."""
        early, bystander = self.store.begin(), self.store.begin()
        self.write(stream, 1)
        self.store.append(early, stream, BEDS[stream])
        self.store.commit(early)
        if len(self.store.open) > 4:
            self.store.abort(bystander)

    # --- relaying ---------------------------------------------------------------------------

    @rule(which=st.integers(0, 1), fault=faults)
    def pump(self, which: int, fault: tuple[int, str, bool] | None) -> None:
        """Either relay; the one that is not the leader is refused and starts over."""
        relay = self.relays[which]
        try:
            self.run(relay.pump, fault)
        except (Crash, Fenced):
            self.relays[which] = self.new_relay()
        except Unavailable:
            relay.mark = None

    @rule(which=st.integers(0, 1), fault=faults)
    def save(self, which: int, fault: tuple[int, str, bool] | None) -> None:
        try:
            self.run(self.relays[which].save, fault)
        except (Crash, Unavailable):
            self.relays[which] = self.new_relay()

    @rule(which=st.integers(0, 1))
    def age_out(self, which: int) -> None:
        """The last message is gone; the sequence stays. The relay then starts again."""
        self.stream.has_last, self.may_repeat = False, True
        self.relays[which] = self.new_relay()

    # --- what must hold ---------------------------------------------------------------------

    @invariant()
    def relayed_in_order(self) -> None:
        """A repetition may follow an aged-out tail; a version never comes before its elder."""
        highest: dict[str, int] = {}
        for message in self.stream.messages:
            stream, version = message.headers["ce-subject"], int(message.headers["streamversion"])
            assert version <= highest.get(stream, 0) + 1, (stream, version, highest)
            highest[stream] = max(highest.get(stream, 0), version)

    @invariant()
    def relayed_behind_what_was_seen(self) -> None:
        """What a transaction saw of a stream or a federation goes before what it recorded."""
        places: dict[str, int] = {}
        for place, message in enumerate(self.stream.messages):
            places.setdefault(message.headers["ce-id"], place)
        for row in self.store.rows:
            own = places.get(str(row["id"]))
            if own is not None:
                assert all(places.get(seen, own) < own for seen in row["after"])

    @invariant()
    def relayed_is_committed_and_not_repeated(self) -> None:
        relayed = [message.headers["ce-id"] for message in self.stream.messages]
        assert set(relayed) <= {str(row["id"]) for row in self.store.rows}
        assert self.may_repeat or len(relayed) == len(set(relayed))

    def teardown(self) -> None:
        """Let everything that is still open end, and everything run without faults."""
        for transaction in list(self.store.open):
            self.store.commit(transaction)
        relay = self.new_relay()
        while self.run(relay.pump, None) is Progress.RELAYED:
            pass
        self.relayed_in_order()
        relayed = {message.headers["ce-id"] for message in self.stream.messages}
        assert relayed == {str(row["id"]) for row in self.store.rows}, "some are lost"
        self.loop.close()

    # --- helpers ----------------------------------------------------------------------------

    def transaction(self, place: int) -> Transaction:
        return self.store.open[place % len(self.store.open)]

    def new_relay(self) -> Relay:
        return Relay("lease", "FL_LEASE", self.store, self.stream, page=5, batch_above=2)

    def run(self, work: Callable[[], Awaitable[Any]], fault: tuple[int, str, bool] | None) -> Any:
        self.faults.clear()
        if fault is not None:
            countdown, kind, is_after = fault
            self.faults.arm(countdown, Crash() if kind == "crash" else AWAY, is_after)

        async def caught() -> Any:
            try:
                return await work(), None
            except Crash as crash:  # a loop does not let it pass as it is
                return None, crash

        value, crash = self.loop.run_until_complete(caught())
        self.faults.clear()
        if crash is not None:
            raise crash
        return value


class Backbone(Relaying):
    """And a consumer behind them, with a handler that fails now and then."""

    def __init__(self) -> None:
        super().__init__()
        self.database = ConsumerDatabase(self.faults)
        self.has_poison = False
        self.consumer = Consumer(
            "notes", "FL_LEASE", {Watered: self.apply}, codec, Retry(attempts=2, first=0.0)
        )
        self.intake = self.new_intake()
        self.session: Session | None = None

    @rule(limit=st.integers(1, 6), fault=faults)
    def consume(self, limit: int, fault: tuple[int, str, bool] | None) -> None:
        try:
            self.run(lambda: self.consume_batch(limit), fault)
        except Crash:
            self.session, self.intake = None, self.new_intake()
        except Unavailable:
            self.session = None

    @rule()
    def break_and_mend(self) -> None:
        """From now on a handler fails for one stream; or works again."""
        self.has_poison = not self.has_poison

    @rule(lane=st.sampled_from(LANES), fault=faults)
    def replay(self, lane: str, fault: tuple[int, str, bool] | None) -> None:
        try:
            self.run(lambda: self.replay_lane(lane), fault)
        except (Crash, Unavailable, RuntimeError):
            return

    @invariant()
    def applied_in_order_and_once(self) -> None:
        last: dict[str, int] = {}
        for stream, version in self.database.tables.applied:
            assert version == last.get(stream, 0) + 1, (stream, version, last)
            last[stream] = version

    def teardown(self) -> None:
        self.has_poison = False
        loop, self.loop = self.loop, asyncio.new_event_loop()
        super().teardown()
        self.loop = loop
        self.session = None
        while self.run(lambda: self.consume_batch(5), None):
            pass
        for lane in LANES:
            self.run(lambda at=lane: self.replay_lane(at), None)  # type: ignore[misc]
        self.applied_in_order_and_once()
        everything = {(row["stream"], row["version"]) for row in self.store.rows}
        assert set(self.database.tables.applied) == everything, "some are lost"
        assert self.database.tables.letters == []
        loop.close()

    def new_intake(self) -> Intake:
        return Intake("gateway", self.consumer, self.database, None)  # type: ignore[arg-type]

    async def consume_batch(self, limit: int) -> bool:
        if self.session is None:
            self.session = self.stream.session()
        batch = await self.session.next_batch(limit)
        if batch:
            await self.intake.process(self.session, batch)
        return bool(batch)

    async def replay_lane(self, lane: str) -> int:
        return await dead_letters.replay(self.database, self.consumer, lane)  # type: ignore[arg-type]

    async def apply(self, tx: Any, recorded: Recorded[Watered]) -> None:
        tx.tables.applied.append((recorded.stream, recorded.version))
        if self.has_poison and recorded.stream in ("bed-2", "bed-4"):
            raise RuntimeError("poison")


TestRelaying = Relaying.TestCase
TestRelaying.settings = settings(max_examples=150, stateful_step_count=35)
TestBackbone = Backbone.TestCase
TestBackbone.settings = settings(max_examples=80, stateful_step_count=35)
