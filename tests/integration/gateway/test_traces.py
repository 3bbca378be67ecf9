"""Spans that events end: exported from a cursor, whoever dies and whatever is away."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from flowerbed.contracts.trace import trace_id
from flowerbed.events.connection import Connection
from flowerbed.events.recorded import Recorded
from flowerbed.events.store import EventStore
from flowerbed.gateway import MIGRATIONS
from flowerbed.gateway.consumers import codec
from flowerbed.gateway.projections import PROJECTIONS
from flowerbed.gateway.traces import ended
from flowerbed.gateway.traces import making as module
from flowerbed.gateway.traces.export import TraceExport, trace_export
from flowerbed.gateway.traces.making import CollectorAway
from flowerbed.gateway.traces.milestone import Milestone
from tests.integration.gateway.story import CLIENTS, FED, TENANT, whole_story
from tests.support.collector import Collector, below, collector, orphans
from tests.support.servers import MakeDatabase, ServiceDatabase

STORE = EventStore(codec, PROJECTIONS)


@pytest.fixture
def receiver() -> Iterator[Collector]:
    with collector() as found:
        yield found


@pytest.fixture
async def made(service_database: MakeDatabase) -> ServiceDatabase:
    return await service_database("gateway", [MIGRATIONS])


def export(made: ServiceDatabase, receiver: Collector) -> TraceExport:
    found = trace_export(made.database, STORE, receiver.grpc_url, "grpc")
    found.settle_seconds = 0.0
    return found


async def tell(made: ServiceDatabase) -> None:
    async with made.database.transaction(TENANT) as tx:
        for one in whole_story().told:
            if one.context.tenant == TENANT:
                await STORE.record(tx, one)


async def all_of(traces: TraceExport) -> None:
    while await traces.step():
        pass


async def test_a_whole_federation_is_one_tree(made: ServiceDatabase, receiver: Collector) -> None:
    traces = export(made, receiver)
    assert await traces.step() == 0
    await tell(made)
    await all_of(traces)
    spans = receiver.spans(FED)
    assert {one.trace for one in spans} == {trace_id(FED)}
    assert orphans(spans) == []
    (root,) = [one for one in spans if not one.parent]
    assert (root.name, root.service, root.attributes["status"]) == (
        "federation", "flowerbed", "completed",
    )  # fmt: skip
    rounds = [one for one in below(spans, root) if one.name == "round"]
    places = [(one.attributes["round_num"], one.attributes["attempt"]) for one in rounds]
    assert places == [(1, 1), (1, 2), (2, 1)]
    assert [one.is_error for one in rounds] == [True, False, False]
    names = Counter(one.name for one in below(spans, rounds[2]))
    assert names == {"exchange train": 1, "artifact": 1, "exchange evaluate": 1}
    training = below(spans, rounds[2])[0]
    works = [one for one in below(spans, training) if one.name == "work"]
    assert {one.attributes["client_id"] for one in works} == set(CLIENTS)
    assert all(below(spans, one)[0].name == "screening" for one in works)


async def test_spans_wait_for_a_collector_that_is_away(
    made: ServiceDatabase, receiver: Collector
) -> None:
    traces = export(made, receiver)
    await traces.step()
    await tell(made)
    receiver.is_away = True
    with pytest.raises(CollectorAway):
        await all_of(traces)
    assert receiver.spans() == []
    receiver.is_away = False
    await all_of(export(made, receiver))  # another process goes on at the cursor
    spans = receiver.spans(FED)
    assert any(one.name == "federation" for one in spans) and orphans(spans) == []


async def test_what_happened_before_traces_were_wanted_is_left_alone(
    made: ServiceDatabase, receiver: Collector
) -> None:
    await tell(made)
    await all_of(export(made, receiver))
    assert receiver.spans() == []


async def test_an_event_that_breaks_the_export_costs_its_own_span_alone(
    made: ServiceDatabase, receiver: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    traces = export(made, receiver)
    await traces.step()
    await tell(made)

    async def broken(tx: Connection, recorded: Recorded[Any]) -> Sequence[Milestone]:
        if recorded.type == "fl.client.joined":
            raise ValueError("no such lease")
        return await ended.ended_by(tx, recorded)

    monkeypatch.setattr(module, "ended_by", broken)
    await all_of(traces)
    names = {one.name for one in receiver.spans(FED)}
    assert "federation" in names and "lease" not in names
