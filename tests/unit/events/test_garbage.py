"""What is young is collected often, what is old seldom, and nothing never."""

import asyncio
import gc
import weakref
from collections.abc import Iterator

import pytest

from flowerbed.events.garbage import collect_in_portions


class Knot:
    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def thawed() -> Iterator[None]:
    yield
    gc.unfreeze()


async def gone(of: "weakref.ref[Knot]") -> bool:
    for _ in range(200):
        if of() is None:
            return True
        await asyncio.sleep(0.01)
    return False


async def test_a_young_cycle_is_collected_with_the_next_portion() -> None:
    collecting = asyncio.create_task(collect_in_portions(portion=0.01, whole=3600))
    await asyncio.sleep(0.03)
    assert await gone(weakref.ref(Knot()))
    collecting.cancel()


async def test_what_lasts_is_set_aside_and_collected_with_the_whole() -> None:
    knot = Knot()
    kept = weakref.ref(knot)
    collecting = asyncio.create_task(collect_in_portions(portion=0.01, whole=0.5))
    await asyncio.sleep(0.1)
    assert not any(one is knot for one in gc.get_objects()), "no collection looks at it"
    del knot
    await asyncio.sleep(0.05)
    assert kept() is not None
    assert await gone(kept)
    collecting.cancel()
