"""The dashboard in a real browser, on the real stack, while a real federation runs."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.documents import synthetic
from tests.support.browser import WATCH, Browser, Page
from tests.support.dashboard import (
    IN_CHROMIUM,
    browser,
    finished,
    holds,
    looking,
)
from tests.support.field import Field
from tests.support.servers import Proxy, eventually

__all__ = ["browser", "finished"]

pytestmark = IN_CHROMIUM
IN_LIST = (
    "fl.federation.started", "fl.federation.completed", "fl.round.started",
    "fl.round.evaluation_started", "fl.round.completed",
)  # fmt: skip


@pytest.fixture(scope="module")
def running(field: Field) -> Iterator[str]:
    """One that goes on for longer than these tests; the last that needs it cancels it."""
    identity = field.submit(synthetic(0.2, num_rounds=4000))
    yield identity
    if field.api.federation(identity)["status"] in ("created", "running", "paused"):
        field.api.post(f"/federations/{identity}/cancel")
    field.ended(identity)


async def history(field: Field, identity: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while page := (
        await asyncio.to_thread(
            field.api.get,
            f"/federations/{identity}/events",
            after=found[-1]["position"] if found else 0,
            limit=1000,
        )
    )["events"]:
        found += page
    return found


async def positions(page: Page) -> list[int]:
    """Of the events in the page's list, newest first."""
    found: list[int] = await page.eval_on_selector_all(
        ".event", "(all) => all.map((one) => Number(one.dataset.position))"
    )
    return found


async def test_a_change_is_in_the_list_as_it_happens(browser: Browser, field: Field) -> None:
    async with looking(browser, field, "#/federations") as page:
        assert "token" not in page.url
        await page.wait_for_selector(".live:has-text('live')")
        await page.evaluate(WATCH)
        identity = await asyncio.to_thread(field.submit, synthetic(1.0, num_rounds=3))
        await page.wait_for_selector(
            f"tr[data-federation={identity}][data-status=completed]", timeout=60_000
        )
        shown = await page.evaluate("window.shown")
        events = await history(field, identity)
    told = [one["position"] for one in events if one["type"] in IN_LIST]
    assert len(told) == 2 + 3 * 3
    seen = [position for position in told if str(position) in shown]
    assert seen[-1] == told[-1]
    at = [shown[str(position)] for position in seen]
    assert at == sorted(at)  # several that come at once are one change of the page
    assert at[0] < at[-1], "it was drawn as it went on, not once at its end"


async def test_every_event_is_drawn_on_the_page_of_its_federation_as_it_happens(
    browser: Browser, field: Field, running: str
) -> None:
    async with looking(browser, field, f"#/federations/{running}") as page:
        await page.wait_for_selector(".event")
        await page.evaluate(WATCH)
        before = await positions(page)
        await holds(page, "Object.keys(window.shown).length > 25", 60)
        drawn = set(await positions(page))
        shown = await page.evaluate("window.shown")
        events = await history(field, running)
    new = [one["position"] for one in events if one["position"] in drawn - set(before)]
    assert len(new) > 10
    assert set(map(str, new)) <= set(shown), "drawn as it came, by no reload"
    assert len({shown[str(one)] for one in new}) > 2, "not all at once"
    first, last = min(drawn), max(drawn)
    assert drawn == {one["position"] for one in events if first <= one["position"] <= last}


async def test_a_cut_connection_says_so_heals_and_misses_nothing(
    browser: Browser, field: Field, running: str
) -> None:
    between = Proxy(field.stack.port("gateway_door"))
    await between.start()
    url = f"http://127.0.0.1:{between.port}"
    async with looking(browser, field, f"#/federations/{running}", url) as page:
        await page.wait_for_selector(".event")
        last = (await positions(page))[0]
        await between.cut()
        await page.wait_for_selector(".live:has-text('reconnecting since')")
        before = field.api.federation(running)["n_rounds_completed"]

        async def goes_on() -> bool:
            now = await asyncio.to_thread(field.api.federation, running)
            return bool(now["n_rounds_completed"] > before + 1)

        await eventually(goes_on, "the federation goes on meanwhile", 60)
        await between.start()
        await page.wait_for_selector(".live >> text=/^live$/", timeout=20_000)
        await asyncio.to_thread(field.api.post, f"/federations/{running}/pause")
        await page.wait_for_selector(".event[data-type='fl.federation.paused']")
        events = await history(field, running)
        missed = [one["position"] for one in events if one["position"] > last]
        more = page.get_by_role("button", name="Show more")
        while await more.count() and min(await positions(page)) > missed[0]:
            await more.click()
        await page.wait_for_selector(f".event[data-position='{missed[-1]}']")
        drawn = await positions(page)
    await between.cut()
    await asyncio.to_thread(field.api.post, f"/federations/{running}/resume")
    assert set(missed) <= set(drawn)
    assert len(drawn) == len(set(drawn))


async def test_the_history_moves_the_whole_page_back_and_returns(
    browser: Browser, field: Field, finished: str
) -> None:
    events = await history(field, finished)
    first_done = next(one for one in events if one["type"] == "fl.round.completed")
    nodes = [
        one
        for one in events
        if one["type"] == "fl.artifact.recorded"
        and one["data"]["kind"] != "state"
        and one["position"] < first_done["position"]
    ]  # the base, and the first checkpoint if the artifact service was heard before
    async with looking(browser, field, f"#/federations/{finished}") as page:
        await page.click(f".event[data-position='{first_done['position']}']")
        mark = page.locator(".travel")
        await mark.wait_for()
        assert "You are looking at" in await mark.inner_text()
        assert await page.locator("[data-status]").first.get_attribute("data-status") == "running"
        assert await page.locator(".figure dd").first.inner_text() == "1 of 2"
        assert f"at={first_done['position']}" in page.url
        assert await page.get_by_role("button", name="Pause").count() == 0
        assert await page.locator(".node").count() == len(nodes) >= 1
        await page.get_by_role("button", name="Back to live").click()
        await mark.wait_for(state="detached")
        assert await page.locator(".figure dd").first.inner_text() == "2 of 2"


async def test_a_federation_is_paused_resumed_and_cancelled_by_keyboard_alone(
    browser: Browser, field: Field, running: str
) -> None:
    async with looking(browser, field, f"#/federations/{running}") as page:

        async def give(key: str, reason: str, status: str) -> None:
            await page.keyboard.press(key)
            await page.wait_for_selector("dialog[open]")
            if reason:
                await page.keyboard.press("Tab")
                await page.locator("[name=reason]").focus()
                await page.keyboard.type(reason)
                await page.keyboard.press("Enter")
            else:
                await page.locator("dialog .primary").focus()
                await page.keyboard.press("Enter")
            await page.wait_for_selector(f".stack[data-status={status}]")
            await page.wait_for_selector("dialog[open]", state="detached")

        await page.wait_for_selector(".stack[data-status=running]")
        await page.keyboard.press("c")
        await page.wait_for_selector("dialog[open]")
        await page.keyboard.press("Escape")
        await page.wait_for_selector("dialog[open]", state="detached")
        assert field.api.federation(running)["status"] == "running"

        await give("p", "lunch", "paused")
        await page.locator(".event", has_text="Paused: lunch").wait_for()
        await give("r", "", "running")
        await give("c", "enough", "cancelled")
    assert field.api.federation(running)["reason"] == "enough"


async def test_a_checkpoint_is_verified_and_promoted_from_the_page(
    browser: Browser, field: Field, finished: str
) -> None:
    async with looking(browser, field, f"#/federations/{finished}") as page:
        node = page.locator(".node").first
        await node.get_by_role("button", name="Verify").click()
        await page.wait_for_selector("dialog [data-verified=true]", timeout=30_000)
        await page.keyboard.press("Escape")
        await node.get_by_role("button", name="Promote").click()
        await page.locator("dialog [name=channel]").fill("ward")
        await page.locator("dialog .primary").click()
        await node.locator(".tag", has_text="ward").wait_for()
    final = field.api.federation(finished)["final"]["sha256"]
    records = field.api.get(f"/artifacts/{final}")["records"]
    assert ["ward"] in [one["channels"] for one in records if one["federation_id"] == finished]


async def test_who_may_only_look_is_offered_no_command(
    browser: Browser, field: Field, finished: str
) -> None:
    roles = {"subject": "eve", "issuer": "there", "actor": "eve", "roles": {"acme": "viewer"}}
    async with looking(browser, field, "#/slos") as page:
        await page.route("**/whoami*", lambda one: one.fulfill(json=roles))
        await page.reload()
        await page.evaluate("(to) => { location.hash = to; }", f"#/federations/{finished}")
        await page.wait_for_selector(".node")
        assert await page.locator(".who").inner_text() == "eve"
        assert await page.get_by_role("group", name="Commands").count() == 0
        assert (
            await page.locator(".node-end .button:enabled:not(:has-text('Download'))").count() == 0
        )
        await page.keyboard.press("2")
        await page.wait_for_selector("tr[data-client]")
        assert await page.get_by_role("button", name="Invite a client").count() == 0


async def test_an_invite_is_shown_once(browser: Browser, field: Field) -> None:
    async with looking(browser, field, "#/clients") as page:
        await page.get_by_role("button", name="Invite a client").click()
        await page.locator("dialog [name=tags]").fill("shown, once")
        await page.get_by_role("button", name="Make the invite").click()
        invite = await page.locator("dialog .copied span").inner_text()
        await page.keyboard.press("Escape")
        await page.locator("tr", has_text="once").first.wait_for()
        assert invite not in await page.content()
