"""Rounds on real servers: answers in any order, refusals, quorum, deadline, late updates."""

import hashlib
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load, load_file, save

from flowerbed.contracts.federation import FederationCancelled
from flowerbed.contracts.values import ArtifactRef
from tests.integration.aggregator.conftest import Garden, model
from tests.support.servers import eventually

COHORT = ("a", "b", "c", "d")
EXAMPLES = {"a": 303, "b": 261, "c": 46, "d": 130}


def read(garden: Garden, ref: dict[str, object], folder: Path) -> bytes:
    path = folder / "read"
    garden.blobs.download(str(ref["uri"]), path, sha256=str(ref["sha256"]))
    return path.read_bytes()


async def test_a_round_gives_the_weighted_mean_of_its_updates(
    garden: Garden, tmp_path: Path
) -> None:
    await garden.create(strategy={"name": "fedprox", "params": {"proximal_mu": 0.1}})
    stream = await garden.start_round(COHORT)
    for place, name in enumerate(COHORT):
        metrics = {"train-loss": float(place), "num-examples": float(EXAMPLES[name])}
        await garden.submit(
            name, garden.put_model(place), n_examples=EXAMPLES[name], metrics=metrics
        )
    ended = await garden.outcome(stream)
    assert ended["type"] == "aggregate.completed"
    assert garden.base is not None and ended["parents"] == [garden.base.sha256]
    checkpoint = ended["checkpoint"]
    assert checkpoint["uri"] == f"s3://flowerbed/checkpoints/{checkpoint['sha256']}.safetensors"
    tensors = load(read(garden, checkpoint, tmp_path))
    weights = [EXAMPLES[name] for name in COHORT]
    for name in tensors:
        stacked = np.stack([model(place)[name] for place in range(4)]).astype(np.float64)
        wanted = np.average(stacked, axis=0, weights=weights)
        np.testing.assert_allclose(tensors[name], wanted, rtol=1e-5, atol=1e-6)
    assert [update["weight"] for update in ended["updates"]] == weights
    assert ended["metrics"] == {"train-loss": pytest.approx(np.average(range(4), weights=weights))}
    state = read(garden, ended["state"], tmp_path)
    assert hashlib.sha256(state).hexdigest() == ended["state"]["sha256"]
    assert json.loads(state) == {
        "format": "flowerbed-strategy-state/v1",
        "strategy": "fedprox",
        "params": {"proximal_mu": 0.1},
        "round_number": 1,
        "seed": 7,
        "base": garden.base.sha256,
        "checkpoint": checkpoint["sha256"],
    }


async def test_the_bytes_do_not_depend_on_the_order_of_arrival(garden: Garden) -> None:
    await garden.create()
    updates = {name: garden.put_model(place) for place, name in enumerate(COHORT)}
    orders = list(itertools.permutations(COHORT))[::5]
    digests = set()
    for attempt, order in enumerate(orders, start=1):
        reports = [
            garden.submit(name, updates[name], attempt=attempt, n_examples=EXAMPLES[name])
            for name in order
        ]
        if attempt % 2:  # half of the reports come before the round that they belong to
            for report in reports[:2]:
                await report
            stream = await garden.start_round(COHORT, attempt=attempt)
            rest = reports[2:]
        else:
            stream = await garden.start_round(COHORT, attempt=attempt)
            rest = reports
        for place, report in enumerate(rest, start=len(reports) - len(rest) + 1):
            await report
            await garden.heard(stream, place)
        digests.add((await garden.outcome(stream))["checkpoint"]["sha256"])
    assert len(digests) == 1


async def test_after_a_restart_in_mid_round_the_bytes_are_the_same(garden: Garden) -> None:
    await garden.create()
    updates = {name: garden.put_model(place) for place, name in enumerate(COHORT)}
    undisturbed = await garden.start_round(COHORT, attempt=1)
    for name in COHORT:
        await garden.submit(name, updates[name], attempt=1, n_examples=EXAMPLES[name])
    await garden.outcome(undisturbed)
    disturbed = await garden.start_round(COHORT, attempt=2)
    for count, name in enumerate(("c", "a", "d", "b"), start=1):
        await garden.submit(name, updates[name], attempt=2, n_examples=EXAMPLES[name])
        await garden.heard(disturbed, count)
        await garden.stop()
        await garden.start()
    outcomes = [await garden.outcome(stream) for stream in (undisturbed, disturbed)]
    assert outcomes[0]["checkpoint"] == outcomes[1]["checkpoint"]
    events = await garden.events(disturbed)
    assert [event_type for event_type, _ in events] == ["update.accepted"] * 4 + [
        "aggregate.completed"
    ]


def nan() -> bytes:
    tensors = model(1)
    tensors["layer.weight"][3, 3] = np.nan
    return save(tensors)


async def test_nonsense_is_refused_with_its_code_and_the_rest_is_folded(
    garden: Garden, tmp_path: Path
) -> None:
    await garden.create()
    good = garden.put_model(1)
    lie = good.model_copy(update={"sha256": "a" * 64})
    gone = good.model_copy(update={"uri": "s3://flowerbed/checkpoints/updates/gone"})
    elsewhere = garden.put(save(model(1)), f"elsewhere/{garden.federation_id}")
    large = garden.put(save({**model(1), "pad": np.zeros(1 << 19, np.float32)}))
    modest = large.model_copy(update={"size": 10})
    shape = {**model(1), "layer.bias": np.zeros((2, 5), np.float32)}
    nonsense: dict[str, tuple[ArtifactRef | None, int, str]] = {
        "nan": (garden.put(nan()), 10, "not-finite"),
        "shape": (garden.put(save(shape)), 10, "wrong-shape"),
        "names": (garden.put(save({"other": np.zeros(3)})), 10, "wrong-names"),
        "text": (garden.put(b"not a model"), 10, "not-safetensors"),
        "lie": (lie, 10, "hash-mismatch"),
        "gone": (gone, 10, "object-missing"),
        "none": (None, 10, "object-missing"),
        "elsewhere": (elsewhere, 10, "foreign-object"),
        "large": (large, 10, "too-large"),
        "modest": (modest, 10, "too-large"),
        "zero": (good, 0, "bad-num-examples"),
        "negative": (good, -5, "bad-num-examples"),
        "many": (good, 10_000_000, "bad-num-examples"),
    }
    cohort = (*nonsense, "failed", "good")
    stream = await garden.start_round(cohort, n_required=1)
    for name, (artifact, n_examples, _) in nonsense.items():
        await garden.submit(name, artifact, n_examples=n_examples)
    await garden.report_failure("failed", "limit-exceeded")
    await garden.submit("good", good)
    ended = await garden.outcome(stream)
    events = await garden.events(stream)
    answers = {data["client_id"]: data for _, data in events if "place" in data}
    for name, (_, _, code) in nonsense.items():
        assert (name, answers[name]["code"]) == (name, code)
        assert answers[name]["detail"]
    assert answers["failed"]["code"] == "limit-exceeded"
    assert [update["client_id"] for update in ended["updates"]] == ["good"]
    tensors = load_file(_saved(tmp_path, read(garden, ended["checkpoint"], tmp_path)))
    np.testing.assert_allclose(tensors["layer.bias"], model(1)["layer.bias"], rtol=1e-6)


def _saved(folder: Path, content: bytes) -> Path:
    path = folder / "saved"
    path.write_bytes(content)
    return path


async def test_below_the_quorum_at_the_deadline_the_missing_are_named(garden: Garden) -> None:
    await garden.create()
    stream = await garden.start_round(("a", "b", "c"), n_required=2, seconds=0.5)
    await garden.submit("a", garden.put_model(1))
    ended = await garden.outcome(stream)
    assert (ended["type"], ended["code"]) == ("aggregate.failed", "quorum-missed")
    assert "1 of 2 required updates accepted" in ended["reason"]
    assert "missing: b (no answer), c (no answer)" in ended["reason"]


async def test_with_a_quorum_at_the_deadline_the_round_closes_without_the_silent(
    garden: Garden,
) -> None:
    await garden.create()
    stream = await garden.start_round(("a", "b", "c"), n_required=2, seconds=1.0)
    await garden.submit("c", garden.put_model(3))
    await garden.submit("a", garden.put_model(1))
    ended = await garden.outcome(stream)
    assert [update["client_id"] for update in ended["updates"]] == ["a", "c"]


async def test_a_late_update_is_refused_as_late(garden: Garden) -> None:
    await garden.create()
    stream = await garden.start_round(("a", "b", "c"), goal=1, n_required=1)
    await garden.submit("b", garden.put_model(1))
    await garden.outcome(stream)
    await garden.submit("a", garden.put_model(2))
    await garden.heard(stream, 3)
    await garden.stop()
    await garden.submit("c", garden.put_model(3))
    await garden.start()
    events = await garden.heard(stream, 4)
    late = [(data["client_id"], data["code"]) for _, data in events if "code" in data]
    assert late == [("a", "late"), ("c", "late")]


async def test_an_evaluation_gives_weighted_metrics_and_screens_claims(garden: Garden) -> None:
    await garden.create()
    stream = await garden.start_round(("a", "b", "c"), exchange="evaluate", n_required=1)
    for name, n_examples, accuracy in (("a", 30, 0.9), ("b", 10, 0.5), ("c", 10_000_000, 1.0)):
        metrics = {"accuracy": accuracy}
        await garden.submit(name, None, exchange="evaluate", n_examples=n_examples, metrics=metrics)
    ended = await garden.outcome(stream)
    assert ended["checkpoint"] is None
    assert ended["metrics"] == {"accuracy": pytest.approx(0.8)}
    refused = [data for kind, data in await garden.events(stream) if kind == "update.rejected"]
    assert [(one["client_id"], one["code"]) for one in refused] == [("c", "bad-num-examples")]


async def test_an_ended_federations_exchange_is_dropped_and_what_comes_is_late(
    garden: Garden,
) -> None:
    await garden.create()
    stream = await garden.start_round(("a", "b"), seconds=3.0)
    await garden.submit("a", garden.put_model(1))
    await garden.heard(stream, 1)
    await garden.orchestrate(FederationCancelled(federation_id=garden.federation_id))
    exchanges = garden.exchanges
    assert exchanges is not None
    await eventually(lambda: stream not in exchanges.streams, "the worker is gone")
    await garden.submit("b", garden.put_model(2))
    await garden.heard(stream, 2)
    await eventually(lambda: stream not in exchanges.streams, "the worker is gone again")
    events = [(kind, data.get("code")) for kind, data in await garden.events(stream)]
    assert events == [("update.accepted", None), ("update.rejected", "late")]


async def test_several_exchanges_run_at_once(garden: Garden) -> None:
    federations = [f"{garden.federation_id[:-1]}{n}" for n in range(8)]
    streams = []
    for garden.federation_id in federations:
        await garden.create()
        streams.append(await garden.start_round(("a", "b")))
        await garden.submit("b", garden.put_model(2))
    for stream in streams:
        await garden.heard(stream, 1)
    status = (await garden.http.get("/status")).json()
    assert set(streams) <= set(status["open_exchanges"])
    for garden.federation_id in federations:
        await garden.submit("a", garden.put_model(1))
    digests = {(await garden.outcome(stream))["checkpoint"]["sha256"] for stream in streams}
    assert len(digests) == 1
    assert garden.settings.spool_directory.exists()
    await eventually(
        lambda: not list(garden.settings.spool_directory.glob("*/*")), "the spool is empty"
    )


async def test_the_counters_count(garden: Garden) -> None:
    await garden.create()
    stream = await garden.start_round(("a",))
    await garden.submit("a", garden.put_model(1))
    await garden.outcome(stream)
    text = (await garden.http.get("/metrics")).text
    assert 'fl_aggregates_total{exchange="train",outcome="completed"}' in text
    assert 'fl_aggregate_duration_seconds_count{exchange="train"}' in text


async def test_a_tenant_reads_only_its_own_rows(garden: Garden) -> None:
    await garden.create()
    stream = await garden.start_round(("a",))
    await garden.submit("a", garden.put_model(1))
    await garden.outcome(stream)
    database = garden.made.database
    for table in ("federations", "exchanges", "submissions", "answers", "outcomes", "events"):
        async with database.transaction("acme") as tx:
            assert await tx.fetchval(f"SELECT count(*) FROM {table}") > 0
        async with database.transaction("other") as tx:
            assert await tx.fetchval(f"SELECT count(*) FROM {table}") == 0
