"""Nonsense is refused with a clear reason, and changes nothing.

- Malformed specs, over HTTP: every broken rule is named, no federation comes to be.
- Updates of a client that lies: refused one by one, the honest client's round goes on.
- A certificate reaches its own tenant's and its own leases, and no other's.
"""

import hashlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from safetensors.numpy import load, save

from flowerbed.contracts.signed import WorkOrder
from tests.e2e.documents import hospital
from tests.support.field import Field, until
from tests.support.rogue import Rogue

Arrays = dict[str, np.ndarray[Any, Any]]


def spec(**changes: Any) -> dict[str, Any]:
    return hospital(**changes)


MALFORMED: list[tuple[Any, list[str]]] = [
    ("just text", [""]),
    ({"apiVersion": "flowerbed/v2", **{k: hospital()[k] for k in ("metadata", "spec")}},
     ["api_version"]),
    ({**hospital(), "metadata": {"name": "Not A Name", "tenant": "a.b"}},
     ["metadata.name", "metadata.tenant"]),
    (spec(num_rounds=0, min_clients=0), ["spec.num_rounds", "spec.min_clients"]),
    (spec(client_fraction=0.0, round_policy={"quorum": 1.5}),
     ["spec.client_fraction", "spec.round_policy.quorum"]),
    (spec(lease={"ttl_seconds": 14}), ["spec.lease.ttl_seconds"]),
    (spec(strategy={"name": "fedmagic"}), ["spec.strategy.name"]),
    (spec(model_ref={"uri": "builtin:hospital", "sha256": "abc"}), ["spec.model_ref.sha256"]),
    (spec(dp={"epsilon": 1.0}, secure_agg=True, runtime="simulation"),
     ["spec.dp", "spec.secure_agg", "spec.simulation"]),
    (spec(runtime="telepathy"), ["spec.runtime"]),
    (spec(client_selector={"tenant": "other", "embedding_query": "x"}, colour="red"),
     ["spec.client_selector.embedding_query", "spec.colour", "spec.client_selector.tenant"]),
    (spec(app="builtin:nothing", dataset_spec={"hashes": ["z" * 64]}),
     ["spec.app", "spec.dataset_spec.hashes.0"]),
]  # fmt: skip


@pytest.mark.parametrize(("document", "paths"), MALFORMED)
async def test_a_malformed_spec_is_refused_with_every_reason_and_changes_nothing(
    bare_field: Field, document: Any, paths: list[str]
) -> None:
    count = "SELECT count(*) AS n FROM events"
    before = await bare_field.rows("orchestrator", count)
    answer = post_spec(bare_field, document)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    errors = answer.json()["errors"]
    assert sorted(error["path"] for error in errors) == sorted(paths)
    assert all(error["allowed"] for error in errors)
    assert await bare_field.rows("orchestrator", count) == before


def post_spec(field: Field, document: Any) -> httpx.Response:
    return httpx.post(
        f"{field.stack.gateway_url}/federations",
        json=document,
        headers={"authorization": f"Bearer {field.stack.api_token}"},
    )


# --- clients that lie -------------------------------------------------------


def changed(order: WorkOrder, change: Callable[[Arrays], object]) -> bytes:
    """An update made from the base as the order gives it."""
    base = httpx.get(order.download.url).raise_for_status().content
    assert hashlib.sha256(base).hexdigest() == order.base.sha256
    arrays: Arrays = {name: array.copy() for name, array in load(base).items()}
    change(arrays)
    return save(arrays)


def put(order: WorkOrder, body: bytes) -> dict[str, Any]:
    assert order.upload is not None
    httpx.put(order.upload.url, content=body, headers=order.upload.headers).raise_for_status()
    return {
        "artifact": {
            "uri": order.upload.uri,
            "sha256": hashlib.sha256(body).hexdigest(),
            "size": len(body),
        },
        "n_examples": 10,
        "metrics": {"train-loss": 0.5},
    }


def nudged(arrays: Arrays) -> None:
    for array in arrays.values():
        array += np.float32(0.01)


def poisoned(arrays: Arrays) -> None:
    next(iter(arrays.values())).flat[0] = np.nan


def reshaped(arrays: Arrays) -> None:
    name = next(iter(arrays))
    arrays[name] = np.zeros((*arrays[name].shape, 2), dtype=np.float32)


def renamed(arrays: Arrays) -> None:
    arrays["another"] = arrays.pop(next(iter(arrays)))


def other_bytes(order: WorkOrder) -> dict[str, Any]:
    report = put(order, changed(order, nudged))
    report["artifact"]["sha256"] = "0" * 64
    return report


def nothing_there(order: WorkOrder) -> dict[str, Any]:
    assert order.upload is not None
    artifact = {"uri": order.upload.uri, "sha256": "1" * 64, "size": 10}
    return {"artifact": artifact, "n_examples": 10, "metrics": {}}


def anothers(order: WorkOrder) -> dict[str, Any]:
    """The base itself: a real object, but not the place that the order names."""
    artifact = order.base.model_dump(mode="json")
    return {"artifact": artifact, "n_examples": 10, "metrics": {}}


LIES: list[tuple[str, Callable[[WorkOrder], dict[str, Any]]]] = [
    ("hash-mismatch", other_bytes),
    ("not-finite", lambda order: put(order, changed(order, poisoned))),
    ("wrong-shape", lambda order: put(order, changed(order, reshaped))),
    ("wrong-names", lambda order: put(order, changed(order, renamed))),
    ("not-safetensors", lambda order: put(order, b"no tensors at all")),
    ("bad-num-examples", lambda order: {**put(order, changed(order, nudged)), "n_examples": 0}),
    ("bad-num-examples", lambda order: {**put(order, changed(order, nudged)), "n_examples": -1}),
    (
        "bad-num-examples",
        lambda order: {**put(order, changed(order, nudged)), "n_examples": 10_000_000},
    ),
    ("object-missing", nothing_there),
]


def work(rogue: Rogue, answer: Callable[[WorkOrder], dict[str, Any]]) -> None:
    """Answer every order until the lease has ended."""
    while (order := rogue.next_order()) is not None:
        body = (
            answer(order)
            if order.exchange == "train"
            else {"artifact": None, "n_examples": 5, "metrics": {"accuracy": 0.5}}
        )
        if order.exchange == "train" and order.round_number == 1:
            elsewhere = rogue.report(order, anothers(order))
            assert (elsewhere.status_code, elsewhere.json()["code"]) == (422, "report-refused")
        rogue.report(order, body).raise_for_status()


async def test_a_lying_clients_updates_are_refused_and_the_honest_ones_count(
    bare_field: Field, tmp_path: Path
) -> None:
    document = spec(
        num_rounds=len(LIES),
        min_clients=2,
        round_policy={"quorum": 0.5, "deadline_seconds": 60.0},
        client_selector={"tags": ["rogue"]},
    )
    honest, liar = (
        Rogue.enrol(bare_field.invite("acme", "rogue"), tmp_path / name) for name in ("a", "b")
    )
    identity = bare_field.submit(document)
    for rogue, label in ((honest, "a"), (liar, "b")):
        rogue.join(identity, {"label": f"hospital-{'0' * 36}", "sha256": label * 64})

    def lie(order: WorkOrder) -> dict[str, Any]:
        return LIES[order.round_number - 1][1](order)

    def tell_the_truth(order: WorkOrder) -> dict[str, Any]:
        return put(order, changed(order, nudged))

    workers = [
        threading.Thread(target=work, args=(honest, tell_the_truth)),
        threading.Thread(target=work, args=(liar, lie)),
    ]
    for worker in workers:
        worker.start()
    federation = bare_field.completed(identity, seconds=150)
    for worker in workers:
        worker.join(30)

    history = await bare_field.history("aggregator", identity)
    refused = [e["data"] for e in history if e["type"] == "fl.update.rejected"]
    assert [one["code"] for one in refused] == [code for code, _ in LIES]
    assert {one["client_id"] for one in refused} == {liar.client_id}
    for one in federation["rounds"]:
        assert one["train_updates"]["accepted"] == 1
    folded = [
        [update["client_id"] for update in e["data"]["updates"]]
        for e in history
        if e["type"] == "fl.aggregate.completed" and e["data"]["exchange"] == "train"
    ]
    assert folded == [[honest.client_id]] * len(LIES)


async def test_a_certificate_reaches_only_its_own_leases(bare_field: Field, tmp_path: Path) -> None:
    owner = Rogue.enrol(bare_field.invite("acme", "own"), tmp_path / "owner")
    neighbour = Rogue.enrol(bare_field.invite("acme", "other"), tmp_path / "neighbour")
    stranger = Rogue.enrol(bare_field.invite("globex", "own"), tmp_path / "stranger")
    document = spec(num_rounds=1, min_clients=2, client_selector={"tags": ["own"]})
    identity = bare_field.submit(document)
    dataset = {"label": f"hospital-{'0' * 36}", "sha256": "a" * 64}
    owner.join(identity, dataset)
    before = await bare_field.history("lease", identity)

    for other in (neighbour, stranger):
        assert other.offers() == []
        lease = f"/v1/leases/{owner.lease_id}"
        attempts: dict[str, dict[str, Any]] = {
            f"{lease}/claim": {"epoch": 1, "dataset": dataset},
            f"{lease}/heartbeat": {"epoch": 1},
            f"{lease}/work/next": {"epoch": 1},
            f"{lease}/work/w/report": {"epoch": 1, "artifact": None, "n_examples": 1},
            f"{lease}/work/w/failure": {"epoch": 1, "code": "app-failed"},
            f"{lease}/release": {"epoch": 1},
        }
        for path, body in attempts.items():
            answer = other.post(path, body)
            assert answer.status_code == 404, path
            assert answer.headers["content-type"] == "application/problem+json"
    assert await bare_field.history("lease", identity) == before
    bare_field.api.post(f"/federations/{identity}/cancel", {"reason": "done"})


def test_without_a_certificate_there_is_no_connection(bare_field: Field) -> None:
    with pytest.raises((httpx.ReadError, httpx.ConnectError, httpx.RemoteProtocolError)):
        httpx.post(
            f"{bare_field.stack.client_url}/v1/leases/poll",
            json={},
            verify=False,
            headers={"Client-Cert": "forged"},
        )


def known(field: Field) -> list[str]:
    return [one["client_id"] for one in field.api.get("/clients", limit=500)["clients"]]


def test_a_revoked_client_is_shut_out(bare_field: Field, tmp_path: Path) -> None:
    rogue = Rogue.enrol(bare_field.invite("acme", "lost"), tmp_path / "lost")
    assert rogue.offers() == []
    until(lambda: rogue.client_id in known(bare_field), "the gateway has heard of it")
    bare_field.api.post(f"/clients/{rogue.client_id}/revoke", {"reason": "stolen"})
    answer = rogue.post("/v1/leases/poll", {})
    assert (answer.status_code, answer.json()["code"]) == (403, "client-not-admitted")
