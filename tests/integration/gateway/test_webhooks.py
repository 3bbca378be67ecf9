"""Webhooks: each event reaches each receiver in order, signed, however bad the receiver's day."""

import json
import random
from functools import partial
from typing import Any

from fastapi import Response
from standardwebhooks import Webhook as Verifier

from tests.integration.gateway.conftest import Gateway
from tests.integration.gateway.story import FED, OTHER, TENANT, whole_story
from tests.support.receiver import Receiver, Sent, receiving
from tests.support.servers import eventually


async def _create(gateway: Gateway, receiver: Receiver, **more: Any) -> dict[str, Any]:
    answer = await gateway.http.post("/webhooks", json={"url": receiver.url, **more})
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


async def _show(gateway: Gateway, made: dict[str, Any]) -> dict[str, Any]:
    answer = await gateway.http.get(f"/webhooks/{made['webhook_id']}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def _is(gateway: Gateway, made: dict[str, Any], **expected: Any) -> bool:
    found = await _show(gateway, made)
    return all(found[name] == value for name, value in expected.items())


async def _feed(gateway: Gateway, **params: Any) -> list[dict[str, Any]]:
    answer = await gateway.http.get("/events", params={"limit": 1000, **params})
    events: list[dict[str, Any]] = answer.json()["events"]
    return events


def _positions(sent: list[Sent]) -> list[int]:
    return [json.loads(one.body)["position"] for one in sent]


async def test_a_receiver_that_fails_half_of_the_time_gets_each_event_in_order(
    gateway: Gateway,
) -> None:
    chance = random.Random(7)

    def moody() -> Response:
        return Response(status_code=500 if chance.random() < 0.5 else 204)

    async with receiving(answer=moody) as receiver:
        made = await _create(gateway, receiver, after=0)
        await gateway.hear(whole_story().told)
        events = await _feed(gateway)
        last = events[-1]["position"]
        await eventually(partial(_is, gateway, made, position=last, lag=0), "all is delivered")
        failed = [one for one in receiver.sent if one.status == 500]

    assert _positions(receiver.taken) == [one["position"] for one in events]
    assert len(failed) > len(events) / 4
    verifier = Verifier(made["secret"])
    for one, event in zip(receiver.taken, events, strict=True):
        told = verifier.verify(one.body.decode(), one.headers)
        assert told == {**event, "timestamp": event["recorded_at"]}
        assert one.headers["webhook-id"] == event["id"]
        assert one.headers["content-type"] == "application/json"
    found = await _show(gateway, made)
    assert (found["status"], found["n_failures"], found["last_error"]) == ("active", 0, "")
    assert found["delivered_at"]


async def test_only_what_is_meant_is_sent(gateway: Gateway) -> None:
    types = ["fl.round.started", "fl.round.completed"]
    await gateway.hear(whole_story().told)
    async with receiving() as mine, receiving() as theirs, receiving() as later:
        one = await _create(gateway, mine, federation_id=FED, types=types, after=0)
        two = await _create(gateway, theirs, tenant=OTHER, after=0)
        await _create(gateway, later)
        wanted = [event for event in await _feed(gateway, federation=FED) if event["type"] in types]
        others = await _feed(gateway, tenant=OTHER)
        await eventually(lambda: len(mine.taken) == len(wanted), "those of the rounds")
        await eventually(lambda: len(theirs.taken) == len(others), "those of the other tenant")

    assert (one["tenant"], two["tenant"]) == (TENANT, OTHER)
    assert _positions(mine.taken) == [event["position"] for event in wanted]
    assert _positions(theirs.taken) == [event["position"] for event in others]
    assert later.sent == []


async def test_a_slow_receiver_holds_up_no_other(gateway: Gateway) -> None:
    async with receiving() as slow, receiving() as quick:
        slow.holding.clear()
        made = await _create(gateway, slow, after=0)
        await _create(gateway, quick, after=0)
        story = whole_story()
        await gateway.hear(story.told)
        await eventually(lambda: len(quick.taken) == len(story.told), "the quick one has all")
        assert slow.sent == []
        assert await _is(gateway, made, position=0, lag=len(story.told))
        ready = (await gateway.http.get("/readyz")).json()
        assert ready["lags"]["webhooks"] == len(story.told)


async def test_a_replay_sends_everything_behind_a_position_again(gateway: Gateway) -> None:
    async with receiving() as receiver:
        made = await _create(gateway, receiver, after=0)
        await gateway.hear(whole_story().told)
        positions = [event["position"] for event in await _feed(gateway)]
        await eventually(lambda: len(receiver.taken) == len(positions), "all is delivered")
        receiver.sent.clear()
        middle = positions[len(positions) // 2]
        path = f"/webhooks/{made['webhook_id']}/replay"
        answer = await gateway.http.post(path, json={"after": middle})
        assert answer.status_code == 200, answer.text
        again = [position for position in positions if position > middle]
        await eventually(lambda: len(receiver.taken) == len(again), "the rest came again")

    assert _positions(receiver.taken) == again


# --- who may see and do what ------------------------------------------------


async def test_a_secret_is_shown_once(gateway: Gateway) -> None:
    async with receiving() as receiver:
        made = await _create(gateway, receiver, tenant=TENANT)
        shown = [
            await _show(gateway, made),
            *(await gateway.http.get("/webhooks")).json()["webhooks"],
            (await gateway.http.post(f"/webhooks/{made['webhook_id']}/pause")).json(),
            (await gateway.http.post(f"/webhooks/{made['webhook_id']}/resume")).json(),
        ]

    assert made["secret"].startswith("whsec_")
    assert len(shown) == 4
    assert all(made["secret"] not in json.dumps(one) and "secret" not in one for one in shown)
    assert [one["status"] for one in shown] == ["active", "active", "paused", "active"]


async def test_a_tenant_sees_and_changes_its_own_webhooks_alone(gateway: Gateway) -> None:
    async with receiving() as receiver:
        made = await _create(gateway, receiver, tenant=TENANT)
        path, theirs = f"/webhooks/{made['webhook_id']}", {"tenant": OTHER}
        assert (await gateway.http.get("/webhooks", params=theirs)).json() == {"webhooks": []}
        refused = [
            await gateway.http.get(path, params=theirs),
            await gateway.http.delete(path, params=theirs),
            await gateway.http.post(f"{path}/pause", params=theirs),
            await gateway.http.post(f"{path}/replay", params=theirs, json={"after": 0}),
        ]
        assert {answer.status_code for answer in refused} == {404}
        async with gateway.shell.database.transaction(OTHER) as tx:
            assert await tx.fetchval("SELECT count(*) FROM webhooks") == 0
        mine = {"tenant": TENANT}
        assert len((await gateway.http.get("/webhooks", params=mine)).json()["webhooks"]) == 1
        assert (await gateway.http.delete(path, params=mine)).status_code == 204
        assert (await gateway.http.get(path)).status_code == 404


REFUSED: tuple[tuple[dict[str, Any], int, str], ...] = (
    ({"url": "http://169.254.169.254/"}, 422, "webhook-url-refused"),
    ({"url": "http://example.com/"}, 422, "webhook-url-refused"),
    ({"url": "https://example.com/", "types": ["fl.round.begun"]}, 422, "event-type-unknown"),
    ({"url": "https://example.com/", "types": []}, 422, "not-valid"),
    ({"url": "https://example.com/", "federation_id": "fed-x"}, 404, "not-found"),
    ({"url": "https://example.com/", "tenant": "*"}, 422, "not-valid"),
    ({"url": "https://example.com/", "after": -1}, 422, "not-valid"),
    ({"url": "https://example.com/", "after": 2**63}, 422, "not-valid"),
    ({"url": "https://example.com/", "colour": "red"}, 422, "not-valid"),
    ({}, 422, "not-valid"),
)


async def test_a_webhook_that_cannot_be_is_refused(gateway: Gateway) -> None:
    for body, status, code in REFUSED:
        answer = await gateway.http.post("/webhooks", json=body)
        assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert (await gateway.http.get("/webhooks")).json() == {"webhooks": []}
