"""Subscriptions: every event behind a position, once, however often the connection is cut."""

import asyncio
import random
from contextlib import aclosing

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from flowerbed.events.serving import LONGEST_MESSAGE
from tests.integration.gateway.conftest import Gateway
from tests.integration.gateway.story import FED, whole_story
from tests.support.graphql_ws import PROTOCOL, Refused, spoken

OF_ONE = """
subscription ($id: ID!, $after: Long!) {
  federationEvents(id: $id, after: $after) { position type federationId }
}
"""
OF_ALL = "subscription ($after: Long!) { events(after: $after) { position type } }"


async def test_a_subscriber_killed_fifty_times_sees_each_event_once(gateway: Gateway) -> None:
    """It resumes behind the last position it has seen."""
    chance = random.Random(11)
    story = whole_story()
    seen: list[int] = []
    telling = asyncio.create_task(gateway.hear(story.told))
    n_kills = 0
    while n_kills < 50 or len(seen) < len(story.told):
        async with spoken(gateway.http, in_header=n_kills % 2 == 0) as one:
            quota = chance.randint(0, 2)
            after = seen[-1] if seen else 0
            async with aclosing(one.subscribe(OF_ALL, after=after)) as events:
                while quota and len(seen) < len(story.told):
                    seen.append((await anext(events))["events"]["position"])
                    quota -= 1
            one.socket.transport.abort()  # as when the process dies
        n_kills += 1
    await telling

    answer = await gateway.http.get("/events", params={"limit": 1000})
    assert seen == [one["position"] for one in answer.json()["events"]]


async def test_a_subscription_is_of_one_federation_and_goes_on(gateway: Gateway) -> None:
    story = whole_story().told
    first = next(place for place, one in enumerate(story) if one.context.correlation_id == FED)
    await gateway.hear(story[: first + 5])
    mine = sum(one.context.correlation_id == FED for one in story)
    async with (
        spoken(gateway.http) as one,
        aclosing(one.subscribe(OF_ONE, id=FED, after=0)) as events,
    ):
        seen = [(await anext(events))["federationEvents"]]
        await gateway.hear(story[first + 5 :])
        async with asyncio.timeout(60):
            while len(seen) < mine:
                seen.append((await anext(events))["federationEvents"])

    assert {one["federationId"] for one in seen} == {FED}
    positions = [one["position"] for one in seen]
    assert positions == sorted(set(positions))


async def test_a_subscription_to_nothing_known_is_refused(gateway: Gateway) -> None:
    async with spoken(gateway.http) as one:
        with pytest.raises(Refused) as refused:
            await anext(one.subscribe(OF_ONE, id="fed-x", after=0))
    assert refused.value.errors[0]["extensions"] == {"code": "not-found", "status": 404}


async def test_who_shows_no_token_hears_nothing(gateway: Gateway) -> None:
    for token in ("Bearer wrong", "nonsense"):
        for in_header in (True, False):
            with pytest.raises(ConnectionClosed) as closed:
                async with spoken(gateway.http, token=token, in_header=in_header):
                    pass
            assert closed.value.rcvd is not None and closed.value.rcvd.code == 4403


async def test_only_the_protocol_that_is_kept_up_is_spoken(gateway: Gateway) -> None:
    url = str(gateway.http.base_url.copy_with(scheme="ws", path="/graphql"))
    async with connect(url, subprotocols=["graphql-ws"]) as socket:  # type: ignore[list-item]
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()
    assert closed.value.rcvd is not None and closed.value.rcvd.code == 4406
    assert PROTOCOL == "graphql-transport-ws"


async def test_a_message_that_is_too_large_is_not_read(gateway: Gateway) -> None:
    url = str(gateway.http.base_url.copy_with(scheme="ws", path="/graphql"))
    async with connect(url, subprotocols=[PROTOCOL]) as socket:
        with pytest.raises(ConnectionClosed) as closed:
            await socket.send("x" * (LONGEST_MESSAGE + 1))
            await socket.recv()
    assert closed.value.rcvd is not None and closed.value.rcvd.code == 1009
