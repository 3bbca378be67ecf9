"""The whole history is there as events, and every read model follows from it."""

from collections.abc import Sequence
from typing import Any

import asyncpg  # type: ignore[import-untyped]  # has no stubs
import pytest

from flowerbed.aggregator.projections.answers import answers
from flowerbed.aggregator.projections.outcomes import outcomes
from flowerbed.artifact.projections.artifacts import artifacts
from flowerbed.artifact.projections.channels import channels
from flowerbed.contracts.catalogue import EVENTS
from flowerbed.events.codec import Codec
from flowerbed.events.projection import Projection
from flowerbed.events.rebuild import rebuild
from flowerbed.events.store import EventStore
from flowerbed.gateway.projections import PROJECTIONS
from flowerbed.lease.projections.clients import clients
from flowerbed.lease.projections.leases import leases
from flowerbed.orchestrator.decider import federation
from flowerbed.orchestrator.projections.deadlines import deadlines
from flowerbed.orchestrator.state import Ended
from tests.e2e.documents import hospital
from tests.support.field import Field, until

READ_MODELS: dict[str, Sequence[Projection]] = {
    "orchestrator": [deadlines],
    "lease": [clients, leases],
    "aggregator": [answers, outcomes],
    "artifact": [artifacts, channels],
    "gateway": PROJECTIONS,
}


@pytest.fixture(scope="module")
def finished(field: Field) -> dict[str, Any]:
    return field.completed(field.submit(hospital(num_rounds=2)))


async def test_the_whole_history_is_there_as_events(field: Field, finished: dict[str, Any]) -> None:
    identity = finished["federation_id"]
    types = [one["type"] for one in await field.history("orchestrator", identity)]
    one_round = ["fl.round.started", "fl.round.evaluation_started", "fl.round.completed"]
    assert types == [
        "fl.federation.created",
        "fl.federation.started",
        *one_round,
        *one_round,
        "fl.federation.completed",
    ]
    aggregated = [one["type"] for one in await field.history("aggregator", identity)]
    assert aggregated.count("fl.aggregate.completed") == 1 + 2 * 2
    assert aggregated.count("fl.update.accepted") == 4 * 2 * 2
    recorded = [one["type"] for one in await field.history("artifact", identity)]
    assert recorded == ["fl.artifact.recorded"] * (1 + 2 * 2)
    leased = [one["type"] for one in await field.history("lease", identity)]
    for fact in ("lease_issued", "joined", "released"):
        assert leased.count(f"fl.client.{fact}") == 4


async def test_the_gateway_has_every_event_of_every_owner_once(
    field: Field, finished: dict[str, Any]
) -> None:
    identity = finished["federation_id"]
    owned = []
    for service in ("orchestrator", "lease", "aggregator", "artifact"):
        owned += [(e["stream"], e["version"]) for e in await field.history(service, identity)]
    copied = await field.history("gateway", identity)
    assert sorted(owned) == sorted((e["stream"], e["version"]) for e in copied)
    streams: dict[str, int] = {}
    for event in copied:  # in order within each stream
        assert event["version"] == streams.get(event["stream"], 0) + 1
        streams[event["stream"]] = event["version"]


async def test_a_federations_stream_replays_to_what_the_projection_says(
    field: Field, finished: dict[str, Any]
) -> None:
    codec = Codec(EVENTS)
    rows = await field.rows(
        "orchestrator",
        "SELECT type, schema_version, data FROM events WHERE stream = $1 ORDER BY version",
        f"federation-{finished['federation_id']}",
    )
    events: list[Any] = [codec.decode(r["type"], r["schema_version"], r["data"]) for r in rows]
    assert federation.replay(events) == Ended(outcome=finished["status"])
    assert events[-1].final.sha256 == finished["final"]["sha256"]


@pytest.mark.parametrize(
    ("service", "projection"),
    [(service, projection) for service, found in READ_MODELS.items() for projection in found],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
async def test_a_read_model_rebuilt_beside_the_live_one_is_equal_to_it(
    field: Field, finished: dict[str, Any], service: str, projection: Projection
) -> None:
    """On the running stack, through the code that an operator's rebuild takes."""
    assert finished["status"] == "completed"
    until(lambda: is_quiet(field), "everything is released and consumed")
    owner = await asyncpg.connect(field.stack.postgres_dsn(service, "owner"))
    try:
        before = await contents(owner, projection)
        await rebuild(owner, projection, EventStore(Codec(EVENTS)))
        assert await contents(owner, projection) == before
    finally:
        await owner.close()


def is_quiet(field: Field) -> bool:
    return all(
        one["status"] in ("completed", "failed", "cancelled", "rejected")
        for one in field.api.get("/federations", limit=500)["federations"]
    )


async def contents(owner: Any, projection: Projection) -> dict[str, list[str]]:
    return {
        table: [
            row[0] for row in await owner.fetch(f"SELECT t::text FROM {table} t ORDER BY t::text")
        ]
        for table in projection.tables
    }
