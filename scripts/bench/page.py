"""How long after its commit a change stands on the dashboard's page, in a real browser.

    python -m scripts.bench.page --rounds 60

Four hospitals train; one page shows their federation, another one the list, in Chromium. A
MutationObserver in the page notes when each position is first drawn; the database's own time of
the event is when it was recorded. Shown: p50, p99 and the longest of both pages, in milliseconds.
"""

import argparse
import asyncio
import statistics
import sys
import time
from collections.abc import Sequence
from datetime import datetime

from flowerbed.cli.api import Api
from flowerbed.embedded.testing import running_stack
from scripts.bench.backbone.tables import markdown
from scripts.bench.rounds import TRAIN, Bench, prepared
from tests.e2e.documents import hospital
from tests.support.browser import CHROMIUM, WATCH, Browser, browsing, open_page
from tests.support.field import Field, hospitals


async def watched(
    browser: Browser, field: Field, place: str, identity: str
) -> tuple[float, dict[int, float]]:
    """Since when the page at `place` was watched, and when it first showed each position."""
    url, token = field.stack.gateway_url, field.stack.api_token
    async with open_page(browser, url, token, place) as (page, complaints):
        await page.wait_for_selector(".live:has-text('live')")
        await page.evaluate(WATCH)
        since = time.time()
        await asyncio.to_thread(field.ended, identity, 600.0)
        await asyncio.sleep(2.0)
        shown: dict[str, int] = await page.evaluate("window.shown")
        assert complaints == []
    return since, {int(position): at / 1000 for position, at in shown.items()}


def recorded(field: Field, identity: str) -> dict[int, float]:
    found: dict[int, float] = {}
    while page := field.api.get(
        f"/federations/{identity}/events", after=max(found, default=0), limit=1000
    )["events"]:
        for one in page:
            found[one["position"]] = datetime.fromisoformat(one["recorded_at"]).timestamp()
    return found


async def measure(field: Field, bench: Bench) -> dict[str, list[float]]:
    """Milliseconds from commit to page, by page."""
    async with browsing() as browser:
        identity = field.submit(
            hospital(num_rounds=bench.n_rounds, train=TRAIN | {"seed": bench.seed})
        )
        places = {"the federation's page": f"#/federations/{identity}", "the list": "#/federations"}
        seen = await asyncio.gather(
            *(watched(browser, field, place, identity) for place in places.values())
        )
    at = recorded(field, identity)
    return {
        name: [1000 * (drawn - at[one]) for one, drawn in shown.items() if at.get(one, 0.0) > since]
        for name, (since, shown) in zip(places, seen, strict=True)
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.bench.page",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=60)
    options = parser.parse_args(arguments)
    if not CHROMIUM.exists():
        print(f"{CHROMIUM} is missing: apt-get install chromium", file=sys.stderr)
        return 2
    with prepared(options.rounds, 7) as bench, running_stack(bench.scratch / "stack") as stack:
        field = Field(stack, Api(stack.gateway_url, stack.api_token))
        homes = bench.scratch / "clients"
        for ready in hospitals(field, bench.data, homes, list(bench.sites)):
            found = asyncio.run(measure(ready, bench))
    rows = []
    for name, all_of in found.items():
        cuts = statistics.quantiles(all_of, n=100)
        figures = (cuts[49], cuts[98], max(all_of))
        rows.append([name, str(len(all_of)), *(f"{one:.0f}" for one in figures)])
    print(markdown(["", "changes drawn", "p50, ms", "p99, ms", "longest, ms"], rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
