"""The checker finds nothing in whole evidence, and each kind of damage in its own column."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from flowerbed.contracts.topology import STREAMS, durables
from scripts.faults.checker import check
from scripts.faults.evidence import Evidence, PublishedEvent, Run, StoredEvent, TableDiff

FED = "fed-1"
EXCHANGE = f"exchange-{FED}-1-1-train"
SHA, OTHER = "a" * 64, "b" * 64
URI = f"s3://flowerbed/blobs/{SHA}"
ARTIFACT = {"uri": URI, "sha256": SHA, "size": 1}
OWNERS = tuple(stream.owner for stream in STREAMS)
Tamper = Callable[[Evidence], Evidence]


def accepted(client: str, place: int) -> dict[str, Any]:
    return {
        "client_id": client, "place": place, "artifact": ARTIFACT,
        "work_id": f"{FED}.1.1.train.{client}",
    }  # fmt: skip


def folded(*clients: str) -> dict[str, Any]:
    return {"updates": [{"client_id": one, "place": n} for n, one in enumerate(clients)]}


FACTS: dict[str, list[tuple[str, str, dict[str, Any]]]] = {
    "orchestrator": [
        (f"federation-{FED}", "fl.federation.created", {}),
        (f"federation-{FED}", "fl.round.started", {}),
        (f"federation-{FED}", "fl.federation.completed", {"final": {"sha256": SHA}}),
    ],
    "lease": [(f"lease-{FED}-one", "fl.client.joined", {})],
    "aggregator": [
        (EXCHANGE, "fl.update.accepted", accepted("one", 0)),
        (EXCHANGE, "fl.update.accepted", accepted("two", 1)),
        (EXCHANGE, "fl.aggregate.completed", folded("one", "two")),
    ],
    "artifact": [(f"lineage-{FED}", "fl.artifact.recorded", {"artifact": ARTIFACT})],
}


def stored(service: str) -> list[StoredEvent]:
    versions: dict[str, int] = {}
    found = []
    for place, (stream, event_type, data) in enumerate(FACTS[service], 1):
        versions[stream] = versions.get(stream, 0) + 1
        found.append(
            StoredEvent(
                place=place, stream=stream, version=versions[stream],
                id=f"{service}-{place}", type=event_type, federation_id=FED, data=data,
            )
        )  # fmt: skip
    return found


def published(event: StoredEvent) -> PublishedEvent:
    return PublishedEvent(
        place=event.place, stream=event.stream, version=event.version, id=event.id, type=event.type
    )


def cursors(stores: Mapping[str, list[StoredEvent]], service: str) -> dict[str, int]:
    owners = {stream.name: stream.owner for stream in STREAMS}
    return {
        event.stream: event.version
        for durable in durables(service)
        for event in stores[owners[durable.stream]]
        if event.type in durable.types
    }


@pytest.fixture
def whole() -> Evidence:
    stores = {service: stored(service) for service in OWNERS}
    every = [event for service in OWNERS for event in stores[service]]
    stores["gateway"] = [replace(event, place=n) for n, event in enumerate(every, 1)]
    return Evidence(
        stores=stores,
        jetstreams={s.name: [published(event) for event in stores[s.owner]] for s in STREAMS},
        cursors={service: cursors(stores, service) for service in (*OWNERS, "gateway")},
        deadlines=frozenset(),
        objects={URI: SHA},
        runs=[
            Run(site="one", work="w1", exchange="train", is_finished=True),
            Run(site="two", work="w1", exchange="train", is_finished=True),
            Run(site="two", work="w2", exchange="train", is_finished=False),
            Run(site="two", work="w2", exchange="train", is_finished=True),
        ],
        expected={FED: SHA},
    )


def found(evidence: Evidence) -> dict[str, list[str]]:
    return {column.name: list(column.findings) for column in check(evidence) if column.findings}


def changed(evidence: Evidence, service: str, n: int, **data: Any) -> Evidence:
    """The same with other data in one event."""
    events = list(evidence.stores[service])
    events[n] = replace(events[n], data={**events[n].data, **data})
    return replace(evidence, stores={**evidence.stores, service: events})


def without(evidence: Evidence, service: str, n: int) -> Evidence:
    events = [event for place, event in enumerate(evidence.stores[service]) if place != n]
    return replace(evidence, stores={**evidence.stores, service: events})


def with_messages(evidence: Evidence, jetstream: str, *order: int, **change: Any) -> Evidence:
    """The stream's messages in another order, or fewer, or twice; the first changed."""
    there = evidence.jetstreams[jetstream]
    messages = [replace(there[n], place=place) for place, n in enumerate(order, 1)]
    messages[0] = replace(messages[0], **change)
    return replace(evidence, jetstreams={**evidence.jetstreams, jetstream: messages})


def open_again(evidence: Evidence) -> Evidence:
    """Everybody has forgotten that the federation completed."""
    events = evidence.stores["orchestrator"][:-1]
    copies = [e for e in evidence.stores["gateway"] if e.type != "fl.federation.completed"]
    stores = {**evidence.stores, "orchestrator": events, "gateway": copies}
    fewer = with_messages(replace(evidence, stores=stores, expected={}), "FL_ORCHESTRATOR", 0, 1)
    applied = {
        service: cursors(stores, service)  # type: ignore[arg-type]  # lists they are
        for service in evidence.cursors
    }
    return replace(fewer, cursors=applied)


def test_whole_evidence_has_no_finding(whole: Evidence) -> None:
    assert found(whole) == {}


TAMPERED: list[tuple[str, Tamper, str]] = [
    ("accepted updates lost", lambda e: changed(e, "aggregator", 2, **folded("one")), "two"),
    ("accepted updates lost", lambda e: replace(e, objects={}), "is gone"),
    ("accepted updates lost", lambda e: replace(e, objects={URI: OTHER}), f"is {OTHER[:12]}"),
    (
        "counted twice",
        lambda e: changed(
            e,
            "aggregator",
            2,
            updates=[*folded("one", "two")["updates"], *folded("one")["updates"]],
        ),
        "2 times",
    ),
    (
        "counted twice",
        lambda e: changed(e, "aggregator", 1, work_id=f"{FED}.1.1.train.one"),
        "2 aggregates",
    ),
    (
        "trained twice",
        lambda e: replace(
            e, runs=[*e.runs, Run(site="one", work="w1", exchange="train", is_finished=True)]
        ),
        "one: work w1 2 times",
    ),
    ("events lost", lambda e: with_messages(e, "FL_AGGREGATOR", 0, 2), "version 2 is missing"),
    ("events lost", lambda e: with_messages(e, "FL_LEASE", 0, id="x"), "is another event"),
    ("events lost", lambda e: with_messages(e, "FL_LEASE", 0, stream="ghost"), "is unknown"),
    ("events lost", lambda e: without(e, "gateway", 3), "gateway: lease-fed-1-one"),
    (
        "events lost",
        lambda e: replace(e, cursors={**e.cursors, "artifact": {EXCHANGE: 2}}),
        "artifact applied",
    ),
    ("out of order", lambda e: with_messages(e, "FL_AGGREGATOR", 1, 0, 2), "version 1 after 2"),
    ("out of order", lambda e: with_messages(e, "FL_LEASE", 0, 0), "version 1 after 1"),
    ("dead letters", lambda e: replace(e, dead_letters={"lease": 1}), "lease: 1"),
    (
        "read model differs",
        lambda e: replace(e, tables=[TableDiff(service="lease", table="t", only_live=["(1)"])]),
        "lease.t: only live: (1)",
    ),
    (
        "read model differs",
        lambda e: replace(e, tables=[TableDiff(service="lease", table="t", only_replayed=["(2)"])]),
        "lease.t: only in a replay: (2)",
    ),
    ("without a deadline", open_again, FED),
    ("without a deadline", lambda e: replace(e, gaps=frozenset({FED})), "meanwhile"),
    ("not ended", lambda e: replace(open_again(e), deadlines=frozenset({FED})), FED),
    (
        "other bytes",
        lambda e: changed(e, "orchestrator", 2, final={"sha256": OTHER}),
        OTHER[:12],
    ),
    ("other bytes", lambda e: replace(e, expected={"fed-2": SHA}), "none"),
]


@pytest.mark.parametrize(("column", "tamper", "says"), TAMPERED)
def test_damage_shows_in_its_column(
    whole: Evidence, column: str, tamper: Tamper, says: str
) -> None:
    findings = found(tamper(whole))
    assert any(says in finding for finding in findings[column]), findings


def test_an_update_accepted_in_a_failed_exchange_is_not_lost(whole: Evidence) -> None:
    """The next attempt asks for it again, and the site answers from its journal."""
    events = list(whole.stores["aggregator"])
    events[2] = replace(events[2], type="fl.aggregate.failed", data={"code": "quorum"})
    failed = replace(whole, stores={**whole.stores, "aggregator": events})
    assert "accepted updates lost" not in found(failed)


def test_an_update_accepted_in_an_exchange_that_never_ended_is_lost(whole: Evidence) -> None:
    assert "accepted updates lost" in found(without(whole, "aggregator", 2))
