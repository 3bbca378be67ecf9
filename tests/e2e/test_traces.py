"""A federation is one trace, whole, although a service was killed in the middle of it."""

import json
import time
from collections import Counter
from functools import partial

import httpx
import pytest

from flowerbed.cli.failing import Refused
from flowerbed.contracts.trace import of_federation, of_round, trace_id
from tests.e2e.documents import hospital
from tests.support.collector import Collector, Received, below, orphans
from tests.support.field import Field, until
from tests.support.servers import BUSY

ROUNDS, EPOCHS = 2, 60
SERVICES = ("orchestrator", "lease", "aggregator", "artifact", "gateway", "runner")
TRAINING = {"work order", "download", "train", "upload", "report", "screening"}
EVALUATION = {"work order", "download", "evaluate", "report", "screening"}


async def test_a_federation_is_one_whole_trace_across_a_killed_aggregator(field: Field) -> None:
    train = {"local_epochs": EPOCHS, "learning_rate": 0.005, "seed": 3}
    assert field.traces is not None and field.theirs is not None
    identity = field.submit(hospital(num_rounds=ROUNDS, train=train))
    with field.held_in_round(identity, 1):
        dead = field.kill("aggregator")
        until(lambda: field.is_back("aggregator", dead), "the aggregator is started again", 30)
    field.completed(identity)

    it_becomes_one_whole_tree(field, field.traces, identity)
    assert field.theirs.spans(identity) == [], "its spec names no collector"


async def test_a_spec_has_its_trace_sent_to_a_collector_of_its_own(field: Field) -> None:
    """Whole, though two services were killed; and the operator's collector has it all as well."""
    assert field.traces is not None and field.theirs is not None
    train = {"local_epochs": EPOCHS, "learning_rate": 0.005, "seed": 3}
    telemetry = {"otlp_endpoint": field.theirs.http_url}
    identity = field.submit(hospital(num_rounds=ROUNDS, train=train, telemetry=telemetry))
    with field.held_in_round(identity, 1):
        for service in ("aggregator", "gateway"):
            dead = field.kill(service)
            until(partial(field.is_back, service, dead), f"{service} is started again", 30)
    field.completed(identity)

    it_becomes_one_whole_tree(field, field.theirs, identity)
    it_becomes_one_whole_tree(field, field.traces, identity)
    assert {one.attributes.get("federation_id") for one in field.theirs.spans()} == {identity}


def test_a_spec_whose_collector_is_not_allowed_is_refused_and_changes_nothing(
    field: Field,
) -> None:
    assert field.theirs is not None
    before = field.api.get("/federations", limit=500)["federations"]
    written = hospital(telemetry={"otlp_endpoint": "http://169.254.169.254:4318"})
    with pytest.raises(Refused) as refused:
        field.submit(written)
    assert "spec.telemetry.otlp_endpoint" in repr(refused.value.errors)
    assert "OTLP_ALLOWED" in repr(refused.value.errors)
    assert field.api.get("/federations", limit=500)["federations"] == before


def it_is_one_whole_tree(field: Field, spans: list[Received], identity: str) -> None:
    assert {one.trace for one in spans} == {trace_id(identity)}
    assert {one.attributes.get("federation_id") for one in spans} == {identity}
    assert {one.attributes.get("tenant") for one in spans} == {"acme"}
    assert {f"flowerbed-{name}" for name in SERVICES} <= {one.service for one in spans}
    (root,) = [one for one in spans if not one.parent]
    assert (root.name, f"-{root.span}-" in of_federation(identity)) == ("federation", True)
    assert orphans(spans) == []

    of_root = Counter(one.name for one in below(spans, root))
    assert of_root["round"] == ROUNDS
    assert (of_root["submission"], of_root["initialize"]) == (1, 1)
    assert (of_root["lease"], of_root["claim"]) == (len(field.sites), len(field.sites))
    for number in range(1, ROUNDS + 1):
        a_round_is_whole(field, spans, number)


def test_a_rounds_duration_links_to_its_trace(field: Field) -> None:
    """In OpenMetrics; the older text format has no place for it."""
    identity = field.submit(hospital(num_rounds=1))
    field.completed(identity)
    openmetrics, text = scraped(field, "application/openmetrics-text"), scraped(field, "text/plain")
    name = "fl_round_duration_seconds_bucket"
    linked = [line for line in openmetrics if line.startswith(name) and trace_id(identity) in line]
    assert f'span_id="{of_round(identity, 1, 1).split("-")[2]}"' in linked[0]
    assert any(line.startswith(name) for line in text)
    assert not any("trace_id" in line for line in text)


def scraped(field: Field, accept: str) -> list[str]:
    ports = json.loads((field.stack.state_dir / "run" / "ports.json").read_text())
    url = f"http://127.0.0.1:{ports['orchestrator']}/metrics"
    return httpx.get(url, headers={"accept": accept}).text.splitlines()


def it_becomes_one_whole_tree(field: Field, at: Collector, identity: str) -> None:
    """Its spans come from several processes, each in its own time."""
    end = time.monotonic() + 30 * BUSY
    while True:
        try:
            it_is_one_whole_tree(field, at.spans(identity), identity)
            return
        except (AssertionError, ValueError, KeyError):
            if time.monotonic() > end:
                raise
            time.sleep(0.2)


def a_round_is_whole(field: Field, spans: list[Received], number: int) -> None:
    (one,) = [s for s in spans if s.name == "round" and s.attributes["round_num"] == number]
    children = {child.name: child for child in below(spans, one)}
    assert {"exchange train", "exchange evaluate", "artifact"} <= children.keys()
    assert one.start <= children["exchange train"].start < children["exchange evaluate"].start
    training, evaluation = children["exchange train"], children["exchange evaluate"]
    assert {"fold", "fold updates"} <= {child.name for child in below(spans, training)}
    clients = {site.client_id for site in field.sites}
    for exchange, wanted in ((training, TRAINING), (evaluation, EVALUATION)):
        works = [child for child in below(spans, exchange) if child.name == "work"]
        assert {work.attributes["client_id"] for work in works} == clients
        for work in works:
            parts = {part.name: part for part in below(spans, work)}
            assert wanted <= parts.keys(), (number, work.attributes, parts.keys())
            assert {part.attributes["client_id"] for part in parts.values()} <= clients
            if exchange is training:
                epochs = below(spans, parts["train"])
                told = [epoch.attributes["epoch"] for epoch in epochs if epoch.name == "epoch"]
                assert told == list(range(1, EPOCHS + 1))
