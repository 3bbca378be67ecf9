"""Kill what you like in the middle of a round: the bytes are those of an undisturbed run.

- No accepted update is lost: each is in the aggregate of its round.
- No client trains the same work twice: counted by the runners' own journals.
"""

import os
import signal
from functools import partial
from typing import Any

import pytest

from tests.e2e.documents import hospital
from tests.support.field import Field, Site, until

ROUNDS = 5
"""One more than are killed in: one may be over before it was seen."""
VICTIMS = ("aggregator", "orchestrator", "lease", "worker")


def document() -> dict[str, Any]:
    """Rounds that take seconds, so that there is a middle to be killed in."""
    train = {"local_epochs": 60, "learning_rate": 0.005, "seed": 3}
    return hospital(num_rounds=ROUNDS, train=train)


@pytest.fixture(scope="module")
def undisturbed(field: Field) -> dict[str, Any]:
    return field.completed(field.submit(document()), seconds=170)


def in_round(field: Field, federation_id: str, number: int) -> bool:
    """The round or a later one trains, and somebody is at it right now."""
    is_training = field.training_round(federation_id) >= number
    return is_training and any(site.training_now(federation_id) for site in field.sites)


def kill_a_worker(field: Field, federation_id: str) -> Site:
    def at_work() -> Site | None:
        return next((one for one in field.sites if one.training_now(federation_id)), None)

    site = until(at_work, "somebody trains")
    for worker in until(site.workers, "it has been given its worker"):
        os.kill(worker.pid, signal.SIGKILL)
    return site


async def test_every_service_and_a_worker_killed_mid_round_change_no_byte(
    field: Field, undisturbed: dict[str, Any]
) -> None:
    identity = field.submit(document())
    for number, victim in enumerate(VICTIMS, 1):
        until(partial(in_round, field, identity, number), f"round {number} trains", 60)
        if victim == "worker":
            kill_a_worker(field, identity)
            continue
        dead = field.kill(victim)
        until(partial(field.is_back, victim, dead), f"{victim} is started again", 30)
    federation = field.completed(identity, seconds=170)

    assert federation["final"]["sha256"] == undisturbed["final"]["sha256"]
    assert [one["attempt"] for one in federation["rounds"]] == [1] * ROUNDS
    await nothing_accepted_is_lost(field, identity)
    nothing_is_trained_twice(field, identity)


async def nothing_accepted_is_lost(
    field: Field, federation_id: str, n_rounds: int = ROUNDS
) -> None:
    history = await field.history("aggregator", federation_id)
    accepted = {
        (e["data"]["round_number"], e["data"]["exchange"], e["data"]["client_id"])
        for e in history
        if e["type"] == "fl.update.accepted"
    }
    folded = [
        (e["data"]["round_number"], e["data"]["exchange"], update["client_id"])
        for e in history
        if e["type"] == "fl.aggregate.completed"
        for update in e["data"]["updates"]
    ]
    assert len(folded) == len(set(folded)), "an update was counted twice"
    assert accepted == set(folded)
    trained = [one for one in folded if one[1] == "train"]
    assert len(trained) == n_rounds * len(field.sites)


def nothing_is_trained_twice(field: Field, federation_id: str, n_rounds: int = ROUNDS) -> None:
    for site in field.sites:
        rows = site.journal(
            "SELECT f.round_number, count(*) FROM runs r JOIN finished f USING (work)"
            f" WHERE f.federation_id = '{federation_id}' AND f.exchange = 'train'"
            " AND r.finished_at IS NOT NULL GROUP BY f.round_number ORDER BY 1"
        )
        assert rows == [(number, 1) for number in range(1, n_rounds + 1)], site.name
