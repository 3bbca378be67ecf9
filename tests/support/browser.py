"""Headless Chromium, and what a test of the dashboard asks of a page."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("playwright", reason="playwright is not installed")

from playwright.async_api import Browser, ConsoleMessage, Page, Request, async_playwright

__all__ = ["Browser", "Page", "browsing", "faults", "open_page", "sideways"]

CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--no-first-run",
)  # fmt: skip
DESK = {"width": 1440, "height": 900}
PHONE = {"width": 390, "height": 844}
AXE = Path(__file__).parents[1] / "e2e" / "axe.min.js"

WATCH = """
window.shown = {};
window.watching = new MutationObserver((changes) => {
  for (const change of changes) {
    const added = [...change.addedNodes].filter((one) => one.querySelectorAll);
    const found = added.flatMap((one) => [one, ...one.querySelectorAll("[data-position]")]);
    for (const one of change.type === "attributes" ? [change.target] : found) {
      const position = one.dataset?.position;
      if (position) window.shown[position] ??= Date.now();
    }
  }
});
window.watching.observe(document.body,
  { subtree: true, childList: true, attributes: true, attributeFilter: ["data-position"] });
"""
"""Notes when the page first shows each position."""


@asynccontextmanager
async def browsing() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=str(CHROMIUM), args=list(ARGUMENTS)
        )
        try:
            yield browser
        finally:
            await browser.close()


@asynccontextmanager
async def open_page(
    browser: Browser,
    url: str,
    token: str,
    place: str = "#/federations",
    *,
    viewport: dict[str, int] | None = None,
    scheme: str = "light",
) -> AsyncIterator[tuple[Page, list[str]]]:
    """Signed in and at `place`; the list holds what the page complained about and who it asked."""
    context = await browser.new_context(
        viewport=viewport or DESK,  # type: ignore[arg-type]  # a dict is a ViewportSize
        color_scheme=scheme,  # type: ignore[arg-type]  # "light" or "dark"
        reduced_motion="reduce",
    )
    await context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = await context.new_page()
    complaints: list[str] = []
    _listen(page, url, complaints)
    try:
        await page.goto(f"{url}/#token={token}")
        await page.wait_for_selector("nav[aria-label=Pages]")
        await page.evaluate("(place) => { location.hash = place; }", place)
        yield page, complaints
    finally:
        await context.close()


def _listen(page: Page, url: str, complaints: list[str]) -> None:
    """What goes wrong in the page, and whom it asks who is not the gateway."""

    def on_request(one: Request) -> None:
        if not one.url.startswith(url):
            complaints.append(one.url)

    def on_console(one: ConsoleMessage) -> None:
        if one.type == "error" and "net::ERR" not in one.text:
            complaints.append(f"console: {one.text}")

    page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
    page.on("request", on_request)
    page.on("console", on_console)


async def faults(page: Page) -> list[str]:
    """Serious and critical faults of accessibility, as axe-core finds them."""
    await page.evaluate(AXE.read_text())
    found: dict[str, Any] = await page.evaluate("() => axe.run(document, {resultTypes: []})")
    return [
        f"{one['id']}: {node['html'][:160]} {node['failureSummary']}"
        for one in found["violations"]
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"][:3]
    ]


async def sideways(page: Page) -> int:
    """By how many pixels the page is wider than the window."""
    wider: int = await page.evaluate(
        "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )
    return wider
