"""What other services say becomes rounds: once each, in order, on time."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from flowerbed.contracts.catalogue import EVENTS
from flowerbed.contracts.client import ClientJoined, ClientReleased
from flowerbed.contracts.ids import derive_seed
from flowerbed.contracts.values import DatasetRef
from flowerbed.events.codec import Codec
from flowerbed.events.context import Context
from flowerbed.events.rebuild import rebuild
from flowerbed.events.store import EventStore
from flowerbed.orchestrator import membership, sweeper
from flowerbed.orchestrator.commanding import Federations, Situation
from flowerbed.orchestrator.commands import Command, OpenRound
from flowerbed.orchestrator.projections.deadlines import deadlines
from tests.integration.orchestrator.conftest import House, digest
from tests.support.federations import BASE, ref
from tests.support.isolation import assert_walled
from tests.support.servers import eventually

GRACE = timedelta(minutes=1)


def federations_of(house: House) -> Federations:
    return Federations(EventStore(Codec(EVENTS), [deadlines]), house.clock.now)


async def training(house: House, **spec: Any) -> str:
    """A federation in its first round, with clients a and b."""
    federation = await house.submit(**spec)
    await house.record(federation, 0)
    await house.join(federation, "a", "b")
    await house.heard(federation, "round.started")
    return federation


async def test_facts_of_three_services_become_a_federation_from_start_to_end(house: House) -> None:
    federation = await training(house)
    for number in (1, 2):
        await house.heard(federation, "round.started", number)
        await house.record(federation, number, ref(f"r{number}"))
        await house.heard(federation, "round.evaluation_started", number)
        await house.aggregate(federation, number)
        await house.heard(federation, "round.completed", number)
    await house.heard(federation, "federation.completed")
    events = await house.events(federation)
    assert [event_type for event_type, _ in events] == [
        "federation.created", "federation.started",
        "round.started", "round.evaluation_started", "round.completed",
        "round.started", "round.evaluation_started", "round.completed",
        "federation.completed",
    ]  # fmt: skip
    second, last = events[5][1], events[-1][1]
    assert second["base"] == ref("r1").model_dump()
    assert events[4][1]["evaluation"] == {"accuracy": 0.75}
    assert events[4][1]["training"] == {"train-loss": 0.5}
    assert (last["final"], last["n_rounds"]) == (ref("r2").model_dump(), 2)
    assert await house.rows("SELECT 1 FROM deadlines") == [], "what is over waits for nothing"


async def test_a_round_is_told_with_everything_it_needs(house: House) -> None:
    federation = await training(house)
    told = await house.heard(federation, "round.started")
    seed = derive_seed(7, "round", 1)
    assert told["cohort"] == [
        {
            "client_id": f"client-{name}", "lease_id": f"lease-{name}", "lease_epoch": 1,
            "seed": derive_seed(seed, "client", place),
        }
        for place, name in enumerate(("a", "b"))
    ]  # fmt: skip
    assert (told["seed"], told["goal"], told["n_required"]) == (seed, 2, 2)
    assert told["base"] == BASE.model_dump()


async def test_it_does_not_matter_whether_the_base_or_the_clients_come_first(house: House) -> None:
    federation = await house.submit()
    await house.join(federation, "a", "b")
    await house.until_consumed(2)
    assert await house.types(federation) == ["federation.created"]
    await house.record(federation, 0)
    await house.heard(federation, "round.started")
    assert (await house.heard(federation, "federation.started"))["n_clients"] == 2


async def test_every_event_names_the_fact_that_caused_it(house: House) -> None:
    await training(house)
    rows = await house.rows(
        "SELECT meta->>'causation_id' AS cause, tenant FROM events WHERE version > 1"
    )
    assert len(rows) == 2 and len({row["cause"] for row in rows}) == 1
    assert all(row["cause"] and row["tenant"] == "acme" for row in rows)


async def test_members_are_who_is_joined_now_under_which_epoch(house: House) -> None:
    federation = await house.submit(min_clients=3)
    await house.join(federation, "a", "b")
    await house.leave(federation, "a")
    await house.leave(federation, "b", kind=ClientReleased)
    await house.join(federation, "a", epoch=2)
    await house.leave(federation, "a", epoch=1)
    await house.until_consumed(4 + 2)
    rows = await house.rows("SELECT client_id, lease_epoch, dataset_sha256 FROM members")
    assert rows == [{"client_id": "client-a", "lease_epoch": 2, "dataset_sha256": digest("a")}], (
        "a late drop of an older epoch removes nobody"
    )


async def test_who_left_is_in_no_later_round(house: House) -> None:
    federation = await training(house)
    await house.join(federation, "c")
    await house.leave(federation, "a")
    await house.until_consumed(2 + 1 + 1 + 1)
    await house.record(federation, 1, ref("r1"))
    told = await house.heard(federation, "round.evaluation_started")
    assert [one["client_id"] for one in told["cohort"]] == ["client-b", "client-c"]


async def test_an_attempt_that_missed_its_quorum_is_followed_by_another_then_by_the_end(
    house: House,
) -> None:
    federation = await training(house)
    await house.aggregate(federation, 1, "train", 1, failed="1 of 2 answered")
    second = await house.heard(federation, "round.started", 2)
    assert (second["round_number"], second["attempt"]) == (1, 2)
    await house.aggregate(federation, 1, "train", 1, failed="told twice, too late")
    await house.record(federation, 1, ref("late"), attempt=1)
    await house.aggregate(federation, 1, "train", 2, failed="0 of 2 answered")
    end = await house.heard(federation, "federation.failed")
    assert end["code"] == "round-failed" and "0 of 2 answered" in end["reason"]
    assert (await house.types(federation)).count("round.failed") == 2


async def test_a_base_that_cannot_be_made_fails_the_federation(house: House) -> None:
    federation = await house.submit()
    await house.aggregate(federation, 0, "initialize", failed="no such object")
    assert (await house.heard(federation, "federation.failed"))["reason"] == "no such object"


async def test_a_failed_evaluation_does_not_fail_the_round(house: House) -> None:
    federation = await training(house, num_rounds=1)
    await house.record(federation, 1, ref("r1"))
    await house.heard(federation, "round.evaluation_started")
    await house.aggregate(federation, 1, "evaluate", failed="nobody answered")
    told = await house.heard(federation, "round.completed")
    assert (told["evaluation"], told["evaluation_error"]) == ({}, "nobody answered")
    await house.heard(federation, "federation.completed")


async def test_an_aggregate_counts_when_its_checkpoint_is_recorded_and_states_do_not(
    house: House,
) -> None:
    federation = await training(house)
    await house.aggregate(federation, 1, "train")
    await house.record(federation, 1, ref("state"), kind="state")
    await house.until_consumed(2 + 1 + 1 + 1)
    assert (await house.types(federation))[-1] == "round.started"


async def test_eight_clients_that_join_at_once_start_one_round(house: House) -> None:
    federation = await house.submit(min_clients=8)
    await house.record(federation, 0)
    await house.until_consumed(1)
    one = federations_of(house)
    names = "abcdefgh"

    def open_round(now: Situation) -> Command:
        return OpenRound(base=now.base, pool=now.pool, at=now.at)

    async def join(name: str) -> None:
        joined = ClientJoined(
            client_id=f"client-{name}", federation_id=federation, lease_id=f"lease-{name}",
            epoch=1, dataset=DatasetRef(label="hospital-1", sha256=digest(name)),
        )  # fmt: skip
        async with house.made.database.transaction("acme") as tx:
            await membership.lock(tx, federation)
            await membership.join(tx, "acme", joined)
            await one.command(tx, federation, open_round, Context(tenant="acme"))

    await asyncio.gather(*(join(name) for name in names))
    assert await house.types(federation) == [
        "federation.created", "federation.started", "round.started",
    ]  # fmt: skip
    cohort = (await house.heard(federation, "round.started"))["cohort"]
    assert [one["client_id"] for one in cohort] == [f"client-{name}" for name in names]
    await asyncio.gather(
        *(
            one.handle(house.made.database, federation, open_round, Context(tenant="acme"))
            for _ in range(8)
        )
    )
    assert (await house.types(federation)).count("round.started") == 1


async def test_a_service_that_starts_again_goes_on_where_it_was(house: House) -> None:
    federation = await training(house)
    await house.stop()
    await house.record(federation, 1, ref("r1"))
    await house.start()
    await house.heard(federation, "round.evaluation_started")
    assert (await house.types(federation)).count("round.evaluation_started") == 1


# --- deadlines ---------------------------------------------------------------------------------


class Enough(Exception):
    """The sweeper has run as long as the test wants."""


@pytest.fixture
def sweep(house: House, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """`await sweep()`: one look of the sweeper; how long it would sleep then, in seconds."""

    async def once() -> float:
        slept: list[float] = []

        async def sleep(seconds: float) -> None:
            slept.append(seconds)
            raise Enough

        monkeypatch.setattr(sweeper, "asyncio", SimpleNamespace(sleep=sleep))
        with pytest.raises(Enough):
            await sweeper.sweep(house.made.database, federations_of(house), house.clock.now)
        monkeypatch.setattr(sweeper, "asyncio", asyncio)
        return slept[0]

    return once


async def due_in(house: House, federation: str) -> float:
    """Minutes, rounded, until somebody looks."""
    (row,) = await house.rows("SELECT due_at FROM deadlines WHERE federation_id = $1", federation)
    left: timedelta = row["due_at"] - house.clock.now()
    return round(left.total_seconds() / 60)


async def test_every_wait_has_a_deadline_in_the_projection(house: House) -> None:
    federation = await house.submit(round_policy={"deadline_seconds": 120})
    assert await due_in(house, federation) == 60
    await house.record(federation, 0)
    await house.join(federation, "a", "b")
    await house.heard(federation, "round.started")
    assert await due_in(house, federation) == 2 + 1, "its own deadline and the patience after it"
    await house.command("pause", federation)
    assert await due_in(house, federation) == 3, "an open exchange may end"
    await house.record(federation, 1, ref("r1"))
    await house.heard(federation, "round.evaluation_started")
    await house.aggregate(federation, 1)
    await house.heard(federation, "round.completed")
    assert await due_in(house, federation) == 30 * 24 * 60, "paused"
    await house.leave(federation, "a")
    await house.until_consumed(1 + 2 + 1 + 1 + 1)
    await house.command("resume", federation)
    assert await due_in(house, federation) == 60
    await house.command("cancel", federation)
    assert await house.rows("SELECT 1 FROM deadlines") == []


async def test_too_few_clients_at_the_join_deadline_end_it(
    house: House, sweep: Callable[..., Any]
) -> None:
    federation = await house.submit()
    await house.join(federation, "a")
    await house.until_consumed(1)
    await sweep()
    assert await house.types(federation) == ["federation.created"], "not yet"
    house.clock.move(timedelta(hours=1))
    await sweep()
    end = await house.heard(federation, "federation.failed")
    assert end["code"] == "too-few-clients" and "1 of 2 clients had joined" in end["reason"]


async def test_a_silent_aggregator_costs_an_attempt(
    house: House, sweep: Callable[..., Any]
) -> None:
    federation = await training(house)
    house.clock.move(timedelta(minutes=1) + GRACE)
    await sweep()
    failed = await house.heard(federation, "round.failed")
    assert (failed["code"], failed["attempts_left"]) == ("aggregator-silent", 1)
    assert (await house.heard(federation, "round.started", 2))["attempt"] == 2


async def test_an_evaluation_that_nobody_closes_ends_at_its_deadline(
    house: House, sweep: Callable[..., Any]
) -> None:
    federation = await training(house)
    await house.record(federation, 1, ref("r1"))
    await house.heard(federation, "round.evaluation_started")
    house.clock.move(timedelta(minutes=1) + GRACE)
    await sweep()
    told = await house.heard(federation, "round.completed")
    assert "no evaluation 60 s after its deadline" in told["evaluation_error"]
    await house.heard(federation, "round.started", 2)


async def test_the_sweeper_sleeps_until_the_next_deadline_but_not_long(
    house: House, sweep: Callable[..., Any]
) -> None:
    assert await sweep() == sweeper.LONGEST_SLEEP.total_seconds()
    await house.submit(round_policy={"join_deadline_seconds": 3})
    assert 1.0 <= await sweep() <= 3.0


async def test_federations_of_every_tenant_are_looked_at(
    house: House, sweep: Callable[..., Any]
) -> None:
    ours, theirs = await house.submit(), await house.submit(tenant="other")
    house.clock.move(timedelta(hours=2))
    await sweep()
    for federation in (ours, theirs):
        await house.heard(federation, "federation.failed")
    rows = await house.rows("SELECT DISTINCT tenant FROM events WHERE version = 2")
    assert {row["tenant"] for row in rows} == {"acme", "other"}


async def test_the_running_service_looks_by_itself(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await house.stop()
    monkeypatch.setattr(sweeper, "LONGEST_SLEEP", timedelta(seconds=0.1))
    await house.start()
    federation = await house.submit(round_policy={"join_deadline_seconds": 0.5})
    assert (await house.heard(federation, "federation.failed"))["code"] == "too-few-clients"


# --- a person's commands -----------------------------------------------------------------------


async def test_pausing_and_resuming_over_http(house: House) -> None:
    federation = await house.submit()
    answer = await house.command("pause", federation, reason="audit")
    assert answer.json() == {"federation_id": federation, "events": ["fl.federation.paused"]}
    assert (await house.command("pause", federation)).json()["events"] == []
    await house.record(federation, 0)
    await house.join(federation, "a", "b")
    await house.until_consumed(3)
    assert "round.started" not in await house.types(federation)
    answer = await house.command("resume", federation)
    assert answer.json()["events"] == [
        "fl.federation.resumed", "fl.federation.started", "fl.round.started",
    ]  # fmt: skip
    told = await house.heard(federation, "federation.paused")
    assert told["reason"] == "audit"
    (row,) = await house.rows("SELECT meta->>'actor' AS who FROM events WHERE version = 2")
    assert row["who"] == "alice"


async def test_cancelling_is_final(house: House) -> None:
    federation = await training(house)
    answer = await house.command("cancel", federation, reason="enough")
    assert answer.json()["events"] == ["fl.federation.cancelled"]
    assert (await house.command("cancel", federation)).json()["events"] == []
    await house.record(federation, 1, ref("r1"))
    await house.until_consumed(2 + 1 + 1)
    assert (await house.types(federation))[-1] == "federation.cancelled"
    for verb in ("pause", "resume"):
        answer = await house.command(verb, federation)
        assert (answer.status_code, answer.json()["code"]) == (409, "federation-ended")


async def test_a_command_reaches_the_own_tenants_federations_alone(house: House) -> None:
    federation = await house.submit()
    for verb in ("pause", "resume", "cancel"):
        for name, tenant in ((federation, "other"), ("fed-unknown", "acme")):
            answer = await house.command(verb, name, tenant=tenant)
            assert (answer.status_code, answer.json()["code"]) == (404, "not-found")
    assert await house.types(federation) == ["federation.created"]


async def test_a_command_needs_the_token_and_known_words(house: House) -> None:
    federation = await house.submit()
    path = f"/internal/federations/{federation}/cancel"
    for headers in ({"authorization": "Bearer guessed"}, {"authorization": ""}):
        answer = await house.http.post(path, json={"tenant": "acme"}, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
    for body in ({}, {"tenant": "a.b"}, {"tenant": "acme", "force": True}):
        assert (await house.http.post(path, json=body)).status_code == 422
    answer = await house.command("cancel", federation, reason="no\0w")
    assert answer.status_code == 200
    assert (await house.heard(federation, "federation.cancelled"))["reason"] == "no\ufffdw"


# --- its tables --------------------------------------------------------------------------------


async def test_the_projection_rebuilt_from_history_is_the_live_one(house: House) -> None:
    await training(house)
    await house.submit()
    paused = await house.submit(tenant="other")
    await house.command("pause", paused, tenant="other")
    over = await house.submit()
    await house.command("cancel", over)
    query = "SELECT federation_id, tenant, due_at FROM deadlines ORDER BY federation_id"
    live = await house.rows(query)
    assert len(live) == 3
    owner = await house.made.owner()
    assert await rebuild(owner, deadlines, EventStore(Codec(EVENTS), [deadlines])) == 8
    assert await house.rows(query) == live
    await house.command("cancel", paused, tenant="other")
    assert len(await house.rows(query)) == 2, "and goes on from there"


async def test_a_tenants_rows_are_its_own_on_every_table(house: House) -> None:
    for tenant in ("acme", "other"):
        federation = await house.submit(tenant=tenant)
        await house.record(federation, 0, tenant=tenant)
        await house.join(federation, "a", tenant=tenant)
        await house.push(federation, tenant=tenant)
    await house.until_consumed(6)
    for mine, other in (("acme", "other"), ("other", "acme")):
        await assert_walled(house.made, mine, other, empty={"dead_letters"})


async def test_what_is_counted_is_seen(house: House) -> None:
    federation = await training(house)
    await house.record(federation, 1, ref("r1"))
    await house.heard(federation, "round.evaluation_started")
    await house.aggregate(federation, 1)
    await house.heard(federation, "round.completed")

    async def is_counted() -> bool:
        text = (await house.http.get("/metrics")).text
        names = [
            "fl_rounds_started_total", "fl_rounds_completed_total",
            "fl_round_duration_seconds_count", "fl_round_budget_used_ratio_count",
        ]  # fmt: skip
        lines = {line.split()[0]: line.split()[-1] for line in text.splitlines() if line[0] != "#"}
        return all(float(lines[name]) >= 1 for name in names)

    await eventually(is_counted, "the rounds are counted")
    assert (await house.http.get("/healthz")).status_code == 200
