"""A federation as it happens, and as it was."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from fastapi.responses import JSONResponse

from tests.integration.gateway.conftest import Gateway
from tests.integration.gateway.story import FED, NOON, OTHER, TENANT, whole_story
from tests.support.servers import eventually
from tests.support.sse import Sent, merged, subscribed


async def _get(gateway: Gateway, path: str, expected: int = 200, **params: Any) -> Any:
    answer = await gateway.http.get(path, params=params)
    assert answer.status_code == expected, answer.text
    return answer.json()


async def test_changes_lead_from_one_view_to_the_next(gateway: Gateway) -> None:
    story = whole_story()
    half = len(story.told) // 2
    await gateway.hear(story.told[:half])
    async with subscribed(gateway.http, f"/federations/{FED}/live") as sent:
        page = Page((await anext(sent)).data)
        reading = asyncio.create_task(page.read(sent))
        await gateway.hear(story.told[half:])

        async def is_up_to_date() -> bool:
            """As a page that is opened now; a view is made now and then, not for each event."""
            async with subscribed(gateway.http, f"/federations/{FED}/live") as other:
                fresh = (await anext(other)).data
            return len(page.seen) >= _mine(story, half) and _plain(page.view) == _plain(fresh)

        await eventually(is_up_to_date, "it is as a page that is opened now")
        reading.cancel()
        await asyncio.wait({reading})

    assert {one["position"] for one in page.seen} == {
        one["position"]
        for one in (await _get(gateway, f"/federations/{FED}/events", limit=1000))["events"]
    } - {one["position"] for one in await _first(gateway, half, story)}


@dataclass(slots=True)
class Page:
    """What a page has: its view with each change applied, and the events that it was sent."""

    view: dict[str, Any]
    seen: list[dict[str, Any]] = field(default_factory=list)

    async def read(self, sent: AsyncIterator[Sent]) -> None:
        async for one in sent:
            if one.event == "patch":
                self.view = merged(self.view, one.data)
            elif one.event == "events":
                self.seen += one.data["events"]


def _mine(story: Any, half: int) -> int:
    return sum(1 for one in story.told[half:] if one.context.correlation_id == FED)


async def _first(gateway: Gateway, half: int, story: Any) -> list[dict[str, Any]]:
    known = {str(one.id) for one in story.told[:half]}
    found = (await _get(gateway, f"/federations/{FED}/events", limit=1000))["events"]
    return [one for one in found if one["id"] in known]


def _plain(view: dict[str, Any]) -> dict[str, Any]:
    """Without what is null: a patch cannot tell it from what is not there."""
    return {
        key: _plain(value) if isinstance(value, dict) else value
        for key, value in view.items()
        if value is not None and key != "position"
    }


async def test_a_live_view_goes_on_where_it_broke_off(gateway: Gateway) -> None:
    story = whole_story()
    half = len(story.told) // 2
    await gateway.hear(story.told[:half])
    async with subscribed(gateway.http, f"/federations/{FED}/live") as sent:
        await anext(sent)
        caught_up = await anext(sent)
    await gateway.hear(story.told[half:])
    async with (
        subscribed(gateway.http, f"/federations/{FED}/live", last=caught_up.id) as sent,
        asyncio.timeout(60),
    ):
        assert (await anext(sent)).event == "view"
        missed = await anext(sent)
        assert (await anext(sent)).event == "caught-up"

    assert missed.event == "events" and len(missed.data["events"]) == _mine(story, half)
    await _get(gateway, "/federations/fed-0000000000000000/live", expected=404)
    await _get(gateway, f"/federations/{FED}/live", expected=404, tenant=OTHER)


async def test_a_federation_is_shown_as_it_was_at_any_position(gateway: Gateway) -> None:
    story = whole_story()
    shown: dict[int, Any] = {}
    for start in range(0, len(story.told), 12):
        await gateway.hear(story.told[start : start + 12])
        position = (await _get(gateway, "/events/last"))["position"]
        answer = await gateway.http.get(f"/federations/{FED}")
        if answer.status_code == 200:
            shown[position] = answer.json(), await _get(gateway, f"/federations/{FED}/lineage")

    assert len(shown) > 3
    for position, (federation, lineage) in shown.items():
        then = await _get(gateway, f"/federations/{FED}", at=position)
        for part in ("status", "rounds", "artifacts", "round_number", "metrics", "final", "base"):
            assert then[part] == federation[part], (position, part)
        clients = [{**one, "tags": []} for one in then["clients"]]
        assert clients == [{**one, "tags": []} for one in federation["clients"]]
        assert await _get(gateway, f"/federations/{FED}/lineage", at=position) == lineage
        why = await _get(gateway, f"/federations/{FED}/why", at=position, tenant=TENANT)
        assert why["status"] == federation["status"]
    now = await _get(gateway, f"/federations/{FED}")
    assert now["status"] == "completed"
    await _get(gateway, f"/federations/{FED}", at=0, expected=404)
    await _get(gateway, f"/federations/{FED}", at=position, tenant=OTHER, expected=404)


async def test_objectives_are_counted_from_the_read_models(gateway: Gateway) -> None:
    empty = {one["name"]: one for one in (await _get(gateway, "/slo"))["indicators"]}
    assert all(one["ratio"] is None and one["total"] == 0 for one in empty.values())
    lately = datetime.now(UTC) - timedelta(minutes=30) - NOON
    told = [replace(one, recorded_at=one.recorded_at + lately) for one in whole_story().told]
    await gateway.hear(told)

    found = {one["name"]: one for one in (await _get(gateway, "/slo", hours=1))["indicators"]}

    assert (found["joins"]["good"], found["joins"]["total"]) == (3, 3)
    assert (found["rounds"]["good"], found["rounds"]["total"]) == (2, 3)
    assert found["rounds"]["budget_left"] < 0 < found["rounds"]["p95_seconds"]
    assert (found["artifacts"]["good"], found["artifacts"]["total"]) == (2, 2)


async def test_services_say_themselves_how_they_do(gateway: Gateway) -> None:
    said = {"ready": False, "checks": {"s3": "away"}, "failing": {}, "lags": {"outbox": 3.0}}
    gateway.behind.answers["/readyz"] = JSONResponse(said, status_code=503)
    found = {one["name"]: one for one in (await _get(gateway, "/services"))["services"]}

    mine = found["gateway"]
    assert mine["status"] == "ready" and mine["dead_letters"] == 0
    assert mine["replicas"][0]["checks"]["postgres"] == "ok"
    theirs = found["lease"]["replicas"][0]
    assert (found["lease"]["status"], theirs["status"]) == ("degraded", "not-ready")
    assert (theirs["checks"], theirs["lags"]) == ({"s3": "away"}, {"outbox": 3.0})
    await gateway.behind.stop()
    found = {one["name"]: one for one in (await _get(gateway, "/services"))["services"]}
    assert found["lease"]["status"] == "away" and found["lease"]["dead_letters"] is None
