"""One attempt after the other: what a receiver answers, and what comes of it."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import aiohttp
import pytest
from fastapi import Response

from flowerbed.events.errors import Unavailable
from flowerbed.gateway.feed import Feed
from flowerbed.gateway.webhooks.delivery import Deliveries
from flowerbed.gateway.webhooks.pace import Pace
from flowerbed.gateway.webhooks.store import Active, Webhooks
from flowerbed.gateway.webhooks.view import EVERY_TENANT, WebhookCreated, WebhookRequest
from tests.integration.gateway.conftest import Kept
from tests.integration.gateway.story import whole_story
from tests.support.receiver import Receiver, receiving
from tests.support.servers import eventually


class Forgetful(Webhooks):
    """Loses the first commit after a delivery."""

    n_lost = 0

    async def delivered(self, hook: Active, position: int) -> bool:
        if self.n_lost == 0:
            self.n_lost = 1
            raise Unavailable("postgres did not answer")
        return await super().delivered(hook, position)


@asynccontextmanager
async def delivering(
    kept: Kept, webhooks: Webhooks, pace: Pace | None = None
) -> AsyncIterator[asyncio.Task[None]]:
    feed = Feed(kept.made.database, asyncio.Event())
    deliveries = Deliveries(webhooks, feed, pace or Pace(first=0.01), asyncio.Event())
    running = asyncio.create_task(deliveries.run())
    try:
        yield running
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def _made(webhooks: Webhooks, receiver: Receiver, path: str = "/hook") -> WebhookCreated:
    asked = WebhookRequest(url=receiver.url.replace("/hook", path))
    return await webhooks.create(asked, EVERY_TENANT, after=0, by="tester")


async def test_a_crash_between_delivery_and_commit_repeats_with_the_same_id(kept: Kept) -> None:
    story = whole_story()
    await kept.keep(story.told)
    webhooks = Forgetful(kept.made.database)
    async with receiving() as receiver:
        await _made(webhooks, receiver)
        async with delivering(kept, webhooks) as first:
            with pytest.raises(Unavailable):
                await first
        assert len(receiver.sent) == 1
        async with delivering(kept, webhooks):
            await eventually(lambda: len(receiver.sent) > len(story.told), "it goes on")

    ids = [one.headers["webhook-id"] for one in receiver.sent]
    assert ids[0] == ids[1]
    assert ids[1:] == [str(one.id) for one in story.told]


async def test_after_days_of_failure_it_is_disabled_and_a_replay_goes_on(kept: Kept) -> None:
    story = whole_story()
    await kept.keep(story.told)
    webhooks = Webhooks(kept.made.database)
    answers = {"now": 503}
    async with receiving(answer=lambda: Response(status_code=answers["now"])) as receiver:
        made = await _made(webhooks, receiver)

        async def status() -> str:
            return (await webhooks.one(None, made.webhook_id)).status

        async def is_disabled() -> bool:
            return await status() == "disabled"

        async with delivering(kept, webhooks, Pace(first=0.01, longest=0.02, patience=0.2)):
            await eventually(is_disabled, "it is given up")
        found = await webhooks.one(None, made.webhook_id)
        assert found.position == 0
        assert found.reason.endswith("the last: answered 503")
        assert "attempts failed since" in found.reason
        answers["now"] = 200
        await webhooks.replay(None, made.webhook_id, found.position)
        async with delivering(kept, webhooks):
            await eventually(lambda: len(receiver.taken) == len(story.told), "all came")
        assert await status() == "active"


async def test_a_receiver_that_is_gone_is_asked_once(kept: Kept) -> None:
    await kept.keep(whole_story().told)
    webhooks = Webhooks(kept.made.database)
    async with receiving(answer=lambda: Response(status_code=410)) as receiver:
        made = await _made(webhooks, receiver)

        async def is_disabled() -> bool:
            return (await webhooks.one(None, made.webhook_id)).status == "disabled"

        async with delivering(kept, webhooks):
            await eventually(is_disabled, "it is disabled")
        assert len(receiver.sent) == 1
        assert "410" in (await webhooks.one(None, made.webhook_id)).reason


async def test_a_redirect_is_a_failure_and_is_not_followed(kept: Kept) -> None:
    await kept.keep(whole_story().told)
    webhooks = Webhooks(kept.made.database)
    elsewhere = Response(status_code=307, headers={"location": "/elsewhere"})
    async with receiving(answer=lambda: elsewhere) as receiver:
        made = await _made(webhooks, receiver)
        async with delivering(kept, webhooks):
            await eventually(lambda: len(receiver.sent) > 2, "it is tried again")
        found = await webhooks.one(None, made.webhook_id)

    assert {one.path for one in receiver.sent} == {"/hook"}
    assert found.last_error == "answered 307; redirects are not followed"
    assert found.n_failures >= 2 and found.next_attempt_at is not None


async def test_a_receiver_that_asks_for_time_gets_it(kept: Kept) -> None:
    await kept.keep(whole_story().told)
    webhooks = Webhooks(kept.made.database)
    busy = Response(status_code=429, headers={"retry-after": "3600"})
    async with receiving(answer=lambda: busy) as receiver:
        made = await _made(webhooks, receiver)

        async def is_waiting() -> bool:
            return (await webhooks.one(None, made.webhook_id)).next_attempt_at is not None

        for _ in range(2):  # a restart does not make it less patient
            async with delivering(kept, webhooks):
                await eventually(is_waiting, "it waits")
        found = await webhooks.one(None, made.webhook_id)

    assert len(receiver.sent) == 1
    assert found.next_attempt_at is not None
    assert (found.next_attempt_at - datetime.now(UTC)).total_seconds() > 3000


async def test_no_answer_in_time_is_a_failure(kept: Kept) -> None:
    await kept.keep(whole_story().told)
    webhooks = Webhooks(kept.made.database)
    async with receiving() as receiver:
        receiver.holding.clear()
        made = await _made(webhooks, receiver)

        async def has_failed() -> bool:
            return (await webhooks.one(None, made.webhook_id)).n_failures > 0

        async with delivering(kept, webhooks, Pace(timeout=0.05, first=5)):
            await eventually(has_failed, "it has failed")
        assert (await webhooks.one(None, made.webhook_id)).last_error == "no answer in time"


async def test_a_name_that_stands_for_a_refused_address_is_not_called(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stood for another one when the webhook was made."""
    await kept.keep(whole_story().told)
    webhooks = Webhooks(kept.made.database)
    asked = WebhookRequest(url="https://169-254-169-254.example/hook")
    made = await webhooks.create(asked, EVERY_TENANT, after=0, by="tester")

    async def resolve(self: object, host: str, port: int = 0, **_: object) -> list[object]:
        found = {"hostname": host, "host": "169.254.169.254", "port": port}
        return [{**found, "family": socket.AF_INET, "proto": 0, "flags": 0}]

    async def has_failed() -> bool:
        return (await webhooks.one(None, made.webhook_id)).n_failures > 0

    monkeypatch.setattr(aiohttp.resolver.DefaultResolver, "resolve", resolve)
    async with delivering(kept, webhooks):
        await eventually(has_failed, "it has failed")
    assert "169.254.169.254 is not called" in (await webhooks.one(None, made.webhook_id)).last_error
