"""A whole ServerApp: started once, heard of, ended by what the aggregator says; never paused."""

from datetime import timedelta
from typing import Any

from tests.integration.orchestrator.conftest import House
from tests.support.federations import BASE, ref

MINUTE = timedelta(minutes=1)
WHOLE: dict[str, Any] = {
    "app": f"fab:{'a' * 64}", "server_app": "whole", "model_ref": None,
    "round_policy": {"deadline_seconds": 60},
}  # fmt: skip


async def serving(house: House) -> str:
    federation = await house.submit(**WHOLE)
    await house.record(federation, 0)
    await house.join(federation, "a", "b")
    await house.heard(federation, "serverapp.started")
    return federation


async def test_it_runs_with_all_who_are_joined_and_ends_with_its_checkpoint(house: House) -> None:
    federation = await serving(house)
    started = await house.heard(federation, "serverapp.started")
    assert [node["client_id"] for node in started["nodes"]] == ["client-a", "client-b"]
    await house.join(federation, "c")
    await house.push(federation)
    await house.record(federation, 7, ref("r7"))
    completed = await house.heard(federation, "federation.completed")
    assert (completed["final"], completed["n_rounds"]) == (ref("r7").model_dump(), 7)
    assert await house.types(federation) == [
        "federation.created", "federation.started", "serverapp.started", "federation.completed",
    ]  # fmt: skip
    assert (await house.heard(federation, "federation.started"))["base"] == BASE.model_dump()


async def test_what_the_aggregator_says_of_it_fails_the_federation(house: House) -> None:
    federation = await serving(house)
    await house.aggregate(federation, 3, "train", failed="it sends other messages")
    failed = await house.heard(federation, "federation.failed")
    assert (failed["code"], failed["reason"]) == ("quorum-missed", "it sends other messages")


async def test_it_may_go_on_while_it_sends_messages_and_no_longer(house: House) -> None:
    federation = await serving(house)
    house.clock.move(MINUTE)
    await house.push(federation)
    await house.until_consumed(4)
    house.clock.move(MINUTE + timedelta(seconds=5))
    await house.heard(federation, "serverapp.extended")
    house.clock.move(3 * MINUTE)
    failed = await house.heard(federation, "federation.failed")
    assert failed["code"] == "aggregator-silent"


async def test_it_cannot_be_paused_or_given_another_policy_only_cancelled(house: House) -> None:
    federation = await serving(house)
    for answer in (
        await house.command("pause", federation),
        await house.change(federation, deadline_seconds=5),
    ):
        assert (answer.status_code, answer.json()["code"]) == (409, "server-app-whole")
    assert (await house.command("resume", federation)).json()["events"] == []
    await house.command("cancel", federation)
    await house.heard(federation, "federation.cancelled")
