"""The round policy over HTTP and in rounds: changed while it runs, members replaced, work owed."""

import json
from typing import Any

import pytest

from flowerbed.contracts.ids import federation_id
from flowerbed.orchestrator.commanding import Federations
from tests.integration.orchestrator.conftest import House
from tests.integration.orchestrator.test_rounds import due_in, training
from tests.support.federations import document, ref
from tests.support.servers import eventually

LATE = {"late_updates": "next_round", "deadline_seconds": 120}


def work(federation: str, name: str, number: int = 1) -> str:
    return f"{federation}.{number}.1.train.client-{name}"


async def test_a_policy_is_changed_while_the_federation_waits_and_while_it_runs(
    house: House,
) -> None:
    federation = await house.submit()
    answer = (await house.change(federation, joinDeadlineSeconds=600, quorum=0.5)).json()
    assert answer["changed"] == ["quorum", "join_deadline_seconds"]
    assert answer["counts_from"] == "round 1, attempt 1, which starts next"
    assert (answer["policy"]["quorum"], answer["policy"]["deadline_seconds"]) == (0.5, 60.0)
    assert await due_in(house, federation) == 10
    told = await house.heard(federation, "federation.policy_changed")
    assert (told["reason"], told["policy"]) == ("slow site", answer["policy"])

    await house.record(federation, 0)
    await house.join(federation, "a", "b")
    assert (await house.heard(federation, "round.started"))["n_required"] == 1
    running = (await house.change(federation, deadline_seconds=600)).json()
    assert running["counts_from"] == "what follows the training of round 1, which is open"
    assert await due_in(house, federation) == 1 + 1, "the open exchange keeps its time-outs"
    await house.record(federation, 1, ref("r1"))
    await house.heard(federation, "round.evaluation_started")
    assert await due_in(house, federation) == 10 + 2
    during = (await house.change(federation, deadline_seconds=600)).json()
    assert (during["changed"], during["events"]) == ([], [])
    assert during["counts_from"] == "what follows the evaluation of round 1, which is open"


async def test_a_changed_policy_may_start_the_round_that_it_waited_for(house: House) -> None:
    federation = await house.submit(round_policy={"mode": "buffered", "buffer_size": 3})
    await house.record(federation, 0)
    await house.join(federation, "a", "b")
    await house.until_consumed(1 + 2)
    answer = (await house.change(federation, buffer_size=2)).json()
    assert answer["counts_from"] == "round 1, attempt 1, which starts now"
    started = await house.heard(federation, "round.started")
    assert (started["goal"], started["folds_in_order"]) == (2, "arrival")


@pytest.mark.parametrize(
    ("changes", "status", "code", "path"),
    [
        ({"quorum": 1.5}, 422, "policy-refused", "round_policy.quorum"),
        ({"colour": "red"}, 422, "policy-refused", "round_policy.colour"),
        ({"mode": "buffered"}, 422, "policy-refused", "round_policy"),
        ({"budget_seconds": 10}, 422, "policy-refused", "round_policy"),
    ],
)
async def test_a_policy_with_broken_rules_is_a_problem_and_changes_nothing(
    house: House, changes: dict[str, Any], status: int, code: str, path: str
) -> None:
    federation = await house.submit()
    refused = await house.change(federation, **changes)
    told = refused.json()
    assert (refused.status_code, told["code"]) == (status, code)
    assert refused.headers["content-type"] == "application/problem+json"
    assert [one["path"] for one in told["errors"]] == [path]
    assert set(told["errors"][0]) == {"path", "value", "allowed"}
    assert await house.types(federation) == ["federation.created"]


async def test_what_is_over_unknown_or_another_tenants_keeps_its_policy(house: House) -> None:
    federation, foreign = await house.submit(), await house.submit(tenant="rival")
    await house.command("cancel", federation)
    over = await house.change(federation, quorum=0.5)
    assert (over.status_code, over.json()["code"]) == (409, "federation-ended")
    for unknown in ("fed-none", foreign):
        assert (await house.change(unknown, quorum=0.5)).status_code == 404


async def test_while_an_older_replica_runs_nothing_is_recorded_that_it_does_not_know(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def not_yet(self: Federations, tx: object) -> bool:
        return False

    federation = await training(house, round_policy=LATE)
    monkeypatch.setattr(Federations, "is_upgraded", not_yet)
    refused = await house.change(federation, quorum=0.5)
    assert (refused.status_code, refused.json()["code"]) == (409, "upgrade-unfinished")
    assert "finish the upgrade first" in refused.json()["detail"]
    await house.leave(federation, "b")
    await house.join(federation, "c")
    await house.record(federation, 1, ref("r1"), owing=(work(federation, "a"),))
    evaluation = await house.heard(federation, "round.evaluation_started")
    assert evaluation["owed"] == []
    assert "round.member_replaced" not in await house.types(federation)


async def test_a_spec_that_an_older_replica_cannot_read_waits(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    upgraded = [False]

    async def is_upgraded(self: Federations, tx: object) -> bool:
        return upgraded[0]

    monkeypatch.setattr(Federations, "is_upgraded", is_upgraded)
    spec = json.dumps(document(round_policy=LATE)).encode()
    await house.publish(spec, {"ce-id": "later"})
    waiting, taken = federation_id("acme", "later"), await house.submit()
    assert await house.types(waiting) == []
    assert await house.types(taken) == ["federation.created"]
    upgraded[0] = True
    await house.heard(waiting, "federation.created")


async def test_who_leaves_an_open_training_is_replaced_as_soon_as_another_is_there(
    house: House,
) -> None:
    federation = await training(house)
    (started,) = [await house.heard(federation, "round.started")]
    await house.leave(federation, "b")
    await house.join(federation, "c")
    replaced = await house.heard(federation, "round.member_replaced")
    assert (replaced["place"], replaced["client_id"]) == (1, "client-b")
    assert replaced["replacement"]["client_id"] == "client-c"
    assert replaced["replacement"]["seed"] == started["cohort"][1]["seed"]
    await house.leave(federation, "c")
    await house.join(federation, "c", epoch=2)
    await house.join(federation, "d", "e")
    await house.until_consumed(1 + 2 + 2 + 2 + 2)
    assert (await house.types(federation)).count("round.member_replaced") == 1, "it came back"


async def test_late_work_is_owed_from_round_to_round_until_it_is_answered(house: House) -> None:
    federation = await training(house, round_policy=LATE, num_rounds=3)
    late = work(federation, "b")
    await house.record(federation, 1, ref("r1"), owing=(late,))
    evaluation = await house.heard(federation, "round.evaluation_started")
    assert [one["client_id"] for one in evaluation["cohort"]] == ["client-a"]
    await house.aggregate(federation, 1)
    second = await house.heard(federation, "round.started", 2)
    assert [one["work_id"] for one in second["owed"]] == [late]
    assert [one["client_id"] for one in second["cohort"]] == ["client-a"]

    await house.stop()
    await house.start()
    await house.command("pause", federation)
    await house.record(federation, 2, ref("r2"), owing=(late,))
    await house.heard(federation, "round.evaluation_started", 2)
    await house.aggregate(federation, 2)
    await house.heard(federation, "round.completed", 2)
    await house.command("resume", federation)
    third = await house.heard(federation, "round.started", 3)
    assert [one["work_id"] for one in third["owed"]] == [late]
    await house.record(federation, 3, ref("r3"))
    last = await house.heard(federation, "round.evaluation_started", 3)
    assert [one["client_id"] for one in last["cohort"]] == ["client-a", "client-b"]


async def test_who_is_asked_again_after_a_failed_attempt_has_its_own_place(house: House) -> None:
    federation = await house.submit(client_fraction=0.5)
    await house.record(federation, 0)
    await house.join(federation, "a", "b")
    first = await house.heard(federation, "round.started")
    await house.join(federation, "c", "d")

    async def all_joined() -> bool:
        return len(await house.rows("SELECT 1 FROM members")) == 4

    await eventually(all_joined, "c and d have joined")
    await house.aggregate(federation, 1, "train", failed="why")
    second = await house.heard(federation, "round.started", 2)
    assert (second["attempt"], second["cohort"]) == (2, first["cohort"])
