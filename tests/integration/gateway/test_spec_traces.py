"""Spans that events end, sent where specs say: a cursor a federation, whoever else is away."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest

from flowerbed.contracts.federation import FederationCreated
from flowerbed.contracts.problems import parse_spec
from flowerbed.contracts.telemetry import Telemetry, read_address
from flowerbed.events.recorded import Recorded
from flowerbed.events.store import EventStore
from flowerbed.gateway import MIGRATIONS
from flowerbed.gateway.consumers import codec
from flowerbed.gateway.projections import PROJECTIONS
from flowerbed.gateway.traces.specs import SpecTraces, remember, spec_traces
from tests.integration.gateway.story import FED, OTHER, TENANT, document, whole_story
from tests.support.collector import Collector, collector, orphans
from tests.support.servers import MakeDatabase, ServiceDatabase, eventually

STORE = EventStore(codec, PROJECTIONS)
NOBODY = "http://127.0.0.1:9"


@pytest.fixture
def theirs() -> Iterator[Collector]:
    with collector() as found:
        yield found


@pytest.fixture
def others() -> Iterator[Collector]:
    with collector() as found:
        yield found


@pytest.fixture
async def made(service_database: MakeDatabase) -> ServiceDatabase:
    return await service_database("gateway", [MIGRATIONS])


def traces(made: ServiceDatabase, *urls: str) -> SpecTraces:
    allowed = [read_address(url).origin for url in urls]
    found = spec_traces(made.database, STORE, allowed)
    found.settle_seconds = 0.0
    return found


async def tell(made: ServiceDatabase, to: Telemetry | None) -> None:
    """The whole story of a federation, ended just now, whose spec names that collector."""
    for one in whole_story().told:
        if one.context.tenant == TENANT:
            await _keep(made, _naming(one, to))
    await ended(made, "1 second")


async def another(made: ServiceDatabase, to: Telemetry) -> None:
    """A second federation of another tenant, created and no more."""
    created = next(one for one in whole_story().told if isinstance(one.event, FederationCreated))
    event = created.event.model_copy(update={"federation_id": "fed-other"})
    context = replace(created.context, tenant=OTHER, correlation_id="fed-other")
    told = replace(created, event=event, context=context, stream="federation-fed-other", id=uuid4())
    await _keep(made, _naming(told, to))


def _naming(one: Recorded[Any], to: Telemetry | None) -> Recorded[Any]:
    """With a spec that names the collector, if the event has one."""
    if not isinstance(one.event, FederationCreated):
        return one
    written = document()
    written["spec"]["telemetry"] = None if to is None else to.model_dump()
    spec = parse_spec(written).document()
    return replace(one, event=one.event.model_copy(update={"spec": spec}))


async def _keep(made: ServiceDatabase, one: Recorded[Any]) -> None:
    async with made.database.transaction(one.context.tenant) as tx:
        await STORE.record(tx, one)
        await remember(tx, one)


async def ended(made: ServiceDatabase, ago: str) -> None:
    async with made.database.transaction(TENANT) as tx:
        await tx.execute(f"UPDATE federations SET ended_at = now() - interval '{ago}'")


async def look(exporting: SpecTraces) -> None:
    """Once over all that is due, until what that began has ended."""
    with ThreadPoolExecutor(4) as pool:
        await exporting.look(pool)
        await asyncio.gather(*exporting._serving.values())


async def kept(made: ServiceDatabase) -> list[tuple[str, bool]]:
    async with made.database.read_all() as connection:
        rows = await connection.fetch(
            "SELECT federation_id, position > 0 AS moved FROM spec_traces"
        )
    return [(row["federation_id"], row["moved"]) for row in rows]


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
async def test_a_whole_federation_is_one_tree_where_its_spec_says(
    made: ServiceDatabase, theirs: Collector, protocol: Any
) -> None:
    url = theirs.grpc_url if protocol == "grpc" else theirs.http_url
    await tell(made, Telemetry(otlp_endpoint=url, otlp_protocol=protocol))
    await look(traces(made, url))
    spans = theirs.spans(FED)
    assert [one.name for one in spans if not one.parent] == ["federation"]
    assert orphans(spans) == [] and len(spans) > 10
    assert len(theirs.spans()) == len(spans), "each once"
    before = len(theirs.headers)
    await look(traces(made, url))
    assert len(theirs.headers) == before, "another process goes on at the cursor"


async def test_a_federation_that_names_none_is_sent_nowhere(
    made: ServiceDatabase, theirs: Collector
) -> None:
    await tell(made, None)
    await look(traces(made, theirs.http_url))
    assert (await kept(made), theirs.spans()) == ([], [])


async def test_what_is_not_allowed_any_more_is_not_sent(
    made: ServiceDatabase, theirs: Collector, others: Collector
) -> None:
    await tell(made, Telemetry(otlp_endpoint=theirs.http_url))
    await look(traces(made, others.http_url))
    assert (theirs.spans(), theirs.headers, await kept(made)) == ([], [], [(FED, False)])


async def test_one_that_is_away_holds_up_no_other_and_is_waited_for(
    made: ServiceDatabase, theirs: Collector, others: Collector
) -> None:
    theirs.is_away = True
    await tell(made, Telemetry(otlp_endpoint=theirs.http_url))
    await another(made, Telemetry(otlp_endpoint=others.http_url))
    exporting = traces(made, theirs.http_url, others.http_url)
    running = asyncio.create_task(exporting.run())
    try:
        await eventually(lambda: bool(others.spans()), "the other one has its spans")
        assert dict(await kept(made))[FED] is False
        await eventually(lambda: theirs.n_refused > 0, "it was asked")
        theirs.is_away = False
        await eventually(lambda: bool(theirs.spans()), "it has them when it is back", timeout=30)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert orphans(theirs.spans(FED)) == []
    assert {one.attributes["federation_id"] for one in others.spans()} == {"fed-other"}


async def test_what_is_over_is_forgotten(made: ServiceDatabase, theirs: Collector) -> None:
    await tell(made, Telemetry(otlp_endpoint=theirs.http_url))
    exporting = traces(made, theirs.http_url)
    await look(exporting)
    assert await kept(made) == [(FED, True)]
    await ended(made, "2 minutes")
    await look(exporting)
    assert await kept(made) == []


async def test_who_is_away_for_a_day_is_given_up(made: ServiceDatabase) -> None:
    await tell(made, Telemetry(otlp_endpoint=NOBODY))
    exporting = traces(made, NOBODY)
    await look(exporting)
    assert await kept(made) == [(FED, False)]
    await ended(made, "2 days")
    await look(traces(made, NOBODY))
    assert await kept(made) == []
