"""Two replicas of every service and three nodes of NATS: any may be killed, or stand still.

A stack of its own. In the middle of each federation one dies and one is stopped for longer than a
role may stand still; the bytes at the end are those of a run that nobody disturbed.
"""

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from flowerbed.cli.api import Api
from flowerbed.contracts.topology import partition
from flowerbed.embedded.control import down, up
from flowerbed.embedded.record import read_record
from flowerbed.embedded.testing import remove
from scripts.prepare_data import prepare
from tests.e2e.documents import hospital
from tests.e2e.test_survival import nothing_accepted_is_lost, nothing_is_trained_twice
from tests.support.field import Field, hospitals, until

ROUNDS = 2
STANDSTILL = 7.0
"""Seconds: longer than a role may stay with a process that shows no life."""
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def doubled() -> Iterator[Field]:
    """Two of each service, three nodes of NATS, two hospitals."""
    root = Path(tempfile.mkdtemp(prefix="flowerbed-e2e-replicas-"))
    described = prepare("hospital", root / "data", 7)
    names = [site["name"] for site in described["sites"]][:2]
    try:
        stack = up(root / "stack", replicas=2, nats_nodes=3)
        field = Field(stack, Api(stack.gateway_url, stack.api_token))
        yield from hospitals(field, root / "data", root / "clients", names)
    finally:
        down(root / "stack")
        remove(root / "stack")
        shutil.rmtree(root, ignore_errors=True)


def document() -> dict[str, Any]:
    train = {"local_epochs": 60, "learning_rate": 0.005, "seed": 3}
    return hospital(num_rounds=ROUNDS, min_clients=2, train=train)


def pid_of(field: Field, component: str) -> int:
    record = read_record(field.stack.layout)
    assert record is not None
    (process,) = (one.process for one in record.components if one.name == component)
    assert process is not None
    return process.pid


def leader(field: Field, service: str, federation_id: str) -> str:
    """The replica that has the federation's partition."""
    role = f"partition {partition(federation_id)}"

    def look() -> str | None:
        for replica in (service, f"{service}-2"):
            try:
                status = httpx.get(f"{field.stack.service_url(replica)}/status", timeout=5).json()
            except httpx.HTTPError:
                continue
            if role in status["leads"]:
                return replica
        return None

    return until(look, f"a replica of {service} has {role}", 30)


def training(field: Field, federation_id: str, number: int) -> bool:
    rounds = field.api.federation(federation_id)["rounds"]
    return any(r["round_number"] == number and r["status"] == "training" for r in rounds)


def stand_still(pids: list[int]) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(STANDSTILL)
    for pid in pids:
        os.kill(pid, signal.SIGCONT)


async def test_any_replica_and_any_node_may_die_or_stand_still(doubled: Field) -> None:
    undisturbed = doubled.completed(doubled.submit(document()), seconds=120)
    for killed, stopped in (("orchestrator", "aggregator"), ("nats-2", "lease")):
        identity = doubled.submit(document())
        until(partial(training, doubled, identity, 1), "round 1 trains", 90)
        still = leader(doubled, stopped, identity)
        victim = killed if killed.startswith("nats") else leader(doubled, killed, identity)
        os.kill(pid_of(doubled, victim), signal.SIGKILL)
        stand_still([pid_of(doubled, still)])
        federation = doubled.completed(identity, seconds=120)

        assert federation["final"]["sha256"] == undisturbed["final"]["sha256"]
        assert [one["attempt"] for one in federation["rounds"]] == [1] * ROUNDS
        await nothing_accepted_is_lost(doubled, identity, ROUNDS)
        nothing_is_trained_twice(doubled, identity, ROUNDS)
