"""Pictures of every page of the dashboard, for docs/images: of a real stack while it trains.

    make screenshots        (Chromium at /usr/bin/chromium is needed)

A stack and four hospitals in .state/screenshots. One federation completes, one is paused, one
waits for clients, one was refused, one is in the middle of a round.
"""

import asyncio
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.async_api import Browser, Page

from flowerbed.cli.api import Api, Refused
from scripts.demo import ROOT, start_sites, start_stack, stop
from tests.support.browser import CHROMIUM, PHONE, browsing, open_page

IMAGES = ROOT / "docs" / "images"
STATE = ROOT / ".state" / "screenshots"
LARGEST = 250_000
WIDTH = {"width": 1360, "height": 850}


@dataclass(frozen=True)
class Shot:
    """`ready`: what must be on the page; `full`: all of it, not only the window."""

    name: str
    place: str
    ready: str
    scheme: str = "light"
    is_phone: bool = False
    height: int = 0
    before: str = ""


def spec(name: str, **changes: Any) -> dict[str, Any]:
    return {
        "apiVersion": "flowerbed/v1",
        "metadata": {"name": name, "tenant": "default"},
        "spec": {
            "app": "builtin:hospital",
            "model_ref": {"uri": "builtin:hospital"},
            "num_rounds": 10,
            "min_clients": 4,
            "train": {"local_epochs": 5, "batch_size": 32, "learning_rate": 0.02, "seed": 7},
            "client_selector": {"tags": ["hospital"]},
            "dataset_spec": {"uris": ["local:hospital"]},
            "artifacts": {"bucket": "flowerbed", "prefix": name},
            **changes,
        },
    }


class Scene:
    """What is to be seen."""

    def __init__(self, api: Api) -> None:
        self.api = api

    def submit(self, document: dict[str, Any]) -> str:
        key = f"shot-{time.time_ns()}"
        found: str = self.api.submit(json.dumps(document).encode(), key)["federation_id"]
        return found

    def until(self, identity: str, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        end = time.monotonic() + 180
        while time.monotonic() < end:
            try:
                found = self.api.federation(identity)
            except Refused:
                continue
            if holds(found):
                return found
            time.sleep(0.1)
        raise SystemExit(f"{identity} did not get where it is to be shown")

    def set_up(self) -> tuple[str, str]:
        """The one that completed, and the one that is in the middle of a round."""
        done = self.submit(spec("heart-disease"))
        found = self.until(done, lambda one: one["status"] == "completed")
        body = {"channel": "stable", "federation_id": done}
        self.api.post(f"/artifacts/{found['final']['sha256']}/promote", body)
        waits = spec("stroke-risk", client_selector={"tags": ["stroke-unit"]}, min_clients=2)
        self.submit(waits)
        paused = self.submit(spec("readmission", num_rounds=60))
        self.until(paused, lambda one: one["n_rounds_completed"] >= 7)
        self.api.post(f"/federations/{paused}/pause", {"reason": "ethics board meets"})
        self.until(paused, lambda one: one["status"] == "paused")
        cancelled = self.submit(spec("sepsis-pilot", num_rounds=40))
        self.until(cancelled, lambda one: one["n_rounds_completed"] >= 3)
        self.api.post(f"/federations/{cancelled}/cancel", {"reason": "wrong learning rate"})
        train = {"local_epochs": 100, "batch_size": 16, "learning_rate": 0.0004, "seed": 3}
        runs = self.submit(spec("heart-disease-large", num_rounds=60, train=train))
        self.until(runs, lambda one: one["n_rounds_completed"] >= 12)
        return done, runs


def shots(done: str, runs: str, at: int) -> list[Shot]:
    ready, whole = ".waterfall", f"#/federations/{runs}?round=12"
    return [
        Shot("federations-light", "#/federations", "tr[data-federation]"),
        Shot("federations-dark", "#/federations", "tr[data-federation]", "dark"),
        Shot("federation-light", whole, ready, height=1500),
        Shot("federation-dark", f"#/federations/{runs}", ready, "dark", height=1500),
        Shot("lineage-light", f"#/federations/{done}", ".node", before="#lineage", height=1000),
        Shot("time-travel-dark", f"#/federations/{done}?at={at}", ".travel", "dark"),
        Shot("clients-light", "#/clients", "tr[data-client]"),
        Shot("services-dark", "#/services", "[data-service]", "dark"),
        Shot("slos-light", "#/slos", "[data-slo]"),
        Shot("phone", f"#/federations/{runs}", ready, is_phone=True, height=1700),
    ]


async def take(browser: Browser, url: str, token: str, shot: Shot) -> None:
    viewport = dict(PHONE if shot.is_phone else WIDTH)
    if shot.height:
        viewport["height"] = shot.height
    how = {"viewport": viewport, "scheme": shot.scheme}
    async with open_page(browser, url, token, shot.place, **how) as (page, complaints):  # type: ignore[arg-type]
        await page.wait_for_selector(shot.ready)
        await settled(page)
        if shot.before:
            await page.locator(shot.before).evaluate("(one) => one.scrollIntoView()")
        path = IMAGES / f"{shot.name}.png"
        await page.screenshot(path=path)
        small(path)
        print(f"{path.relative_to(ROOT)}  {path.stat().st_size // 1000} kB", *complaints)


async def settled(page: Page) -> None:
    """Fonts are there, and the page has drawn what the stream told first."""
    await page.evaluate("() => document.fonts.ready.then(() => true)")
    await page.wait_for_timeout(900)


def small(path: Path) -> None:
    """As it is, if that is small; else with 256 colours, the rare ones of states among them."""
    with Image.open(path) as taken:
        picture = taken.convert("RGB")
    picture.save(path, optimize=True)
    if path.stat().st_size > LARGEST:
        few = picture.quantize(
            colors=256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE
        )
        few.save(path, optimize=True)
    if path.stat().st_size > LARGEST:
        raise SystemExit(f"{path} has {path.stat().st_size} bytes; at most {LARGEST}")


async def take_all(url: str, token: str, wanted: list[Shot]) -> None:
    async with browsing() as browser:
        for shot in wanted:
            await take(browser, url, token, shot)


def main() -> int:
    if not CHROMIUM.exists():
        raise SystemExit(f"{CHROMIUM} is missing: apt-get install chromium")
    IMAGES.mkdir(parents=True, exist_ok=True)
    stack = start_stack(STATE)
    try:
        start_sites("hospital", STATE / "data", STATE)
        api = Api(stack.gateway_url, stack.api_token)
        done, runs = Scene(api).set_up()
        events = api.get(f"/federations/{done}/events", limit=1000)["events"]
        at = [one["position"] for one in events if one["type"] == "fl.round.completed"][4]
        asyncio.run(take_all(stack.gateway_url, stack.api_token, shots(done, runs, at)))
    finally:
        stop(STATE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
