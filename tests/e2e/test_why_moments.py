"""Why is this run not moving? States that last for milliseconds, held by who would end them.

A service is stopped (SIGSTOP) right where it would move on; clients are written by hand.
"""

import asyncio
import json
import os
import signal
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from flowerbed.contracts.signed import WorkOrder
from tests.e2e.documents import hospital
from tests.e2e.test_nonsense import changed, nudged, put
from tests.e2e.test_why import EVALUATED, Stops, Why, cancel, on, until_of, why
from tests.support.field import FAILPOINT, Field, process_of, until
from tests.support.rogue import Rogue

LABEL = f"hospital-{'0' * 36}"


@pytest.fixture
def stops(field: Field) -> Iterator[Stops]:
    made = Stops(field)
    yield made
    made.go()
    FAILPOINT.unlink(missing_ok=True)
    os.kill(process_of(field.stack, "aggregator"), signal.SIGCONT)


@pytest.fixture
def pair(field: Field, tmp_path: Path) -> tuple[Rogue, Rogue]:
    """Two hand-made clients that nobody else's federation asks for."""
    tag = f"pair-{tmp_path.name}"
    first, second = (Rogue.enrol(field.invite("acme", tag), tmp_path / name) for name in ("a", "b"))
    return first, second


def of_pair(tmp_path: Path, **spec: Any) -> dict[str, Any]:
    settings = {"min_clients": 2, "client_selector": {"tags": [f"pair-{tmp_path.name}"]}}
    return hospital(**settings | spec)


def joined(identity: str, *clients: Rogue) -> None:
    for number, client in enumerate(clients):
        client.join(identity, {"label": LABEL, "sha256": f"{number:x}" * 64})


def ordered(client: Rogue) -> WorkOrder:
    order = client.next_order()
    assert order is not None
    return order


def train(client: Rogue) -> None:
    order = ordered(client)
    client.report(order, put(order, changed(order, nudged))).raise_for_status()


def evaluate(client: Rogue) -> None:
    client.report(ordered(client), EVALUATED).raise_for_status()


def fail(client: Rogue) -> None:
    path = f"/v1/leases/{client.lease_id}/work/{ordered(client).work_id}/failure"
    failure = {"epoch": client.epoch, "code": "app-failed", "detail": "no rows"}
    client.post(path, failure).raise_for_status()


def leave(field: Field, identity: str, client: Rogue) -> None:
    """Hand the lease back, and wait until the orchestrator has heard of it."""
    body = {"epoch": client.epoch, "reason": "maintenance"}
    client.post(f"/v1/leases/{client.lease_id}/release", body).raise_for_status()
    query = "SELECT 1 FROM members WHERE federation_id = $1 AND client_id = $2"

    def is_gone() -> bool:
        found = field.rows("orchestrator", query, identity, client.client_id)
        return not asyncio.run(found)

    until(is_gone, "the orchestrator knows that a client has left")


def shown(field: Field, identity: str, code: str, seconds: float = 60.0) -> Why:
    seen: Why = {}

    def look() -> Why | None:
        nonlocal seen
        seen = why(field, identity)
        return seen if seen["waits"]["code"] == code else None

    try:
        return until(look, f"it waits for {code}", seconds)
    except AssertionError as error:
        raise AssertionError(f"{error}: {seen}") from None


def stop_at(service: str, point: str, event_type: str) -> None:
    """The service stops itself there, once."""
    armed = {"service": service, "point": point, "event_type": event_type, "signal": "SIGSTOP"}
    beside = FAILPOINT.with_suffix(".new")
    beside.write_text(json.dumps(armed))
    os.replace(beside, FAILPOINT)


def let_go(field: Field, service: str) -> None:
    process = psutil.Process(process_of(field.stack, service))
    until(lambda: process.status() == psutil.STATUS_STOPPED or None, f"{service} stands still")
    process.send_signal(signal.SIGCONT)


def test_who_closes_and_moves_on_is_named(
    field: Field, stops: Stops, pair: tuple[Rogue, Rogue], tmp_path: Path
) -> None:
    """A round from its fold to the round after it."""
    one, two = pair
    identity = field.submit(of_pair(tmp_path, num_rounds=2))
    joined(identity, one, two)
    shown(field, identity, "clients-to-train")
    stop_at("aggregator", "publish-before", "fl.aggregate.completed")
    train(one)
    train(two)
    fold = shown(field, identity, "fold-due")
    assert on(fold) == {"aggregator"}
    let_go(field, "aggregator")

    shown(field, identity, "clients-to-evaluate")
    stop_at("aggregator", "publish-before", "fl.aggregate.completed")
    evaluate(one)
    leave(field, identity, two)
    closing = shown(field, identity, "evaluation-close-due")
    assert on(closing) == {"aggregator"}
    let_go(field, "aggregator")

    missing = shown(field, identity, "clients-for-next-round")
    assert on(missing) == {two.client_id}
    stops.stop("orchestrator")
    joined(identity, two)
    next_round = shown(field, identity, "next-round-due")
    assert on(next_round) == {"orchestrator"}
    assert next_round["then"] == "the federation fails with too-few-clients"
    stops.go()
    shown(field, identity, "clients-to-train")
    cancel(field, identity)


def test_a_failed_attempt_waits_for_its_end_for_clients_and_for_the_next(
    field: Field, stops: Stops, pair: tuple[Rogue, Rogue], tmp_path: Path
) -> None:
    one, two = pair
    policy = {"quorum": 1.0, "replace_dropped": False}
    identity = field.submit(of_pair(tmp_path, num_rounds=1, round_policy=policy))
    joined(identity, one, two)
    shown(field, identity, "clients-to-train")
    leave(field, identity, two)
    stops.stop("orchestrator")
    fail(one)
    ending = shown(field, identity, "attempt-end-due")
    assert on(ending) == {"orchestrator"}
    assert ending["last_error"]["code"] == "app-failed"
    stops.go()
    missing = shown(field, identity, "clients-for-next-attempt")
    assert on(missing) == {two.client_id}
    assert "attempt 2 at round 1: 1 of 2 have joined" in missing["waits"]["what"]
    stops.stop("orchestrator")
    joined(identity, two)
    again = shown(field, identity, "next-attempt-due")
    assert on(again) == {"orchestrator"}
    stops.go()
    shown(field, identity, "clients-to-train")
    cancel(field, identity)


def test_a_buffer_that_is_not_full_and_a_deadline_that_passes_without_anybody(
    field: Field, stops: Stops, pair: tuple[Rogue, Rogue], tmp_path: Path
) -> None:
    one, two = pair
    policy = {"mode": "buffered", "buffer_size": 2, "deadline_seconds": 15.0}
    identity = field.submit(of_pair(tmp_path, num_rounds=1, round_policy=policy))
    joined(identity, one, two)
    train(one)
    filling = partial(shown, field, identity, "updates-to-fill-buffer")
    until(lambda: on(filling()) == {two.client_id}, "the first update is in the buffer", 10)
    buffer = filling()
    stops.stop("aggregator")
    passed = shown(field, identity, "deadline-passed")
    assert on(passed) == {"aggregator"}
    assert until_of(passed) - until_of(buffer) >= timedelta(seconds=30), "its grace"
    assert "2 required updates are accepted" in passed["then"] or "attempt" in passed["then"]
    cancel(field, identity)


def test_what_can_only_end_waits_for_the_orchestrator_to_end_it(
    field: Field, stops: Stops, tmp_path: Path
) -> None:
    policy = {"join_deadline_seconds": 5.0}
    identity = field.submit(of_pair(tmp_path, round_policy=policy))
    shown(field, identity, "clients-to-join")
    stops.stop("orchestrator")
    ended = shown(field, identity, "end-due")
    assert on(ended) == {"orchestrator"}
    assert ended["then"] == "the federation fails with too-few-clients"
    stops.go()
    assert field.ended(identity)["status"] == "failed"
