"""The dashboard's page of a federation that runs somebody's whole ServerApp."""

from flowerbed.cli.bundling import bundle_of
from tests.e2e.test_whole_apps import APPS, open_field, submit
from tests.support.browser import Browser
from tests.support.dashboard import IN_CHROMIUM, browser, looking
from tests.support.field import Field, until

__all__ = ["browser", "open_field"]

pytestmark = IN_CHROMIUM


async def test_its_exchanges_are_told_in_plain_words(browser: Browser, open_field: Field) -> None:
    """Its threads end their exchanges in any order."""
    field = open_field
    identity = submit(field, bundle_of(APPS / "oldstyle"))
    found = field.completed(identity)
    assert found["n_rounds_completed"] == found["n_rounds"]

    def rounds() -> list[str]:  # the aggregator may be heard after the orchestrator
        return [one["status"] for one in field.api.federation(identity)["rounds"]]

    until(lambda: rounds() == ["completed"] * found["n_rounds"], "each exchange is done")
    async with looking(browser, field, f"#/federations/{identity}") as page:
        await page.wait_for_selector(".event[data-type='fl.serverapp.completed']")
        told = await page.locator(".event").all_inner_texts()
        figures = await page.locator(".figures").inner_text()
        drawn = await page.locator("#loss").inner_text()
    assert not [one for one in told if "fl." in one], "each event has its sentence"
    assert any("What the app's main gave is the model" in one for one in told)
    assert any("Exchange" in one and "1 message sent" in one for one in told)
    assert "exchanges done" in figures.lower()
    assert "errors" not in drawn.lower(), "how many nodes failed is no loss"
