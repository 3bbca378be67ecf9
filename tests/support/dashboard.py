"""What tests of the dashboard share: a browser, a signed-in page, a completed federation."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import pytest_asyncio

from tests.e2e.documents import hospital
from tests.support.browser import CHROMIUM, Browser, Page, browsing, open_page
from tests.support.field import Field
from tests.support.servers import eventually

IN_CHROMIUM = [
    pytest.mark.skipif(
        not CHROMIUM.exists(), reason=f"{CHROMIUM} is missing: apt-get install chromium"
    ),
    pytest.mark.asyncio(loop_scope="module"),
]
NAME = "dashboard"


def short() -> dict[str, Any]:
    document = hospital(num_rounds=2)
    document["metadata"]["name"] = NAME
    return document


@pytest.fixture(scope="module")
def finished(field: Field) -> str:
    """A federation that has completed; one for all tests that only look at it."""
    found = field.api.get("/federations", name=NAME, status="completed")["federations"]
    if found:
        return str(found[0]["federation_id"])
    identity = field.submit(short())
    field.completed(identity)
    return identity


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with browsing() as one:
        yield one


@asynccontextmanager
async def looking(
    browser: Browser, field: Field, place: str, url: str = "", **how: Any
) -> AsyncIterator[Page]:
    """A page that must neither complain nor ask anybody but the gateway."""
    address = url or field.stack.gateway_url
    opened = open_page(browser, address, field.stack.api_token, place, **how)
    async with opened as (page, complaints):
        yield page
        assert complaints == []


async def holds(page: Page, expression: str, seconds: float = 15.0) -> None:
    """Not by `wait_for_function`: the page's policy forbids it to evaluate text."""

    async def look() -> bool:
        return bool(await page.evaluate(expression))

    await eventually(look, expression, seconds)
