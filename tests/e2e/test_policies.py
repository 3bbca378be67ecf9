"""Real rounds under other policies than the default: k of n with late updates, a changed one."""

import json
import subprocess
from contextlib import ExitStack
from typing import Any

from tests.e2e.documents import hospital
from tests.support.field import FLOWERBED, Field, until


async def of_type(field: Field, service: str, identity: str, kind: str) -> list[dict[str, Any]]:
    history = await field.history(service, identity)
    return [one["data"] for one in history if one["type"] == f"fl.{kind}"]


async def test_rounds_close_with_the_kth_update_and_the_others_count_in_the_next(
    field: Field,
) -> None:
    policy = {"close_at": 3, "late_updates": "next_round", "deadline_seconds": 60}
    spec = hospital(num_rounds=3, round_policy=policy)
    identity = field.submit(spec)
    field.completed(identity)
    started = await of_type(field, "orchestrator", identity, "round.started")
    closed = [
        one
        for one in await of_type(field, "aggregator", identity, "aggregate.completed")
        if one["exchange"] == "train"
    ]
    assert [one["round_number"] for one in closed] == [1, 2, 3]
    for begun, done in zip(started, closed, strict=True):
        assert len(done["updates"]) == begun["goal"]
        wanted = {one["client_id"] for one in (*begun["cohort"], *begun["owed"])}
        assert {one["client_id"] for one in done["updates"]} <= wanted
        late = {one["client_id"] for one in begun["owed"]}
        assert {one["client_id"] for one in done["updates"] if one["staleness"]} <= late
    owing = [len(one["owing"]) for one in closed]
    assert all(len(begun["owed"]) <= n for begun, n in zip(started[1:], owing, strict=False))

    accepted = await of_type(field, "aggregator", identity, "update.accepted")
    works = [one["work_id"] for one in accepted]
    assert len(works) == len(set(works)), "no update counts twice"
    for number in (1, 2, 3):
        again = field.api.post(f"/artifacts/{identity}/{number}/verify", patience=60)
        assert again["identical"], again


def flowerbed(field: Field, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [FLOWERBED, "federation", "policy", *arguments]
    command += ["--state-dir", str(field.stack.state_dir)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


async def test_a_person_changes_the_policy_of_a_running_federation(field: Field) -> None:
    identity = field.submit(hospital(num_rounds=2, min_clients=4))
    field.api.post(f"/federations/{identity}/pause", {"reason": "a slow site"})
    bad = flowerbed(field, identity, "--quorum", "2", "--budget-seconds", "5")
    assert bad.returncode == 2
    assert "round_policy.quorum" in bad.stderr and "1 broken rule" in bad.stderr
    good = flowerbed(field, identity, "--close-at", "2", "--reason", "a slow site")
    assert good.returncode == 0, good.stderr
    assert "changed close_at; counts from" in good.stdout
    field.api.post(f"/federations/{identity}/resume")
    field.completed(identity)
    started = await of_type(field, "orchestrator", identity, "round.started")
    assert (started[-1]["goal"], len(started[-1]["cohort"])) == (2, 4)
    shown = json.loads(flowerbed(field, identity, "--show", "--output", "json").stdout)
    assert shown["policy"]["close_at"] == 2
    assert len(await of_type(field, "orchestrator", identity, "federation.policy_changed")) == 1


async def test_a_site_that_stops_in_a_round_hands_its_place_to_an_idle_one(field: Field) -> None:
    train = {"local_epochs": 300, "learning_rate": 0.005, "seed": 3}
    spec = hospital(
        num_rounds=1, min_clients=2, client_fraction=0.5, train=train, lease={"ttl_seconds": 15}
    )
    identity = field.submit(spec)
    site = until(
        lambda: next((s for s in field.sites if s.training_now(identity)), None), "one trains"
    )
    with site.frozen():
        done = field.completed(identity, seconds=150)
    (replaced,) = await of_type(field, "orchestrator", identity, "round.member_replaced")
    (started,) = await of_type(field, "orchestrator", identity, "round.started")
    asked = {one["client_id"] for one in started["cohort"]}
    assert replaced["client_id"] in asked and replaced["replacement"]["client_id"] not in asked
    assert started["cohort"][replaced["place"]]["seed"] == replaced["replacement"]["seed"]
    counted = {
        one["client_id"]
        for one in await of_type(field, "aggregator", identity, "update.accepted")
        if one["exchange"] == "train"
    }
    assert counted == asked - {replaced["client_id"]} | {replaced["replacement"]["client_id"]}
    counts = done["rounds"][0]["train_updates"]
    assert (counts["accepted"], counts["replaced"], counts["asked"]) == (2, 1, 0)
    assert [one["attempt"] for one in done["rounds"]] == [1], "no attempt was lost"


async def test_an_evaluation_goes_on_without_a_site_that_stops(field: Field) -> None:
    train = {"local_epochs": 100, "learning_rate": 0.005, "seed": 3}
    spec = hospital(num_rounds=1, min_clients=4, train=train, lease={"ttl_seconds": 15})
    identity = field.submit(spec)

    def n_accepted() -> int:
        rounds = field.api.federation(identity)["rounds"]
        return sum(one["train_updates"]["accepted"] for one in rounds)

    with ExitStack() as asleep:
        with field.held_in_round(identity, 1):
            until(lambda: n_accepted() == 3, "all others have trained")
            asleep.enter_context(field.sites[1].frozen())
        (done,) = field.completed(identity)["rounds"]
    assert done["evaluation"] and not done["evaluation_error"]
    (missed,) = await of_type(field, "lease", identity, "update.failed")
    assert (missed["exchange"], missed["code"]) == ("evaluate", "client-left")
    accepted = await of_type(field, "aggregator", identity, "update.accepted")
    assert [one["exchange"] for one in accepted].count("evaluate") == 3
