"""A rest lasts until it is over or somebody is in a hurry."""

import asyncio

from flowerbed.events.rest import Rest

LONG = 60.0


async def test_a_rest_is_over_by_itself() -> None:
    async with asyncio.timeout(LONG):
        await Rest(0.01).take()


async def test_a_hurry_ends_every_rest_under_way() -> None:
    rest = Rest(LONG)
    resting = [asyncio.create_task(rest.take()) for _ in range(3)]
    await asyncio.sleep(0.01)
    assert not any(task.done() for task in resting)
    rest.hurry()
    await asyncio.wait_for(asyncio.gather(*resting), LONG / 10)


async def test_no_rest_is_taken_while_the_hurry_lasts() -> None:
    rest = Rest(LONG, hurry_seconds=LONG)
    rest.hurry()
    await asyncio.wait_for(rest.take(), LONG / 10)


async def test_rests_are_taken_again_when_the_hurry_is_over() -> None:
    rest = Rest(LONG, hurry_seconds=0.0)
    rest.hurry()
    resting = asyncio.create_task(rest.take())
    await asyncio.sleep(0.01)
    assert not resting.done()
    resting.cancel()
