"""Every command leaves a row with its actor, whatever became of it; events name the actor too."""

import json
from collections.abc import AsyncIterator
from typing import Any

import asyncpg  # type: ignore[import-untyped]  # has no stubs
import httpx
import pytest
from fastapi.responses import JSONResponse

from flowerbed.contracts.actor import is_proven
from flowerbed.contracts.topology import SUBMISSIONS
from flowerbed.events.jetstream import Bus
from tests.integration.gateway.conftest import Gateway
from tests.integration.gateway.story import (
    CLIENTS,
    FED,
    OTHER,
    TENANT,
    Story,
    document,
    ref,
    whole_story,
)
from tests.support.issuer import TestIssuer, issuer
from tests.support.servers import eventually

KNOWN = ("actor", "tenant", "status", "code")


@pytest.fixture
async def people() -> AsyncIterator[TestIssuer]:
    async with issuer() as made:
        yield made


@pytest.fixture
def more_settings(people: TestIssuer) -> dict[str, Any]:
    return {"issuers": [people.settings().model_dump()]}


async def _rows(gateway: Gateway, **params: Any) -> list[dict[str, Any]]:
    answer = await gateway.http.get("/audit", params=params)
    assert answer.status_code == 200, answer.text
    rows: list[dict[str, Any]] = answer.json()["rows"]
    return rows


async def test_each_command_has_a_row_with_its_actor_and_what_became_of_it(
    gateway: Gateway, people: TestIssuer
) -> None:
    await gateway.hear(whole_story().told)
    problem = {"status": 409, "code": "federation-ended", "detail": "it is over"}
    gateway.behind.answers[f"/internal/federations/{FED}/pause"] = JSONResponse(problem, 409)
    alice = {"authorization": f"Bearer {people.token(flowerbed_roles={TENANT: 'operator'})}"}
    post = gateway.http.post

    submitted = (await post("/federations", json=document())).json()["federation_id"]
    await post("/federations", json={})
    await post(f"/federations/{FED}/pause", json={}, headers=alice)
    await post(f"/federations/{FED}/cancel", json={"reason": "secret words"}, headers=alice)
    await post("/clients/invites", json={"tenant": TENANT}, headers=alice)
    await post(f"/clients/{CLIENTS[0]}/revoke?tenant={OTHER}", json={}, headers=alice)
    await post(f"/artifacts/{ref('two').sha256}/promote", json={"channel": "stable"})
    await post("/nowhere", content=b"{")
    await post("/dead-letters/replay", json={})
    await gateway.http.get("/federations")

    rows = await _rows(gateway)
    who = f"{people.url}#alice"
    assert [tuple(row[name] for name in KNOWN) for row in reversed(rows)] == [
        ("local-token", TENANT, 202, ""),
        ("local-token", "", 422, "spec-refused"),
        (who, TENANT, 409, "federation-ended"),
        (who, TENANT, 200, ""),
        (who, "", 403, "forbidden"),
        (who, "", 403, "forbidden"),
        ("local-token", TENANT, 200, ""),
        ("local-token", "", 404, "not-found"),
        ("local-token", "", 200, ""),
    ]
    first, _, paused, *_ = reversed(rows)
    assert (first["federation_id"], first["action"], first["role"]) == (
        submitted, "submit", "admin",
    )  # fmt: skip
    assert (paused["federation_id"], paused["action"], paused["role"]) == (FED, "pause", "operator")
    assert paused["issuer"] == people.url and paused["address"] == "127.0.0.1"
    assert paused["path"] == f"/federations/{FED}/pause"
    assert "secret words" not in json.dumps(rows)


async def test_who_was_not_let_in_has_a_row_too(gateway: Gateway) -> None:
    address = str(gateway.http.base_url)
    async with httpx.AsyncClient(base_url=address) as stranger:
        for header in ({}, {"authorization": "Bearer guessed"}):
            await stranger.post(f"/federations/{FED}/cancel?token=secret", headers=header, json={})
    rows = await _rows(gateway)
    assert [(row["actor"], row["issuer"], row["status"], row["code"]) for row in rows] == [
        ("", "", 401, "unauthorized"), ("", "", 401, "unauthorized"),
    ]  # fmt: skip
    assert "secret" not in json.dumps(rows) and "guessed" not in json.dumps(rows)


async def test_the_trail_is_read_page_by_page_and_filtered(gateway: Gateway) -> None:
    for number in range(7):
        await gateway.http.post("/federations", json=document() if number % 2 else {})
    found, before = [], None
    while True:
        params = {"limit": 3} | ({"before": before} if before else {})
        page = (await gateway.http.get("/audit", params=params)).json()
        found += page["rows"]
        before = page["next_before"]
        if before is None:
            break
    assert [row["status"] for row in found] == [422, 202, 422, 202, 422, 202, 422]
    assert len({row["id"] for row in found}) == 7
    assert len(await _rows(gateway, status=202)) == 3
    one = found[1]
    assert [row["id"] for row in await _rows(gateway, federation=one["federation_id"])] == [
        one["id"]
    ]
    assert len(await _rows(gateway, actor="local-token")) == 7
    assert await _rows(gateway, actor="nobody") == []
    later = await _rows(gateway, since=found[2]["at"])
    assert [row["id"] for row in later] == [row["id"] for row in found[:3]]
    assert len(await _rows(gateway, until=found[2]["at"])) == 4
    for wrong in ({"since": "0001-01-01T00:00:00+14:00"}, {"before": 2**63}, {"status": 1}):
        assert (await gateway.http.get("/audit", params=wrong)).status_code == 422


async def test_an_admin_of_one_tenant_sees_its_rows_alone(
    gateway: Gateway, people: TestIssuer
) -> None:
    await gateway.http.post("/federations", json=document())
    await gateway.http.post("/federations", json=document(tenant=OTHER))
    await gateway.http.post("/federations", json={})
    for roles, seen in (({TENANT: "admin"}, [TENANT]), ({"*": "admin"}, ["", OTHER, TENANT])):
        headers = {"authorization": f"Bearer {people.token(flowerbed_roles=roles)}"}
        answer = await gateway.http.get("/audit", headers=headers)
        assert [row["tenant"] for row in answer.json()["rows"]] == seen


async def test_nobody_changes_a_row_with_the_services_own_role(gateway: Gateway) -> None:
    await gateway.http.post("/federations", json=document())
    async with gateway.made.database.transaction(TENANT) as tx:
        for statement in ("UPDATE audit SET actor = 'bob'", "DELETE FROM audit"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                async with tx.transaction():
                    await tx.execute(statement)


async def test_rows_wait_for_postgres(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    trail = gateway.shell.app.state.trail
    database = trail._database
    address = database.address
    monkeypatch.setattr("flowerbed.gateway.trail.RETRY_SECONDS", 0.05)

    class Away:
        def transaction(self, tenant: str) -> Any:
            from flowerbed.events.errors import Unavailable

            raise Unavailable("postgres did not answer: tests")

    trail._database = Away()
    await gateway.http.post("/federations", json={})
    trail._database = database
    assert address == database.address

    async def is_written() -> bool:
        return len(await _rows(gateway)) == 1

    await eventually(is_written, "the row is written when Postgres is back")


async def test_the_actor_of_a_command_is_told_to_the_service_that_carries_it_out(
    gateway: Gateway, people: TestIssuer
) -> None:
    await gateway.hear(whole_story().told)
    alice = {"authorization": f"Bearer {people.token(flowerbed_roles={TENANT: 'admin'})}"}
    forged = {**alice, "flowerbed-actor": "bob"}
    await gateway.http.post(f"/federations/{FED}/pause", json={}, headers=forged)
    await gateway.http.post(f"/federations/{FED}/pause", json={})
    assert gateway.behind.actors == [f"{people.url}#alice", "local-token"]


async def test_a_submission_names_its_actor_and_proves_it(
    gateway: Gateway, fresh_streams: Bus
) -> None:
    await gateway.http.post("/federations", json=document(), headers={"idempotency-key": "s1"})
    found = await fresh_streams.api(f"STREAM.MSG.GET.{SUBMISSIONS}", {"seq": 1})
    import base64

    raw = base64.b64decode(found["message"]["hdrs"]).decode()
    headers = dict(line.split(": ", 1) for line in raw.splitlines()[1:] if ": " in line)
    token = gateway.settings.internal_token.get_secret_value()
    assert headers["actor"] == "local-token"
    assert is_proven(headers["actorproof"], token, "s1", "local-token")
    assert not is_proven(headers["actorproof"], token, "s1", "bob")
    assert not is_proven(headers["actorproof"], token, "s2", "local-token")


async def test_the_history_says_who_did_it(gateway: Gateway) -> None:
    story = Story()
    for one in whole_story().told[:12]:
        story.told.append(one)
    await gateway.hear(story.told)
    found = (await gateway.http.get(f"/federations/{FED}/events")).json()["events"]
    assert {event["actor"] for event in found} == {"alice"}
