"""Whichever way messages travel: the same app, clients, data and seeds give the same federation.

The tolerance is none: final checkpoints are equal byte for byte, metrics to the last digit.
"""

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.documents import hospital
from tests.e2e.test_own_apps import policy
from tests.support.apps import PROJECT, bundle
from tests.support.field import Field, until
from tests.support.servers import eventually
from tests.support.transports import TRANSPORTS, Transport, of_ray, ray_cluster, simulations

CLIENT_APP = """
import random
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, MetricRecord, Message, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(msg, context):
    place = Path(context.node_config["data-path"]).name
    if place == context.run_config["fails-at"]:
        raise ValueError("no rows at all")
    seen = context.state.setdefault("seen", MetricRecord({"messages": 0}))
    seen["messages"] += 1
    arrays = msg.content["arrays"].to_numpy_ndarrays()
    step = np.random.standard_normal(4).astype(np.float32) * random.random() * len(place)
    moved = [array + step * seen["messages"] for array in arrays]
    metrics = MetricRecord({"num-examples": len(place), "messages": seen["messages"]})
    content = {"arrays": ArrayRecord(moved), "metrics": metrics}
    return Message(RecordDict(content), reply_to=msg)


@app.evaluate()
def evaluate(msg, context):
    first = msg.content["arrays"].to_numpy_ndarrays()[0]
    metrics = MetricRecord({"num-examples": 2, "first": float(first[0]), "luck": random.random()})
    return Message(RecordDict({"metrics": metrics}), reply_to=msg)
"""
"""Leaves its seeding to whoever runs it, and remembers how often it was asked."""

TASK = """
import numpy as np


def parameters():
    return [np.full(4, place, np.float32) for place in range(12)]
"""
DRIFT = {"drift/client_app.py": CLIENT_APP, "drift/task.py": TASK}
CONFIG = '\n[tool.flwr.app.config]\nfails-at = "nowhere"\nlocal-epochs = 1\n'


@pytest.fixture(scope="module", params=TRANSPORTS)
def transport(request: pytest.FixtureRequest, field: Field) -> Transport:
    return TRANSPORTS[request.param](field)


@pytest.fixture(scope="module")
def app(field: Field) -> Iterator[str]:
    """Of somebody's own, pushed, and allowed at every site."""
    project = PROJECT.partition("\n[tool.flwr.app.config]")[0] + CONFIG
    raw = bundle({**DRIFT, "pyproject.toml": project})
    pushed = f"fab:{field.api.push(raw, 'acme')['sha256']}"
    for site in field.sites:
        policy(site, "allow", pushed)
    yield pushed
    for site in field.sites:
        (site.home / "policy.json").unlink(missing_ok=True)


def own(app: str, **spec: Any) -> dict[str, Any]:
    return hospital(app=app, model_ref={"uri": "app:drift.task:parameters"}, **spec)


Ran = dict[tuple[str, str], dict[str, Any]]


@pytest.fixture(scope="module")
def ran(field: Field) -> Ran:
    """What each document has given, by who carried it: run once."""
    return {}


def given(
    field: Field, ran: Ran, document: dict[str, Any], transport: Transport | None = None
) -> dict[str, Any]:
    """By `transport`, or else what it is compared to: a run of its own over the bus."""
    way = transport or TRANSPORTS["bus"](field)
    key = transport.name if transport else "reference", json.dumps(document, sort_keys=True)
    if key not in ran:
        ran[key] = run(field, way, document)
    return ran[key]


def run(field: Field, transport: Transport, document: dict[str, Any]) -> dict[str, Any]:
    return field.completed(field.submit(transport.document(document)))


def outcome(federation: dict[str, Any]) -> dict[str, Any]:
    """All that may not depend on the way: bytes, metrics, who counted."""
    rounds = [
        {
            "checkpoint": one["checkpoint_sha256"],
            "training": one["training"],
            "evaluation": one["evaluation"],
            "updates": one["train_updates"],
        }
        for one in federation["rounds"]
    ]
    return {"final": federation["final"]["sha256"], "rounds": rounds}


async def test_the_same_app_and_seeds_give_the_same_bytes_and_metrics(
    field: Field, transport: Transport, ran: Ran
) -> None:
    document = hospital(num_rounds=transport.n_rounds)
    expected = given(field, ran, document)
    found = given(field, ran, document, transport)
    assert outcome(found) == outcome(expected)
    for number in range(transport.n_rounds + 1):
        assert field.api.post(f"/artifacts/{found['federation_id']}/{number}/verify")["identical"]


async def test_the_same_facts_are_recorded_in_the_same_number(
    field: Field, transport: Transport, ran: Ran
) -> None:
    document = hospital(num_rounds=transport.n_rounds)
    expected = await facts(field, given(field, ran, document))
    told = await facts(field, given(field, ran, document, transport))
    assert told == expected
    assert told["fl.update.accepted"] == 4 * transport.n_rounds * 2
    assert told["fl.client.joined"] == told["fl.client.released"] == 4


async def facts(field: Field, federation: dict[str, Any]) -> Counter[str]:
    """How many of each type every service recorded, once all leases have ended."""
    counted: Counter[str] = Counter()

    async def leases_have_ended() -> bool:
        counted.clear()
        for service in ("lease", "orchestrator", "aggregator", "artifact"):
            history = await field.history(service, federation["federation_id"])
            counted.update(one["type"] for one in history)
        return counted["fl.client.released"] == counted["fl.client.joined"]

    await eventually(leases_have_ended, "a moment after the federation every lease ends")
    return counted


async def test_an_app_of_ones_own_is_seeded_and_remembers_the_same(
    field: Field, transport: Transport, app: str, ran: Ran
) -> None:
    document = own(app, num_rounds=transport.n_rounds)
    expected = given(field, ran, document)
    found = run(field, transport, document)
    assert outcome(found) == outcome(expected)
    assert found["rounds"][-1]["training"]["messages"] == transport.n_rounds


async def test_a_client_that_fails_is_told_and_the_round_goes_on_without_it(
    field: Field, transport: Transport, app: str, ran: Ran
) -> None:
    train = {"seed": 11, "fails_at": "hungary"}
    document = own(app, train=train, num_rounds=1, round_policy={"quorum": 0.75})
    expected = given(field, ran, document)
    found = run(field, transport, document)
    assert outcome(found) == outcome(expected)
    failed = [
        one["data"]
        for one in await field.history("lease", found["federation_id"])
        if one["type"] == "fl.update.failed"
    ]
    assert [(one["exchange"], one["code"]) for one in failed] == [("train", "app-failed")]
    assert "no rows at all" in failed[0]["detail"]
    assert found["rounds"][0]["train_updates"]["accepted"] == 3


async def test_what_carries_the_messages_is_killed_and_the_result_is_the_same(
    field: Field, transport: Transport, ran: Ran
) -> None:
    document = hospital(num_rounds=transport.n_rounds)
    expected = given(field, ran, document)
    identity = field.submit(transport.document(document))
    until(lambda: field.training_round(identity) >= 1, "a round trains", 90)
    transport.kill(identity)
    assert outcome(field.completed(identity)) == outcome(expected)


def test_nothing_of_a_simulation_is_left_when_it_is_over(field: Field) -> None:
    run(field, TRANSPORTS["simulation"](field), hospital(num_rounds=1))
    until(lambda: not simulations(field), "its process has ended")
    assert of_ray() == []


def test_an_existing_ray_cluster_gives_the_same_bytes(field: Field, app: str, ran: Ran) -> None:
    document = own(app, num_rounds=2)
    expected = given(field, ran, document)
    simulated = TRANSPORTS["simulation"](field).document(document)
    with ray_cluster() as address:
        simulated["spec"]["simulation"]["ray_address"] = address
        found = field.completed(field.submit(simulated))
    assert outcome(found) == outcome(expected)


def test_a_simulation_that_cannot_be_says_why(field: Field) -> None:
    document = TRANSPORTS["simulation"](field).document(hospital())
    document["spec"]["simulation"]["data"] = "/nowhere"
    identity = field.submit(document)

    def told() -> str:
        return str(field.api.get(f"/federations/{identity}/why"))

    until(lambda: "dataset-gone" in told(), "why says so", 60)
    field.api.post(f"/federations/{identity}/cancel", {"reason": "seen"})
    until(lambda: not simulations(field), "its process has ended")
