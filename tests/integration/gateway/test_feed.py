"""The durable feed: from any position, by page and by stream, each event once."""

import asyncio
import random
from functools import partial
from typing import Any

from tests.integration.gateway.conftest import Gateway
from tests.integration.gateway.story import FED, OTHER, TENANT, whole_story
from tests.support.servers import eventually
from tests.support.sse import subscribed


async def _all(gateway: Gateway, **params: Any) -> list[dict[str, Any]]:
    answer = await gateway.http.get("/events", params={"limit": 1000, **params})
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["events"]
    return found


async def test_the_feed_has_every_event_once_in_the_order_of_positions(gateway: Gateway) -> None:
    story = whole_story()
    await gateway.hear(story.told)

    found = await _all(gateway)

    assert {one["id"] for one in found} == {str(one.id) for one in story.told}
    assert [one["position"] for one in found] == sorted({one["position"] for one in found})
    assert {one["tenant"] for one in found} == {TENANT, OTHER}
    last = (await gateway.http.get("/events/last")).json()["position"]
    assert last == found[-1]["position"]


async def test_a_page_is_of_one_tenant_federation_or_type(gateway: Gateway) -> None:
    await gateway.hear(whole_story().told)
    found = await _all(gateway)

    assert await _all(gateway, tenant=OTHER) == [one for one in found if one["tenant"] == OTHER]
    of_one = [one for one in found if one["federation_id"] == FED]
    assert await _all(gateway, federation=FED) == of_one
    types = ["fl.round.started", "fl.round.completed"]
    assert await _all(gateway, type=types) == [one for one in found if one["type"] in types]
    unknown = await gateway.http.get("/events", params={"type": "fl.round.begun"})
    assert (unknown.status_code, unknown.json()["code"]) == (422, "event-type-unknown")


async def test_a_subscriber_cut_off_fifty_times_sees_each_event_once(gateway: Gateway) -> None:
    """It is cut off after a few events, wherever that is in what the server sends."""
    chance = random.Random(5)
    story = whole_story()
    seen: list[int] = []
    last: str | None = None
    telling = asyncio.create_task(gateway.hear(story.told))
    n_cuts = 0
    while len(seen) < len(story.told) or n_cuts < 50:
        quota = chance.randint(0, 2)
        async with subscribed(gateway.http, "/events", last=last) as sent:
            if len(seen) < len(story.told):
                async for one in sent:
                    seen.append(one.data["position"])
                    last = one.id
                    quota -= 1
                    if quota <= 0 or len(seen) == len(story.told):
                        break
        n_cuts += 1
    await telling

    assert seen == [one["position"] for one in await _all(gateway)]


async def test_what_is_committed_is_sent_at_once_to_whom_it_concerns(gateway: Gateway) -> None:
    story = whole_story()
    async with (
        subscribed(gateway.http, "/events", tenant=TENANT) as mine,
        subscribed(gateway.http, "/events", tenant=OTHER) as theirs,
    ):
        await gateway.hear(story.told)
        n_mine = sum(1 for one in story.told if one.context.tenant == TENANT)
        async with asyncio.timeout(60):
            first = [await anext(mine) for _ in range(n_mine)]
            other = [await anext(theirs) for _ in range(len(story.told) - n_mine)]

    assert {one.data["tenant"] for one in first} == {TENANT}
    assert {one.data["tenant"] for one in other} == {OTHER}


async def test_nothing_is_read_while_nobody_follows(gateway: Gateway) -> None:
    async with subscribed(gateway.http, "/events"):
        await eventually(partial(_has_task, "feed", True), "the feed is read")
    await eventually(partial(_has_task, "feed", False), "the feed rests")


async def _has_task(name: str, is_there: bool) -> bool:
    return any(task.get_name() == name for task in asyncio.all_tasks()) == is_there


async def test_a_position_that_is_none_is_refused(gateway: Gateway) -> None:
    headers = {"last-event-id": "yesterday", "accept": "text/event-stream"}
    answer = await gateway.http.get("/events", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (400, "position-unreadable")
    assert (await gateway.http.get("/events", params={"after": -1})).status_code == 422
    assert (await gateway.http.get("/events", params={"after": 2**63})).status_code == 422
