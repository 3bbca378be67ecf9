"""A federation is one trace, whole, although a service was killed in the middle of it."""

import json
from collections import Counter

import httpx

from flowerbed.contracts.trace import of_federation, of_round, trace_id
from tests.e2e.documents import hospital
from tests.support.collector import Received, below, orphans
from tests.support.field import Field, until

ROUNDS, EPOCHS = 2, 60
SERVICES = ("orchestrator", "lease", "aggregator", "artifact", "gateway", "runner")
TRAINING = {"work order", "download", "train", "upload", "report", "screening"}
EVALUATION = {"work order", "download", "evaluate", "report", "screening"}


async def test_a_federation_is_one_whole_trace_across_a_killed_aggregator(field: Field) -> None:
    train = {"local_epochs": EPOCHS, "learning_rate": 0.005, "seed": 3}
    identity = field.submit(hospital(num_rounds=ROUNDS, train=train))
    with field.held_in_round(identity, 1):
        dead = field.kill("aggregator")
        until(lambda: field.is_back("aggregator", dead), "the aggregator is started again", 30)
    field.completed(identity)

    spans = until(lambda: whole(field, identity), "the whole trace has arrived", 30)
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


def whole(field: Field, identity: str) -> list[Received]:
    """Every span of the federation, once its own has come and nobody misses a parent."""
    assert field.traces is not None
    spans = field.traces.spans(identity)
    is_ended = any(one.name == "federation" for one in spans)
    reports = sum(one.name == "report" for one in spans)
    all_told = reports >= 2 * ROUNDS * len(field.sites)
    return spans if is_ended and all_told and not orphans(spans) else []


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
