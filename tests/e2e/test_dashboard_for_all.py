"""The dashboard for everybody: by keyboard, on a phone, light and dark, and nothing made up."""

import json
from datetime import datetime
from typing import Any

import pytest

from tests.support.browser import PHONE, Browser, faults, sideways
from tests.support.dashboard import IN_CHROMIUM, browser, finished, holds, looking
from tests.support.field import Field

__all__ = ["browser", "finished"]

pytestmark = IN_CHROMIUM


async def test_the_keyboard_reaches_everything_and_shows_where_it_is(
    browser: Browser, field: Field, finished: str
) -> None:
    async with looking(browser, field, "#/federations") as page:
        row = page.locator(f"tr[data-federation={finished}] a")
        await row.wait_for()
        await page.keyboard.press("?")
        await page.get_by_role("heading", name="Keyboard shortcuts").wait_for()
        await page.keyboard.press("Escape")
        await page.evaluate("document.activeElement.blur()")
        await page.keyboard.press("Tab")
        assert await page.evaluate("document.activeElement.className") == "skip"
        await page.keyboard.press("Enter")
        assert await page.evaluate("document.activeElement.id") == "main"
        await page.keyboard.press("/")
        await page.keyboard.type(finished)
        await holds(page, "document.querySelectorAll('tbody tr').length === 1")
        await row.focus()
        ring = await row.evaluate("(one) => getComputedStyle(one).outlineStyle")
        assert ring == "solid"
        await page.keyboard.press("Enter")
        await page.wait_for_selector(".waterfall")
        await page.keyboard.press("ArrowLeft")
        await page.wait_for_selector(".round-facts[data-round='1']")


PLACES = ("#/federations", "#/federations/{id}", "#/clients", "#/services", "#/slos")
READY = {
    "#/federations": "tr[data-federation]", "#/federations/{id}": ".waterfall",
    "#/clients": "tr[data-client]", "#/services": "[data-service]", "#/slos": "[data-slo]",
}  # fmt: skip


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_no_page_has_a_serious_fault_of_accessibility(
    browser: Browser, field: Field, finished: str, scheme: str
) -> None:
    async with looking(browser, field, PLACES[0], scheme=scheme) as page:
        found: dict[str, list[str]] = {}
        for place in PLACES:
            await page.evaluate("(to) => { location.hash = to; }", place.format(id=finished))
            await page.wait_for_selector(READY[place])
            found[place] = await faults(page)
        theme = await page.evaluate("document.documentElement.dataset.theme")
    assert theme == scheme
    assert {place: one for place, one in found.items() if one} == {}


async def test_no_page_scrolls_sideways_on_a_phone(
    browser: Browser, field: Field, finished: str
) -> None:
    async with looking(browser, field, PLACES[0], viewport=PHONE) as page:
        for place in PLACES:
            await page.evaluate("(to) => { location.hash = to; }", place.format(id=finished))
            await page.wait_for_selector(READY[place])
            assert await sideways(page) <= 0, place
            heads = await page.locator("thead").evaluate_all(
                "(all) => all.filter((one) => one.getBoundingClientRect().height > 2).length"
            )
            assert heads == 0  # tables are cards


async def test_a_wrong_token_is_refused_in_words_and_the_right_one_enters(
    browser: Browser, field: Field
) -> None:
    context = await browser.new_context()
    page = await context.new_page()
    await page.goto(field.stack.gateway_url)
    await page.get_by_label("Token").fill("not-it")
    await page.keyboard.press("Enter")
    await page.get_by_role("alert").wait_for()
    assert "does not know this token" in await page.get_by_role("alert").inner_text()
    await page.get_by_label("Token").fill(field.stack.api_token)
    await page.keyboard.press("Enter")
    await page.wait_for_selector("nav[aria-label=Pages]")
    kept = json.loads(await page.evaluate("JSON.stringify({...localStorage})"))
    assert field.stack.api_token not in kept.values()
    await context.close()


FRAMES = """
async (text) => {
  const { Frames } = await import("/assets/js/data/stream.js");
  const cut = [];
  for (let at = 0; at <= text.length; at += 1) {
    const read = [];
    const frames = new Frames((one) => read.push([one.id, one.event, one.data]));
    frames.push(text.slice(0, at));
    frames.push(text.slice(at));
    cut.push(JSON.stringify(read));
  }
  return [...new Set(cut)];
}
"""


async def test_frames_are_the_same_wherever_the_network_cuts_them(
    browser: Browser, field: Field
) -> None:
    text = ': alive\n\nid: 7\nevent: a\ndata: {"x":\ndata: 1}\n\nevent: b\r\ndata: é:2\r\n\r\n'
    async with looking(browser, field, "#/federations") as page:
        read = await page.evaluate(FRAMES, text)
    assert [json.loads(one) for one in read] == [[["7", "a", '{"x":\n1}'], [None, "b", "é:2"]]]


SPANS = """
async ([attempt, updates, end]) => {
  const { waterfall } = await import("/assets/js/federation/spans.js");
  const { rows } = waterfall(attempt, updates, { end });
  return Object.fromEntries(rows.map((row) => [row.key, row.bars.map((bar) => bar.phase)]));
}
"""


async def test_a_waterfall_shows_what_was_reported_and_guesses_nothing(
    browser: Browser, field: Field
) -> None:
    def at(second: float) -> str:
        return f"2026-01-01T12:00:{second:06.3f}Z"

    def answer(client: str, **more: Any) -> dict[str, Any]:
        asked = {"exchange": "train", "client_id": client, "asked_at": at(0), "status": "accepted"}
        return {**asked, "reported_at": at(4), "decided_at": at(5), "train_seconds": 2, **more}

    told = answer("told", download_seconds=0.5, upload_seconds=0.5)
    untold = answer("untold")
    silent = {**answer("silent"), "reported_at": None, "decided_at": None, "status": "asked"}
    attempt = {"status": "training", "started_at": at(0)}
    end = datetime.fromisoformat(at(9)).timestamp() * 1000
    closed = {**attempt, "status": "evaluating", "aggregated_at": at(8), "recorded_at": at(9)}
    async with looking(browser, field, "#/federations") as page:
        waiting = await page.evaluate(SPANS, [attempt, [told, untold, silent], end])
        folding = await page.evaluate(SPANS, [attempt, [told, untold], end])
        partly = await page.evaluate(SPANS, [closed, [told, silent], end])
    assert waiting["train.told"] == ["wait", "download", "train", "upload", "screening"]
    assert waiting["train.untold"] == ["rest", "train", "screening"]
    assert waiting["train.silent"] == ["open"]
    assert "fold" not in waiting
    assert folding["fold"] == ["fold"]
    assert partly["fold"] == ["settle"] and partly["artifact"] == ["artifact"]
